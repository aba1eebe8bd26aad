"""Indices that cannot be read. In: a table, a condition. Out: its rows, found by its indices or without."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any, TypeVar

import pyarrow as pa

from pipelines.table import uri_of

Found = TypeVar("Found")
UNREADABLE = (OSError, ValueError, RuntimeError)  # what Lance raises for an index file that is damaged or gone


def despite_damage(uri: str, read: Callable[[bool], Found]) -> Found:
    """What `read` finds by the table's indices, or without them, and a warning, where they cannot be read.

    Args:
        uri: of the table, for the warning.
        read: told whether it may use indices. What it raises without them has nothing to do with them, and is raised.
    """
    try:
        return read(True)
    except UNREADABLE as error:
        found = read(False)
        what = f"an index of {uri} cannot be read, so every row is looked at; `bindery optimize` mends it"
        warnings.warn(f"{what} ({error!s:.200})", stacklevel=5)
        return found


def rows_where(dataset: Any, condition: str, **how: Any) -> pa.Table:
    """The rows that meet a condition; `how` as for `LanceDataset.to_table`."""
    return despite_damage(uri_of(dataset), lambda indexed: dataset.to_table(filter=condition, use_scalar_index=indexed, **how))


def batches_where(dataset: Any, condition: str | None, **how: Any) -> Iterator[pa.RecordBatch]:
    """The same as they stream; `how` as for `LanceDataset.to_batches`."""

    def begun(indexed: bool) -> Iterator[pa.RecordBatch]:
        batches = iter(dataset.to_batches(filter=condition, use_scalar_index=indexed, **how))
        return chain(list(islice(batches, 1)), batches)  # damage shows itself before the first

    yield from despite_damage(uri_of(dataset), begun)
