"""The work of a run, on its way to the workers. In: tables of sources. Out: Ray Datasets; their blocks as they come back."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipelines.cluster import start_ray

BLOCK_SOURCES = 128  # of one task at most: what a lost worker costs, and how even the end is
BLOCK_BYTES = 32 * 1024**2  # of inline media in one task at most
WAITING_BYTES = 64 * 1024**2  # of sources in the driver before they go to Ray's store


class Stored(NamedTuple):
    """Ray Datasets of sources that are read from where they lie, and of those whose bytes came with the corpus."""

    located: list[Any]
    inline: list[Any]


class Todo:
    """The work of one modality: blocks of sources; in Ray's store (which spills to disk) as soon as there are many."""

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []  # those that are not in Ray's store yet
        self._stored = Stored([], [])
        self.rows = self._bytes = 0

    def add(self, sources: pa.Table) -> None:
        """Take some sources."""
        self.rows += sources.num_rows
        self._bytes += pc.sum(sources["size_bytes"]).as_py() or 0
        self.tables.append(sources)
        waiting = sum(t.num_rows for t in self.tables)
        if waiting >= 64 * BLOCK_SOURCES or sum(t.nbytes for t in self.tables) >= WAITING_BYTES:
            start_ray()
            self._store(BLOCK_SOURCES)

    def datasets(self, actors: int) -> Stored:
        """All of it as Ray Datasets; a small job is cut finer, so that every actor has four blocks."""
        self._store(min(BLOCK_SOURCES, max(1, -(-self.rows // (4 * actors)))))
        return self._stored

    @property
    def mean_bytes(self) -> float:
        """Mean size of a source."""
        return self._bytes / self.rows

    def _store(self, rows: int) -> None:
        if self.tables:
            sources = pa.concat_tables(self.tables).combine_chunks()
            inline = pc.is_valid(sources["_media"])
            for stored, chosen in ((self._stored.located, pc.invert(inline)), (self._stored.inline, inline)):
                some = sources.filter(chosen)
                each = max(1, min(rows, BLOCK_BYTES * some.num_rows // max(1, some.nbytes)))
                if some.num_rows:
                    stored.append(ray.data.from_blocks([some.slice(k, each) for k in range(0, some.num_rows, each)]))
        self.tables = []


def entries(dataset: Any) -> Iterator[Any]:
    """Block entries (reference and metadata) as they come, and None once a second, so that commits stay on time."""
    found: queue.Queue[Any] = queue.Queue(maxsize=8)

    def pump() -> None:
        try:
            for bundle in dataset.iter_internal_ref_bundles():
                for entry in bundle.blocks:
                    found.put(entry)
            found.put(StopIteration())
        except BaseException as error:  # whatever ended the Dataset ends the loop that waits for it, too
            found.put(error)
            raise

    threading.Thread(target=pump, name="dataset", daemon=True).start()
    while True:
        try:
            entry = found.get(timeout=1.0)
        except queue.Empty:
            yield None
            continue
        if isinstance(entry, StopIteration):
            return
        if isinstance(entry, BaseException):
            raise entry
        yield entry
