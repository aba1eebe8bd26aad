"""The stages that run on workers. In: batches of sources to embed. Out: table rows with vectors, and rejects among them.

A source becomes a row for each of its segments, in order. One that cannot be embedded stays a row, with `_reject_*` filled in.
B batch, D dimension.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from encoders.embedder import Embedder
from encoders.encoder import Feature
from encoders.media.types import Facts
from encoders.space import load_space
from pipelines.decoder import Decoder, Source
from pipelines.heap import keep_freed_memory
from pipelines.identity import item_id
from pipelines.reach import Reach
from pipelines.replies import Decoded, PartCount, Reject
from pipelines.table import VECTOR

_NORM_TOLERANCE = 1e-3
_REJECT_COLUMNS = ("_reject_stage", "_reject_type", "_reject_message", "_reject_expected")
_ABSENT = (
    "FileNotFoundError",
    "PermissionError",
    "IsADirectoryError",
    "RefusedError",
)  # the source's own fault, not the store's
_FACTS = {
    "mime": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "duration_s": pa.float64(),
    "text": pa.string(),
    "truncated": pa.bool_(),
    "preview": pa.binary(),
}
_PLACE = {"_segment": pa.string(), "start_s": pa.float64(), "end_s": pa.float64()}
TENSOR_BYTES = 1 << 30  # no tensor of a tower on a CPU is larger
PIECE_BYTES = 8 * 1024**2  # of rows that are handed on together; Ray may join several


@dataclass(frozen=True)
class Job:
    """What the workers of one Dataset need to know."""

    space: str
    encoders: Mapping[str, str]  # fingerprints, by modality
    recipes: Mapping[str, str]  # by modality
    cuts: Mapping[str, str]  # how sources are cut into items, by modality
    corpus: str
    run_id: str
    item_timeout_s: float
    reach: Reach
    batch_size: int = 32


class _Found(NamedTuple):
    """What the decoder found: of which row of the block, and as which segment of it."""

    row: int
    ordinal: int
    result: Decoded | Reject


class Probe:
    """CPU actor: sources -> a row for each part of the work on them. One that cannot be opened now is worked on as a whole."""

    def __init__(self, job: Job) -> None:
        self._decoder = Decoder(job.space, job.item_timeout_s, job.reach)
        self._cuts = job.cuts

    def __call__(self, todo: pa.Table) -> pa.Table:
        """Sources -> their parts, `_part` of `_parts`."""
        replies = self._decoder.decode([replace(source, probe=True) for source in _sources(todo, self._cuts)])
        counts = [reply.parts if isinstance(reply, PartCount) else 1 for reply in replies]
        rows = todo.take(np.repeat(np.arange(len(counts)), counts))
        parts = pa.array([part for count in counts for part in range(count)], pa.int32())
        rows = rows.set_column(rows.schema.get_field_index("_part"), "_part", parts)
        return rows.set_column(rows.schema.get_field_index("_parts"), "_parts", pa.array(np.repeat(counts, counts), pa.int32()))


class Decode:
    """Sources -> facts and features. Features travel as fixed-size binary columns: no float32, no copies."""

    def __init__(self, job: Job) -> None:
        self._decoder = Decoder(job.space, job.item_timeout_s, job.reach)  # starts its child; we go on meanwhile
        self._space = load_space(job.space)
        self._cuts = job.cuts
        self._batch_size = job.batch_size

    def __call__(self, todo: pa.Table) -> Iterator[pa.Table]:
        """A block of sources or parts, as batches of rows that are ready for the tower: a row a segment."""
        sources = _sources(todo, self._cuts)
        kept = todo.drop_columns(["_location", "_offset", "_media"])
        waiting: list[_Found] = []
        row = ordinal = unread = 0
        for result in self._decoder.decode(sources):
            assert not isinstance(result, PartCount), "nobody asked"
            waiting.append(_Found(row, ordinal, result))
            row, ordinal = (row + 1, 0) if result.last else (row, ordinal + 1)
            unread += isinstance(result, Reject) and result.stage == "read" and result.error_type not in _ABSENT
            if unread == len(sources) > 1:
                raise OSError(f"nothing of {len(sources)} sources can be read, the store seems to be away: {result}")
            if len(waiting) == self._batch_size:
                yield self._rows(kept, waiting)
                waiting = []
        if waiting:
            yield self._rows(kept, waiting)

    def close(self) -> None:
        """End the decoding process."""
        self._decoder.close()

    def _rows(self, kept: pa.Table, found: list[_Found]) -> pa.Table:
        rows = kept.take([one.row for one in found])
        rows = rows.append_column("_ordinal", pa.array([one.ordinal for one in found], pa.int32()))
        results = [one.result for one in found]
        for name, feature in self._space.encoder(_modality(rows)).features.items():
            rows = rows.append_column(_binary_field(name, feature), _to_binary(results, name, feature))
        facts = [r.facts if isinstance(r, Decoded) else Facts() for r in results]
        for name, kind in _FACTS.items():
            rows = rows.append_column(name, pa.array([getattr(f, name) for f in facts], kind))
        places = [(r.key, r.start_s, r.end_s) if isinstance(r, Decoded) else ("", None, None) for r in results]
        for k, (name, kind) in enumerate(_PLACE.items()):
            rows = rows.append_column(name, pa.array([place[k] for place in places], kind))
        for name in ("read_s", "decode_s"):
            times = [getattr(r, name) if isinstance(r, Decoded) else 0.0 for r in results]
            rows = rows.append_column(f"_{name}", pa.array(times, pa.float32()))
        rows = rows.append_column("_last", pa.array([r.last for r in results], pa.bool_()))
        rejects = [(r.stage, r.error_type, r.message, r.expected) if isinstance(r, Reject) else (None,) * 4 for r in results]
        for k, name in enumerate(_REJECT_COLUMNS):
            kind = pa.bool_() if name == "_reject_expected" else pa.string()
            rows = rows.append_column(name, pa.array([r[k] for r in rejects], kind))
        return rows


class DecodeForGpu(Decode):
    """One CPU actor that decodes for the actors with GPUs."""

    def __init__(self, job: Job) -> None:
        _interrupt_nobody()
        super().__init__(job)


class Embed:
    """Actor, on a GPU where there is one: features -> rows of the table, each vector checked. Threads may call it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._space = load_space(job.space)
        self._lock = threading.Lock()  # of what follows
        self._held: tuple[str, Embedder] | None = None
        self._ended = 0.0  # when the last batch was done; since then the tower has been idle

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Rows with features -> rows of the table, `_reject_*` filled where the vector is no unit vector."""
        began = time.perf_counter()
        modality = _modality(rows)
        declared = self._space.encoder(modality).features
        features = {name: _from_binary(rows[f"_{name}"], feature) for name, feature in declared.items()}
        embedder = self._embedder(modality)
        loaded = time.perf_counter()
        vectors_BD = embedder(features)
        assert vectors_BD.shape[1] == self._space.dim, f"tower made {vectors_BD.shape[1]} dimensions, not {self._space.dim}"
        rows = self._reject_bad_vectors(rows.drop_columns([f"_{name}" for name in features]), vectors_BD)
        flat = pa.array(np.nan_to_num(vectors_BD).reshape(-1), pa.float32())
        count = rows.num_rows
        constants: dict[str, Any] = {
            "corpus": self._job.corpus,
            "recipe": self._job.recipes[modality],
            "encoder": self._job.encoders[modality],
            "run_id": self._job.run_id,
        }
        for name, value in constants.items():
            rows = rows.append_column(name, pa.array([value] * count, pa.string()))
        tower_s, idle_s = self._account(began, loaded)
        for name, total in (("_tower_s", tower_s), ("_idle_s", idle_s), ("_slots", embedder.slots(features))):
            rows = rows.append_column(name, pa.array(np.full(count, total / count), pa.float32()))
        places = zip(rows["uri"].to_pylist(), rows["_segment"].to_pylist(), strict=True)
        ids = [item_id(uri, modality, segment) for uri, segment in places]
        return (
            rows.drop_columns(["_segment"])
            .append_column("item_id", pa.array(ids))
            .append_column("embedded_at", pa.array([datetime.now(UTC)] * count, pa.timestamp("us", "UTC")))
            .append_column(VECTOR, pa.FixedSizeListArray.from_arrays(flat, self._space.dim))
        )

    def _embedder(self, modality: str) -> Embedder:
        """The tower of one modality; blocks come sorted, so that one at a time is enough."""
        with self._lock:
            if self._held is None or self._held[0] != modality:
                self._held = None  # the old tower goes before the new one comes
                self._held = modality, Embedder(load_space(self._job.space).encoder(modality), self._job.batch_size)
            return self._held[1]

    def _account(self, began: float, loaded: float) -> tuple[float, float]:
        """Seconds in which the tower worked on a batch that is done now, and was idle before it; none count for two batches."""
        with self._lock:
            before, self._ended = self._ended, time.perf_counter()
            return self._ended - max(loaded, before), max(0.0, began - before) if before else 0.0

    def _reject_bad_vectors(self, rows: pa.Table, vectors_BD: np.ndarray) -> pa.Table:
        norms = np.linalg.norm(vectors_BD, axis=1)
        good = np.abs(norms - 1) <= _NORM_TOLERANCE  # False for NaN and infinity too
        stages = rows["_reject_stage"].to_pylist()
        bad = [k for k, stage in enumerate(stages) if stage is None and not good[k]]
        for name, value in zip(_REJECT_COLUMNS, ("embed", "BadVector", None, False), strict=True):
            values = rows[name].to_pylist()
            for k in bad:
                values[k] = f"the tower made a vector of norm {norms[k]}, not 1" if name == "_reject_message" else value
            rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, rows.schema.field(name).type))
        return rows


class DecodeThenEmbed:
    """One CPU actor that does it all: on CPUs alone, fewer stages win; its decoding child works ahead of the tower."""

    def __init__(self, job: Job) -> None:
        _interrupt_nobody()
        torch.set_num_threads(1)
        keep_freed_memory(TENSOR_BYTES)
        self._decode = Decode(job)
        self._embed = Embed(job)

    def __call__(self, todo: pa.Table) -> Iterator[pa.Table]:
        """A block of sources -> rows of the table, PIECE_BYTES at a time: many small pieces take memory in their writer."""
        made: list[pa.Table] = []
        size_bytes = 0
        for rows in self._decode(todo):
            made.append(self._embed(rows))
            size_bytes += made[-1].nbytes
            if size_bytes >= PIECE_BYTES:
                yield pa.concat_tables(made).combine_chunks()
                made, size_bytes = [], 0
        if made:
            yield pa.concat_tables(made).combine_chunks()


def _interrupt_nobody() -> None:
    """Let this thread of an actor wait for its turn when it is woken, as all do that it starts: SCHED_BATCH of sched(7).

    An owner and its decoding child share a core. Else each picture that is decoded wakes the owner in the middle of the next,
    and a thread that has read a file does the same.
    """
    with suppress(OSError):  # a sandbox that knows no policies
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _sources(todo: pa.Table, cuts: Mapping[str, str]) -> list[Source]:
    """What the decoder needs to know of each row."""
    rows = todo.select(["modality", "uri", "_location", "size_bytes", "_offset", "_media", "_part", "_parts"]).to_pylist()
    names = {"_location": "location", "_offset": "offset", "_media": "media", "_part": "part"}
    found = []
    for row in rows:
        row["_part"] = row["_part"] if row.pop("_parts") > 1 else None
        found.append(Source(**{names.get(name, name): value for name, value in row.items()}, cut=cuts[row["modality"]]))
    return found


def _modality(rows: pa.Table) -> str:
    """The one modality of a block."""
    return str(rows["modality"][0])


def _binary_field(name: str, feature: Feature) -> pa.Field:
    return pa.field(f"_{name}", pa.binary(row_bytes(feature)))


def row_bytes(feature: Feature) -> int:
    """Bytes that a feature of one item takes on its way."""
    return int(np.prod(feature.shape, dtype=int)) * np.dtype(feature.dtype).itemsize


def _to_binary(results: list[Decoded | Reject], name: str, feature: Feature) -> pa.Array:
    """One feature of a batch as fixed-size binary; zeros where there is none."""
    rows = np.empty((len(results), row_bytes(feature)), np.uint8)
    for row, result in zip(rows, results, strict=True):
        row[:] = result.features[name].reshape(-1).view(np.uint8) if isinstance(result, Decoded) else 0
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, pa.py_buffer(rows)])


def _from_binary(column: pa.ChunkedArray, feature: Feature) -> np.ndarray:
    chunk = column.combine_chunks()
    chunk = chunk.chunk(0) if isinstance(chunk, pa.ChunkedArray) else chunk
    width = row_bytes(feature)
    data = np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * width : (chunk.offset + len(chunk)) * width]
    return data.view(feature.dtype).reshape(len(chunk), *feature.shape)
