"""The embed job without Ray and towers, for faults by the hundred. In and out: as victim.py.

Plan, lease, fences, staging, commits, rejects, compaction, audit and exit codes are the job's own; of it only the pipeline
between plan and commits is replaced, by a loop that makes two segments of each source, with vectors out of its bytes.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import victim

import pipelines.embed
from encoders import load_space
from pipelines.bottleneck import MEASURES
from pipelines.cluster import Resources
from pipelines.identity import item_id
from pipelines.progress import EmbedProgress
from pipelines.stages import Job
from pipelines.todo import Todo
from pipelines.writer import Writer, stage

BLOCK_SOURCES = 40
SEGMENTS = 2
BROKEN = b"\xff\xd8\xff\xe0"  # what a broken picture of world.py begins with; the whole ones go on with a length


def run(fault: dict[str, Any], argv: list[str], environment: dict[str, str], said: str) -> None:
    """In a new process: run the job there, and exit with its code, if it lives."""
    pipelines.embed.start_ray = lambda: None
    pipelines.embed.embed_all = embed_all
    victim.run(fault, argv, environment, said)


def embed_all(job: Job, todo: dict[str, Todo], writer: Writer, progress: EmbedProgress) -> Resources:
    """What the job's own function does with blocks that come from workers, with blocks made here."""
    done, dim = 0, load_space(job.space).dim
    for modality in sorted(todo):
        sources = pa.concat_tables(todo.pop(modality).tables)
        for start in range(0, sources.num_rows, BLOCK_SOURCES):
            rows = _rows(sources.slice(start, BLOCK_SOURCES), job, dim)
            assert writer.ledger.dataset is not None
            writer.take(stage(writer.ledger.uri, writer.ledger.dataset.schema, rows))
            writer.commit()
            done += rows.num_rows // SEGMENTS
            writer._whole = done  # as if they had come in blocks
            progress.update(done)
    return Resources(cpus=1, gpus=0)


def _rows(sources: pa.Table, job: Job, dim: int) -> pa.Table:
    """What workers hand back for a block of sources."""
    count = sources.num_rows
    rows = sources.take(np.repeat(np.arange(count), SEGMENTS)).drop_columns(["_location", "_offset", "_media"])
    uris, modality = rows["uri"].to_pylist(), str(sources["modality"][0])
    segment = np.tile(np.arange(SEGMENTS), count)
    media = [Path(uri).read_bytes() for uri in uris]
    broken = [data.startswith(BROKEN) and b"picture" in data for data in media]
    vectors = [_vector(data, k, dim) for data, k in zip(media, segment, strict=True)]
    kinds = {"_reject_stage": "decode", "_reject_type": "DecodeError", "_reject_message": "no picture"}
    columns: dict[str, pa.Array] = {n: pa.array([t if b else None for b in broken], pa.string()) for n, t in kinds.items()}
    columns["_reject_expected"] = pa.array([True if b else None for b in broken], pa.bool_())
    columns["_last"] = pa.array(segment == SEGMENTS - 1)
    columns["_ordinal"] = pa.array(segment, pa.int32())
    columns |= {name: pa.array(np.zeros(len(uris)), pa.float32()) for name in MEASURES}
    columns["item_id"] = pa.array([item_id(uri, modality, f"{k}-{k + 1}") for uri, k in zip(uris, segment, strict=True)])
    columns["start_s"] = pa.array(segment.astype(np.float64))
    columns["end_s"] = pa.array(segment + 1.0)
    texts = {"corpus": job.corpus, "recipe": job.recipes[modality], "run_id": job.run_id, "encoder": modality}
    columns |= {name: pa.array([text] * len(uris)) for name, text in texts.items()}
    columns["embedded_at"] = pa.array([datetime.now(UTC)] * len(uris), pa.timestamp("us", "UTC"))
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors), pa.float32()), dim)
    for name, column in columns.items():
        rows = rows.append_column(name, column)
    return rows


def _vector(media: bytes, segment: int, dim: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(media + bytes([segment])).digest()[:8])
    vector = np.random.default_rng(seed).normal(size=dim)
    return vector / np.linalg.norm(vector)
