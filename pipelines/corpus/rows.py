"""Batches of sources out of single rows. In: one source at a time. Out: tables of COLUMNS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from pipelines.corpus.corpus import COLUMNS
from pipelines.corpus.versions import look_up
from pipelines.reach import Reach


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


def tables(rows: Iterable[Row], batch_rows: int, reach: Reach) -> Iterator[pa.Table]:
    """The rows in batches, with their versions."""
    stream = iter(rows)
    while batch := list(islice(stream, batch_rows)):
        yield table_of(with_versions(batch, reach))


def with_versions(rows: list[Row], reach: Reach) -> list[Row]:
    """The rows, with the versions that they do not tell asked of their stores; an object that is not there is a problem."""
    ask = [k for k, row in enumerate(rows) if row.version is None and row.problem is None]
    for k, state in zip(ask, look_up([rows[k].read_uri or rows[k].uri or "" for k in ask], reach), strict=True):
        rows[k] = rows[k]._replace(version=state.version, size_bytes=state.size_bytes, problem=state.problem)
    return rows


def table_of(rows: list[Row]) -> pa.Table:
    """One batch."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in COLUMNS)
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, COLUMNS, strict=True)], schema=COLUMNS)
