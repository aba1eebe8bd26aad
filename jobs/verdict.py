"""The end of a job that evaluates: a report for people, a gate, a promotion. In: findings. Out: files, values, an exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from encoders.errors import SpaceError
from encoders.evaluation import LEAST_ITEMS, Prompts, evaluate
from encoders.space import Space, load_space
from jobs.config import DONE, GATE_FAILED, JsonReport
from pipelines.evaluation_page import Findings, write_report
from pipelines.held_out import embed_pairs
from pipelines.log import say
from pipelines.promotion import check_joins, promote
from pipelines.storage import filesystem

TOLD = 12  # pairs of modalities, on stderr


@dataclass(frozen=True)
class Goal:
    """Where an encoder goes if it is good enough.

    Attributes:
        modality: of the encoder.
        target: the space directory that tables use.
        db, table: whose rows go stale; "" for none.
    """

    modality: str
    target: str
    db: str = ""
    table: str = "media"

    def check(self, candidate: Space, minimums: Mapping[str, float]) -> None:
        """Refuse what cannot be promoted, before anything is trained or embedded.

        Raises:
            SpaceError: no minimum says what is good enough, or the target is another space.
        """
        if not minimums:
            raise SpaceError(f"--promote {self.target} needs --min metric=value: what is it to reach before tables use it?")
        check_joins(candidate, self.modality, load_space(self.target))


def conclude(findings: Findings, out: str, goal: Goal | None = None) -> JsonReport:
    """Write the report, hold the scores against what was asked for, and promote what has reached it.

    Args:
        findings: an evaluation.
        out: the folder of the report; "" for none.
        goal: of the encoder that was evaluated, if it is to go anywhere.

    Returns:
        The findings' values; GATE_FAILED, and nothing promoted, where a minimum was not reached.
    """
    values: dict[str, Any] = findings.to_dict()
    say(_told(findings))
    for check in findings.checks:
        if not check.passed:
            say(f"not reached: {check}")
    if out:
        values["files"] = write_report(findings, out)
        say(f"report: {out.rstrip('/')}/report.html")
    if goal is not None and findings.passed:
        proof = {"held_out": findings.held_out.source, "metrics": values["metrics"], "gate": values["gate"]}
        promoted = promote(findings.space, goal.modality, goal.target, proof, goal.db, goal.table)
        values["promoted"] = asdict(promoted)
        tell_stale(promoted.replaced, promoted.stale_rows, goal.db, goal.table)
    return JsonReport(values, DONE if findings.passed else GATE_FAILED)


def _told(findings: Findings) -> str:
    """The scores that people ask for first: how often the nearest is the partner."""
    about = findings.focus or findings.evaluation.items
    pairs = [one for one in findings.evaluation.retrieval if one.query in about or one.target in about]
    each = [
        f"{one.query} -> {one.target} {one.recall['R@1']:.3f}{' (never met in training)' if one.relation == 'emergent' else ''}"
        for one in pairs[:TOLD]
    ]
    more = f", and {len(pairs) - TOLD} more in the report" if len(pairs) > TOLD else ""
    return f"R@1 of {findings.held_out.things:,} things: {', '.join(each)}{more}"


def score_held_out(space: Space, pairs: str, rows: Sequence[int] | np.ndarray, out: str) -> JsonReport:
    """What a training has made, on pairs that it has not seen; its page is `report/` below `out`. {} of too few pairs.

    Args:
        space: as it was saved.
        pairs: URI of the manifest.
        rows: those of its rows that nothing was trained on or chosen by.
        out: of the job.
    """
    if len(rows) < LEAST_ITEMS:
        return JsonReport({})
    held_out = embed_pairs(space, pairs, rows=np.asarray(rows).tolist())
    findings = Findings(space=space, held_out=held_out, evaluation=evaluate(space, held_out.sample))
    return conclude(findings, f"{out.rstrip('/')}/report")


def tell_stale(replaced: Mapping[str, str], rows: Mapping[str, int] | None, db: str, table: str) -> None:
    """Say which rows are to be embedded again."""
    for modality, fingerprint in replaced.items():
        if rows is not None and not rows.get(modality):
            continue
        where = "every table of this space" if rows is None else f"table {table!r} of {db}"
        count = "" if rows is None else f"{rows[modality]:,} "
        say(
            f"stale: {count}rows of {modality} in {where} that encoder {fingerprint[:8]} has embedded; embed or reindex their "
            "corpora again"
        )


def read_prompts(uri: str) -> Prompts:
    """{label: {value: [sentences]}} from a JSON file; {} for "".

    Raises:
        SpaceError: it is not there, or another kind of JSON.
    """
    if not uri:
        return {}
    store, path = filesystem(uri)
    try:
        found = json.loads(store.cat_file(path))
    except (FileNotFoundError, IsADirectoryError, json.JSONDecodeError) as error:
        raise SpaceError(f"no prompts in {uri} ({error}); write JSON: {{label: {{value: [sentences]}}}}") from error
    if not _are_prompts(found):
        raise SpaceError(f"{uri} is no prompts: it must be JSON like {{label: {{value: [sentences]}}}}")
    return found  # type: ignore[no-any-return]


def _are_prompts(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(values, dict) and all(_are_sentences(sentences) for sentences in values.values())
        for values in found.values()
    )


def _are_sentences(found: Any) -> bool:
    return isinstance(found, Sequence) and not isinstance(found, str) and all(isinstance(one, str) for one in found)
