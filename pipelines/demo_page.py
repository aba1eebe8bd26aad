"""The demo's page. In: answers of a tour. Out: one HTML file that holds its pictures, sounds and videos; nothing is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.space import Space
from pipelines.demo_tour import Answer, Part
from pipelines.hits import Card, data_uri, preview_uri, templates
from pipelines.snapshot import Stats


@dataclass(frozen=True)
class Asked:
    """One part of a question, ready to be shown; empty strings for what there is not."""

    modality: str
    words: str
    preview: str  # a data URI
    media: str  # a data URI of a sound


@dataclass(frozen=True)
class Told:
    """A question and its answer, ready to be shown."""

    answer: Answer
    asked: Sequence[Asked]
    cards: Sequence[Card]


def render(answers: Sequence[Answer], stats: Stats, space: Space) -> str:
    """The page as HTML."""
    told = [
        Told(answer, [_asked(part, space) for part in answer.asked], answer.hits.cards() if answer.hits else [])
        for answer in answers
    ]
    return templates(Path(__file__).parent).get_template("demo_page.html.jinja").render(told=told, stats=stats)


def _asked(part: Part, space: Space) -> Asked:
    if part.path is None:
        return Asked(part.modality, part.words, "", "")
    encoder = space.encoder(part.modality)
    facts = encoder.describe(encoder.decode(part.path))
    media = data_uri(part.path.read_bytes(), facts.mime or "audio/wav") if part.modality == "audio" else ""
    return Asked(part.modality, part.words, preview_uri(facts.preview), media)
