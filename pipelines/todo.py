"""The work of a run, on its way to the workers. In: tables of sources. Out: Ray Datasets; their blocks as they come back."""

from __future__ import annotations

import ctypes
import logging
import queue
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipelines.cluster import start_ray
from pipelines.log import say
from pipelines.segments import TASK_BYTES

BLOCK_SOURCES = 128  # of one task at most: what a lost worker costs, and how even the end is
LARGE_BYTES = TASK_BYTES // BLOCK_SOURCES  # of a source, above which a task takes fewer
BLOCK_BYTES = 32 * 1024**2  # of inline media in one task at most
STOP_S = 10.0  # that the end of an execution may take
WAITING_BYTES = 64 * 1024**2  # of sources in the driver before they go to Ray's store


class Stored(NamedTuple):
    """Ray Datasets of sources that are read from where they lie, large ones first, and of those whose bytes came along."""

    located: list[Any]
    inline: list[Any]


class Todo:
    """The work of one modality: blocks of sources; in Ray's store (which spills to disk) as soon as there are many.

    Large sources are cut into blocks by their bytes and come first, so that none of them is begun when all else is done.
    """

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []  # those that are not in Ray's store yet
        self._large: list[Any] = []
        self._small: list[Any] = []
        self._inline: list[Any] = []
        self.rows = self._bytes = 0

    def add(self, sources: pa.Table) -> None:
        """Take some sources."""
        self.rows += sources.num_rows
        self._bytes += pc.sum(sources["size_bytes"]).as_py() or 0
        self.tables.append(sources)
        waiting = sum(t.num_rows for t in self.tables)
        if waiting >= 64 * BLOCK_SOURCES or sum(t.nbytes for t in self.tables) >= WAITING_BYTES:
            start_ray()
            self._store(BLOCK_SOURCES, TASK_BYTES)

    def datasets(self, actors: int) -> Stored:
        """All of it as Ray Datasets; a small job is cut finer, so that every actor has four blocks."""
        share = 4 * actors
        self._store(min(BLOCK_SOURCES, -(-self.rows // share)), min(TASK_BYTES, max(1, self._bytes // share)))
        return Stored([*self._large, *self._small], self._inline)

    @property
    def mean_bytes(self) -> float:
        """Mean size of a source."""
        return self._bytes / self.rows

    def _store(self, rows: int, task_bytes: int) -> None:
        if self.tables:
            sources = pa.concat_tables(self.tables).combine_chunks()
            inline = pc.is_valid(sources["_media"])
            located = sources.filter(pc.invert(inline))
            large = pc.fill_null(pc.greater(located["size_bytes"], LARGE_BYTES), False)  # the others stay in their order
            for kept, blocks in (
                (self._inline, _in_order(sources.filter(inline), rows)),
                (self._large, _largest_first(located.filter(large), task_bytes)),
                (self._small, _in_order(located.filter(pc.invert(large)), rows)),
            ):
                if blocks:
                    kept.append(ray.data.from_blocks(blocks))
        self.tables = []


def _in_order(sources: pa.Table, rows: int) -> list[pa.Table]:
    """Blocks of so many sources, or fewer if their own bytes are many."""
    each = max(1, min(rows, BLOCK_BYTES * sources.num_rows // max(1, sources.nbytes)))
    return [sources.slice(k, each) for k in range(0, sources.num_rows, each)]


def _largest_first(sources: pa.Table, task_bytes: int) -> list[pa.Table]:
    """Blocks of sources whose media have so many bytes together, or that are one."""
    sources = sources.sort_by([("size_bytes", "descending")])
    firsts: list[int] = []
    total = 0
    for k, size_bytes in enumerate(sources["size_bytes"].to_pylist()):
        total += size_bytes
        if not firsts or total > task_bytes:
            firsts.append(k)
            total = size_bytes
    return [sources.slice(first, end - first) for first, end in pairwise([*firsts, sources.num_rows])]


def entries(dataset: Any) -> Generator[Any, None, None]:
    """Block entries (reference and metadata) as they come, and None once a second, so that commits stay on time.

    Closed early, as a stop does, it ends the Dataset's execution first: threads of Ray that outlive Ray abort the process.
    """
    found: queue.Queue[Any] = queue.Queue(maxsize=8)

    def pump() -> None:
        try:
            for bundle in dataset.iter_internal_ref_bundles():
                for entry in bundle.blocks:
                    found.put(entry)
            found.put(StopIteration())
        except _StoppedError:
            pass
        except BaseException as error:  # whatever ended the Dataset ends the loop that waits for it, too
            found.put(error)
            raise

    thread = threading.Thread(target=pump, name="dataset", daemon=True)
    thread.start()
    entry: Any = None
    try:
        while not isinstance(entry, StopIteration):
            try:
                entry = found.get(timeout=1.0)
            except queue.Empty:
                entry = None
            if not isinstance(entry, BaseException):
                yield entry
            elif not isinstance(entry, StopIteration):
                raise entry
    finally:
        if not isinstance(entry, BaseException):
            _stop(thread, found)


class _StoppedError(BaseException):
    """Nobody wants the rest."""


def _stop(thread: threading.Thread, found: queue.Queue[Any]) -> None:
    """Raise in the thread, as Ctrl-C does in the main one: Ray's own iterator then ends the execution. Wait until it has."""
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_StoppedError))
    ends = time.monotonic() + STOP_S
    while thread.is_alive() and time.monotonic() < ends:
        with suppress(queue.Empty):  # it may wait for room
            found.get(timeout=0.1)
    if thread.is_alive():
        say(f"Ray's execution did not end within {STOP_S:.0f} s; the process may end by a signal", logging.WARNING)
