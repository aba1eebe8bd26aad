"""What a training job owes: scores of the new encoder on things it has not seen. In: a new space, its pairs. Out: a verdict.

The scores, the learning curve and what was held out go onto the encoder's card in `space.json`, and a report beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from encoders.encoder import Encoder
from encoders.errors import SpaceError
from encoders.evaluation import LEAST_ITEMS, Prompts, evaluate, metric_names
from encoders.gate import checked, parse_minimums
from encoders.space import Space, load_space
from encoders.space_files import read_document, write_document
from jobs.config import DONE, GATE_FAILED, JsonReport
from jobs.verdict import Goal, conclude, read_prompts
from pipelines.evaluation_page import Findings
from pipelines.held_out import embed_pairs, modalities_of
from pipelines.log import say

CURVE_POINTS = 100  # of the learning curve that a card keeps, about
CURVE = ("step", "loss", "lr", "recall")
FOLDER = "report"  # of the report, in the new space


@dataclass(frozen=True, kw_only=True)
class ProofSettings:
    """How the new encoder is scored: the section `proof` of the config file.

    Args:
        pairs: a manifest of other things to score on, perhaps in more modalities; by default the pairs held out of training.
        labels: its columns whose values are classes.
        prompts: JSON, {label: {value: [sentences]}}, what each class is called.
        limit: so many things at most, drawn at random.
        db: with promote, a LanceDB database whose stale rows are counted.
        table: its table.
    """

    pairs: str = ""
    labels: Sequence[str] = ()
    prompts: str = ""
    limit: int = 5000
    db: str = ""
    table: str = "media"


@dataclass(frozen=True)
class Proof:
    """What will be asked of an encoder once it is trained; made before, so that nothing wrong is found out after.

    Attributes:
        modality: of the encoder.
        manifest: of the things that it is scored on.
        own: whether those are the held-out rows of its own pairs.
        minimums: what its scores must reach.
        prompts: of the labels' values.
        goal: the space it goes to then, if any.
        settings: the rest.
    """

    modality: str
    manifest: str
    own: bool
    minimums: Mapping[str, float]
    prompts: Prompts
    goal: Goal | None
    settings: ProofSettings

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        space: Space,
        pairs: str,
        held_out: int,
        minimums: Sequence[str],
        promote: str,
        settings: ProofSettings,
    ) -> Proof:
        """Check what can be checked before training.

        Args:
            encoder: that will be trained, for this space.
            space: it is bound to.
            pairs: the manifest it is trained on.
            held_out: how many of the pairs are kept for the scores.
            minimums: words, metric=value.
            promote: the space directory to promote into, or "".
            settings: the rest.

        Raises:
            ValueError: nothing to score on, a score there will not be, labels or prompts that are not there, another space.
        """
        manifest = settings.pairs or pairs
        if minimums and not settings.pairs and held_out < LEAST_ITEMS:
            raise SpaceError(f"--min needs pairs to score on, and {held_out} are held out for it; raise --held-out")
        wider = replace(space, encoders={**space.encoders, encoder.modality: encoder})
        names = metric_names(wider, modalities_of(manifest, wider, settings.labels), settings.labels)
        goal = Goal(encoder.modality, promote, settings.db, settings.table) if promote else None
        found = parse_minimums(minimums, names)
        if goal is not None:
            frozen = {"frozen": {"image": space.encoder("image").fingerprint}}
            bound = replace(wider, encoders={**wider.encoders, encoder.modality: replace(encoder, card=frozen)}, uri="")
            goal.check(bound, found)
        return cls(encoder.modality, manifest, not settings.pairs, found, read_prompts(settings.prompts), goal, settings)

    def judge(self, space: Space, held_out: Sequence[int], history: Sequence[Mapping[str, Any]]) -> JsonReport:
        """Score the encoder, write the report, note it all on the card, promote what is good enough.

        Args:
            space: the new one, saved.
            held_out: rows of its own pairs that training has not looked at.
            history: the learning curve.

        Returns:
            The findings, {} where nothing was held out; GATE_FAILED where a minimum was not reached, or could not be.
        """
        note(space.uri, self.modality, {"history": thinned(history)})
        if self.own and len(held_out) < LEAST_ITEMS:
            if self.minimums:
                say(f"not reached: {len(held_out)} usable pairs were held out, so nothing could be scored")
            return JsonReport({}, GATE_FAILED if self.minimums else DONE)
        again = f"python -m jobs.evaluate {space.uri} --pairs {self.manifest} --modality {self.modality}"
        say(f"{space.uri} is saved and will be scored now; if that is cut short, {again} does it")
        rows = list(held_out) if self.own else None
        things = embed_pairs(load_space(space.uri), self.manifest, self.settings.labels, rows, self.settings.limit)
        evaluation = evaluate(space, things.sample, self.prompts, [self.modality])
        metrics = evaluation.metrics()
        note(space.uri, self.modality, {"held_out": {"from": things.source, "things": things.things}, "scores": metrics})
        findings = Findings(
            space=load_space(space.uri),
            held_out=things,
            evaluation=evaluation,
            focus=(self.modality,),
            checks=checked(metrics, self.minimums),
        )
        return conclude(findings, f"{space.uri}/{FOLDER}", self.goal)


def note(space: str, modality: str, found: Mapping[str, Any]) -> None:
    """Write more onto the card of an encoder of a saved space."""
    document = read_document(space)
    entry = document["encoders"][modality]
    entry["card"] = {**entry["card"], **found}
    write_document(space, document)


def thinned(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A learning curve to keep: every point with a recall, and so many of the others that it stays small."""
    every = max(1, len(history) // CURVE_POINTS)
    kept = [point for place, point in enumerate(history) if place % every == 0 or point.get("recall") is not None]
    return [{name: _short(point[name]) for name in CURVE if point.get(name) is not None} for point in kept]


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.5g}")
