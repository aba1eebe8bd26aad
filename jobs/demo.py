"""What `make demo` runs. In: nothing. Out: a small world of seven modalities, embedded and asked; a page to see and hear it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.config import DryRun, JsonReport, planned, run_job
from jobs.make_demo import MakeDemoConfig, make_demo
from pipelines.demo_page import render
from pipelines.demo_tour import ORDER, Answer, take_tour
from pipelines.embed import EmbedSettings, embed
from pipelines.index import open_index
from pipelines.log import say

SCENES = 144  # of the held-out grid: every thing in every place once


@dataclass(frozen=True, kw_only=True)
class DemoConfig(DryRun):
    """Make a small world of seven modalities, embed it, search it, and write a page about it.

    Args:
        out: the folder for all of it.
    """

    out: str = "demo"


def demo(config: DemoConfig) -> JsonReport:
    """Only what is not there yet is made; a second run makes and embeds nothing."""
    folder = Path(config.out)
    media, db, page = folder / "media", folder / "index", folder / "demo.html"
    world = MakeDemoConfig(scenes=SCENES, out=str(media), held_out=True, dry_run=config.dry_run)
    if config.dry_run:
        made = make_demo(world).values
        return planned("demo", {"page": str(page), "db": str(db), "world": dict(made), "seconds": made["seconds"]})
    say(f"Making a small world: {SCENES} scenes in {len(ORDER)} modalities, as ordinary files in {media}/")
    make_demo(world)
    say(f"Embedding it: python -m jobs.embed {media} --db {db}")
    report = embed(EmbedSettings(corpus=str(media), db=str(db)))
    if report.exit_code:
        return JsonReport({"failures": report.failures}, report.exit_code, report.failures)
    index = open_index(str(db))
    answers = take_tour(index, folder / "questions")
    for number, answer in enumerate(answers, 1):
        print(f"\n{number}. {in_words(answer)}")
    page.write_text(render(answers, index.stats(), index.space))
    print(f"\nTo see and hear all this, open {page.resolve()}", flush=True)
    counts = {"embedded": report.tally.embedded, "unchanged": report.tally.unchanged, "rejected": report.tally.rejected}
    return JsonReport({**counts, "page": str(page), "page_bytes": page.stat().st_size})


def in_words(answer: Answer) -> str:
    """A question and its answer for a terminal."""
    asked = " + ".join(f"{part.modality} ({part.words})" if part.path else f'"{part.words}"' for part in answer.asked)
    lines = [answer.title, f"   asked   {asked}"]
    for hit in answer.hits or ():
        marks = "  ".join(f"{'✓' if hit[name] == value else '✗'} {hit[name]}" for name, value in answer.wanted.items())
        lines.append(f"   {hit['similarity']:7.3f} {hit['modality']:8s} {Path(hit['uri']).name:12s} {marks}")
    for word, probability in answer.labels[:4]:
        lines.append(f"   {probability:7.1%} {'✓' if word in answer.wanted.values() else ' '} {word}")
    return "\n".join([*lines, f"   {answer.measured}"])


def main(argv: Sequence[str] | None = None) -> int:
    """argv -> exit code."""
    return run_job(DemoConfig, demo, argv)


if __name__ == "__main__":
    sys.exit(main())
