"""Larger fragments from small ones, within a bound of memory. In: a Lance table. Out: the same rows in fewer files.

Each task is one commit, so a kill costs one task. A compaction by a writer that was paused past its lease is refused, as
whoever takes over touches every fragment (docs/decisions/0009-taking-over-touches-every-fragment.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lance.optimize import Compaction, CompactionOptions

from pipelines.table import open_table

ATTEMPTS = 5
FRAGMENT_BYTES = 2 * 1024**3  # of a compacted fragment: what one task rewrites, and what a kill costs
FRAGMENT_ROWS = 1024**2
MEMORY_MB = 1024
LEAST_MEMORY_MB = 512  # the pages of a fragment being written, beside the program and its libraries


@dataclass
class Tidied:
    """What was done to one table, or would be."""

    fragments_removed: int = 0
    fragments_added: int = 0
    indices_built: list[str] = field(default_factory=list)
    indices_refreshed: list[str] = field(default_factory=list)
    search: dict[str, Any] = field(default_factory=dict)  # how the vector index is asked and what it finds
    versions_removed: int = 0
    versions_tagged: int = 0  # old ones that a tag keeps
    orphans_removed: int = 0
    bytes_freed: int = 0


def compact(uri: str, memory_mb: int, check: Callable[[], None], tidied: Tidied) -> None:
    """Merge small fragments, and rewrite those of which a tenth is deleted; one commit for each fragment that comes of it."""
    rewrite(uri, lambda dataset: compaction_options(dataset, memory_mb), check, tidied)


def rewrite(uri: str, options_for: Callable[[Any], CompactionOptions], check: Callable[[], None], tidied: Tidied) -> None:
    """Carry out a compaction of Lance's, task by task; what conflicts with a writer without the lease is planned anew."""
    for attempt in range(1, ATTEMPTS + 1):
        dataset = open_table(uri)
        if dataset is None:
            raise OSError(f"{uri} was dropped by someone else meanwhile; run the same command again")
        options = options_for(dataset)
        try:
            for task in Compaction.plan(dataset, options).tasks:
                result = task.execute(dataset)
                check()
                metrics = Compaction.commit(dataset, [result], options)
                tidied.fragments_removed += metrics.fragments_removed
                tidied.fragments_added += metrics.fragments_added
            return
        except OSError:  # a conflict, or an answer that was lost: the next plan sees which
            check()
            if attempt == ATTEMPTS:
                raise
            time.sleep(0.2 * 2**attempt)


def compaction_options(dataset: Any, memory_mb: int) -> CompactionOptions:
    """Lance's options that keep a compaction within so much memory, whatever the size of the table.

    One task at a time: what it reads ahead, and the batches between reading and writing, are shares of the memory; the pages
    of the fragment being written are the rest. Fragments end at `FRAGMENT_BYTES`, in powers of two of rows, so that a table
    whose rows grow a little is not rewritten for it.
    """
    fragments = [f.metadata for f in dataset.get_fragments()]
    rows = sum(f.physical_rows for f in fragments)
    size = sum(file.file_size_bytes or 0 for f in fragments for file in f.files)
    row_bytes = max(1, size // max(1, rows))
    memory = memory_mb * 1024**2
    return {
        "num_threads": 1,
        "batch_size": max(1, min(1024, memory // 64 // row_bytes)),
        "io_buffer_size": memory // 16,
        "target_rows_per_fragment": 1 << (max(1, min(FRAGMENT_ROWS, FRAGMENT_BYTES // row_bytes)).bit_length() - 1),
    }
