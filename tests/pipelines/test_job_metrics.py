"""What a run's tally counts for Prometheus, by modality, and what it says of sources that wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from pipelines.bottleneck import MEASURES, STAGES
from pipelines.job_metrics import queued
from pipelines.rejects import Rejected
from pipelines.report import Tally
from pipelines.writer import stage

SCHEMA = pa.schema([pa.field("item_id", pa.string()), pa.field("source_id", pa.string()), pa.field("modality", pa.string())])


def rows(*sources: tuple[str, str, int]) -> pa.Table:
    """Rows as workers hand them back: (source, modality, segments), of 10 bytes a source and a second of every stage a row."""
    each: list[dict[str, Any]] = [
        {"source_id": source, "modality": modality, "_ordinal": k, "_last": k == segments - 1, "item_id": f"{source}#{k}"}
        for source, modality, segments in sources
        for k in range(segments)
    ]
    fixed = {"size_bytes": 10, "_part": 0, "_parts": 1, "uri": "u", "version": "v", "_replaces": False, "_was_rejected": False}
    table = pa.Table.from_pylist([{**row, **fixed} for row in each])
    for name in ("_reject_stage", "_reject_type", "_reject_message"):
        table = table.append_column(name, pa.nulls(len(each), pa.string()))
    for name in MEASURES:
        table = table.append_column(name, pa.array(np.full(len(each), 2.0 if name == "_slots" else 1.0), pa.float32()))
    return table.append_column("_reject_expected", pa.nulls(len(each), pa.bool_()))


def staged_tally(tmp_path: Path) -> Tally:
    """Of three images, and a sound of two segments; two more images and a sound are planned."""
    uri = str(tmp_path / "media.lance")
    lance.write_dataset(SCHEMA.empty_table(), uri)
    tally = Tally()
    tally.of("image")["planned"], tally.of("audio")["planned"] = 5, 2
    block = rows(("a", "image", 1), ("b", "image", 1), ("c", "image", 1), ("d", "audio", 2))
    for modality, measured in stage(uri, SCHEMA, block).measured.items():
        tally.add(modality, measured)
    return tally


def test_sources_items_bytes_seconds_and_batches_are_counted_by_modality(tmp_path: Path) -> None:
    tally = staged_tally(tmp_path)
    assert {m: counts["embedded"] for m, counts in tally.by_modality.items()} == {"image": 3, "audio": 1}
    assert {m: counts["items"] for m, counts in tally.measured.items()} == {"image": 3, "audio": 2}
    assert {m: counts["size_bytes"] for m, counts in tally.measured.items()} == {"image": 30, "audio": 10}
    assert {m: counts["rows"] / counts["_slots"] for m, counts in tally.measured.items()} == {"image": 0.5, "audio": 0.5}
    assert tally.bytes_embedded == 40 and tally.seconds == dict.fromkeys(STAGES, 5.0)


def test_sources_wait_to_be_embedded_and_then_for_a_commit(tmp_path: Path) -> None:
    tally = staged_tally(tmp_path)
    assert queued(tally) == {"embed": 3, "commit": 4}
    tally.add_rejects([Rejected("e", "u", "image", "v", "decode", "DecodeError", "no picture")])
    tally.embedded = 4
    assert queued(tally) == {"embed": 2, "commit": 0}
