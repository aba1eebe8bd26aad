"""How much a few labelled examples teach: a linear classifier on the vectors that a table holds.

python -m jobs.probe --db s3://bucket/index --label thing --modality audio --out probe
In: a table with a column of labels. Out: accuracy for 1, 2, 4 ... examples of each class and for all, as JSON and as a picture.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from encoders.evaluation import default_prompts
from encoders.space import Space
from encoders.training.evaluate import accuracy, classifier
from jobs.config import DryRun, JsonReport, planned, run_job
from jobs.verdict import read_prompts
from pipelines.evaluation_pictures import shots_picture
from pipelines.filters import conjunction, quoted
from pipelines.fresh_rows import fresh_rows
from pipelines.index import open_index
from pipelines.probe import Learnable, Probed, learnable, probe
from pipelines.storage import filesystem

SEED = 0  # of the items that are drawn


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(DryRun):
    """Fit a linear classifier on a table's vectors and labels, from a few examples of each class.

    Args:
        db: where the LanceDB database is, a folder or URI.
        label: the column with the classes.
        modality: of the items.
        table: its table.
        shots: how many examples of each class, separated by commas.
        seeds: how many draws of examples.
        where: an SQL condition on the table's columns.
        prompts: JSON, {label: {value: [sentences]}}, for the zero-shot line; by default the value in seven sentences.
        limit: so many items at most, drawn at random.
        out: the folder or URI of the report and its picture.
    """

    db: str
    label: str
    modality: str
    table: str = "media"
    shots: str = "1,2,4,8,16"
    seeds: int = 5
    where: str | None = None
    prompts: str = ""
    limit: int = 20_000
    out: str = ""


def run(config: ProbeConfig) -> JsonReport:
    """Fit, try, report.

    Raises:
        ValueError: no such table, column, modality or classes.
    """
    shots, prompts = _numbers(config.shots), read_prompts(config.prompts)
    space = open_index(config.db, config.table).space
    space.encoder(config.modality)
    condition = conjunction(config.where, f"modality = {quoted(config.modality)}", f"`{config.label}` IS NOT NULL")
    columns = [config.label, "source_id"]
    there = fresh_rows(config.db, config.table, space, columns, condition or "")
    kept = np.sort(np.random.default_rng(SEED).permutation(len(there.rows))[: config.limit])
    rows = there.rows.take(kept)
    labels, sources = [str(value) for value in rows[config.label].to_pylist()], rows["source_id"].to_pylist()
    ready = learnable(labels, sources, shots, config.seeds)
    has_text = "text" in space.modalities
    said = default_prompts({config.label: list(ready.classes)}, prompts)[config.label] if has_text else {}
    values: dict[str, Any] = {
        "table": there.uri,
        "license": space.license,
        "modality": config.modality,
        "label": config.label,
        "items": len(rows),
        "stale_rows": there.stale.get(config.modality, 0),
    }
    if config.dry_run:
        return planned("probe", {**values, **_plan(ready, config, space.dim)})
    vectors_ND = there.vectors(kept)
    found = probe(vectors_ND, labels, sources, shots, config.seeds)
    values |= {**asdict(found), "zero_shot": _zero_shot(space, said, labels, vectors_ND) if said else None}
    if config.out:
        values["files"] = _write(config.out, values, found)
    return JsonReport(values)


def _plan(ready: Learnable, config: ProbeConfig, dim: int) -> dict[str, Any]:
    """The fits there would be; the largest of each draw learns from all that is not tried on."""
    items = {label: sum(map(len, sources)) for label, sources in ready.classes.items()}
    return {
        "classes": items,
        "shots": list(ready.shots),
        "too_few": list(ready.too_few),
        "left_out": list(ready.left_out),
        "fits": config.seeds * (len(ready.shots) + 1),
        "vector_bytes": 4 * dim * sum(items.values()),
        "out": config.out,
    }


def _numbers(words: str) -> list[int]:
    try:
        return [int(word) for word in words.split(",")]
    except ValueError as error:
        raise ValueError(f"--shots {words!r}: write whole numbers with commas, such as 1,2,4") from error


def _zero_shot(space: Space, said: dict[str, list[str]], labels: Sequence[str], vectors_ND: np.ndarray) -> float:
    """Accuracy of the classes' words alone, on all items of the probe's classes."""
    names = list(said)
    rows = [row for row, label in enumerate(labels) if label in said]
    return accuracy(vectors_ND[rows], classifier(space, said), [names.index(labels[row]) for row in rows])


def _write(out: str, values: dict[str, Any], found: Probed) -> list[str]:
    lines = {"chance": found.chance, "all examples": float(np.mean(found.full))}
    if values["zero_shot"] is not None:
        lines["words alone"] = values["zero_shot"]
    picture = shots_picture(found.shots, lines, values["label"], values["modality"])
    files = {"probe.png": picture, "probe.json": json.dumps(values, indent=1).encode()}
    store, root = filesystem(out)
    for name, content in files.items():
        with store.open(f"{root.rstrip('/')}/{name}", "wb") as file:
            file.write(content)
    return [f"{out.rstrip('/')}/{name}" for name in files]


def main(argv: Sequence[str] | None = None) -> int:
    """argv -> exit code."""
    return run_job(ProbeConfig, run, argv)


if __name__ == "__main__":
    sys.exit(main())
