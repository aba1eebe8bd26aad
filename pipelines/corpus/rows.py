"""Batches of sources out of single rows. In: one source at a time. Out: tables of COLUMNS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from pipelines.corpus.corpus import COLUMNS


class Row(NamedTuple):
    """One source, as COLUMNS name its parts."""

    uri: str | None
    modality: str | None = None
    version: str | None = None
    size_bytes: int | None = None
    media: bytes | None = None
    container: str | None = None
    offset: int | None = None
    read_uri: str | None = None
    problem: str | None = None


assert list(Row._fields) == COLUMNS.names


def tables(rows: Iterable[Row], batch_rows: int) -> Iterator[pa.Table]:
    """The rows in batches."""
    stream = iter(rows)
    while batch := list(islice(stream, batch_rows)):
        yield table_of(batch)


def table_of(rows: list[Row]) -> pa.Table:
    """One batch."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in COLUMNS)
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, COLUMNS, strict=True)], schema=COLUMNS)
