"""An evaluation for people. In: scores, where they come from, what was asked of them. Out: a page, pictures, JSON, as files.

The page holds its pictures; nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from encoders.evaluation import Evaluation
from encoders.gate import Check
from encoders.space import Space
from pipelines.evaluation_pictures import curve_picture, matrix_picture, recall_picture
from pipelines.held_out import HeldOut, count_dropped
from pipelines.hits import data_uri, templates
from pipelines.storage import filesystem

LISTED = 100  # media that could not be used, named; all are counted


@dataclass(frozen=True)
class Findings:
    """An evaluation and all that belongs beside its scores.

    Attributes:
        space: that was evaluated.
        held_out: what it was evaluated on.
        evaluation: its scores.
        focus: the modalities it is about; all if empty.
        checks: what was asked of the scores.
        control: scores of a space that was trained on wrong partners, on the same things.
    """

    space: Space
    held_out: HeldOut
    evaluation: Evaluation
    focus: Sequence[str] = ()
    checks: Sequence[Check] = ()
    control: Evaluation | None = None

    @property
    def passed(self) -> bool:
        """Whether all that was asked for was reached."""
        return all(check.passed for check in self.checks)

    @property
    def cards(self) -> dict[str, Mapping[str, Any]]:
        """How the encoders that it is about came about."""
        return {m: e.card for m, e in self.space.encoders.items() if m in (self.focus or self.evaluation.items)}

    @property
    def histories(self) -> dict[str, Sequence[Mapping[str, Any]]]:
        """How training went, of those whose card tells."""
        return {m: card["history"] for m, card in self.cards.items() if len(card.get("history") or ()) > 1}

    def to_dict(self) -> dict[str, Any]:
        """The report's values."""
        held_out = self.held_out
        return {
            "space": self.space.uri,
            "name": self.space.name,
            "fingerprint": self.space.fingerprint,
            "license": self.space.license,
            "held_out": held_out.source,
            "things": held_out.things,
            "dropped": count_dropped(held_out.dropped),
            "dropped_media": [asdict(one) for one in held_out.dropped[:LISTED]],
            "stale_rows": dict(held_out.stale),
            "repeated_rows": dict(held_out.repeated),
            "metrics": self.evaluation.metrics(),
            "scores": self.evaluation.to_dict(),
            "control": self.control.to_dict() if self.control else None,
            "gate": [{**asdict(check), "passed": check.passed} for check in self.checks],
        }


def pictures_of(findings: Findings) -> dict[str, bytes]:
    """The report's pictures by file name."""
    pictures = {}
    if not findings.focus and len(findings.evaluation.items) > 2:
        pictures["matrix.png"] = matrix_picture(findings.evaluation)
    else:
        pictures["recall.png"] = recall_picture(findings.evaluation, findings.focus, findings.control)
    for modality, history in findings.histories.items():
        pictures[f"learning_curve_{modality}.png"] = curve_picture(history)
    return pictures


def render(findings: Findings, pictures: Mapping[str, bytes]) -> str:
    """The page as HTML."""
    controls = {(one.query, one.target): one for one in findings.control.retrieval} if findings.control else {}
    said = {(one.modality, one.label): one for one in findings.control.zero_shot} if findings.control else {}
    return (
        templates(Path(__file__).parent)
        .get_template("evaluation_page.html.jinja")
        .render(
            findings=findings,
            pictures={name: data_uri(picture, "image/png") for name, picture in pictures.items()},
            controls=controls,
            said=said,
            likely={label: sum(share**2 for share in shares.values()) for label, shares in findings.evaluation.classes.items()},
            dropped=count_dropped(findings.held_out.dropped),
        )
    )


def write_report(findings: Findings, folder: str) -> list[str]:
    """`report.html`, `report.json` and the pictures, in a folder or under a URI; their paths."""
    pictures = pictures_of(findings)
    document = json.dumps(findings.to_dict(), indent=1)
    files = {**pictures, "report.html": render(findings, pictures).encode(), "report.json": document.encode()}
    store, root = filesystem(folder)
    for name, content in files.items():
        with store.open(f"{root.rstrip('/')}/{name}", "wb") as file:
            file.write(content)
    return [f"{folder.rstrip('/')}/{name}" for name in files]
