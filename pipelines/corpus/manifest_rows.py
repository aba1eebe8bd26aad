"""Sources out of a manifest's rows. In: tables as it holds them, whatever its format. Out: COLUMNS, then its own columns.

`uri` names a source, relative to the manifest's folder; `media` holds its bytes. `modality`, `version`, `etag`, and `size` with
`mtime` are used and not passed on; every other column is, as plain types. Integers in a column `size` are bytes of the source.
A row that is no source stays a row, with the reason as `problem`.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.types as pt

from pipelines.corpus.corpus import COLUMNS, CorpusError, Wanted
from pipelines.corpus.modality import FolderNames
from pipelines.corpus.place import Place, reading
from pipelines.corpus.rows import Row, table_of, with_versions
from pipelines.corpus.versions import etag_version, nanoseconds, size_and_mtime
from pipelines.identity import canonical_uri, without_signatures
from pipelines.log import say
from pipelines.table import SEARCH_COLUMNS

_USED = ("uri", "media", "modality", "version", "etag")
INLINE_BYTES = 64 * 1024**2  # of media in one batch, about


class BadLine(NamedTuple):
    """A line of a manifest that is no row."""

    number: int | None  # of the line, from 1
    reason: str


class Part(NamedTuple):
    """Rows of a manifest, and the lines among them that are none; `problems` has a reason for rows that cannot be used."""

    rows: pa.Table
    problems: dict[int, str] = {}  # noqa: RUF012 - never changed
    bad_lines: tuple[BadLine, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """A manifest's columns, checked, and how its rows are read.

    Attributes:
        place: the manifest.
        folder: what its relative URIs are relative to, and the paths that globs are matched against.
        schema: all its columns.
    """

    place: Place
    folder: str
    schema: pa.Schema
    wanted: Wanted

    def __post_init__(self) -> None:
        """Refuse what cannot be a manifest.

        Raises:
            CorpusError: by the name of the column.
        """
        names = self.schema.names
        if "" in names:
            raise CorpusError(
                f"the manifest {self.place.uri} has a column without a name, as an index of pandas is written; "
                "write it with df.to_csv(index=False), or name the column"
            )
        if "uri" not in names and "media" not in names:
            raise CorpusError(
                f"the manifest {self.place.uri} has neither a column `uri` nor `media` but {', '.join(names[:20]) or 'none'}; "
                "rename the one that holds addresses to `uri`, or the bytes to `media`"
            )
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise CorpusError(f"the manifest {self.place.uri} has column {twice[0]!r} more than once; rename or drop one")
        for name, fits, kind in (
            ("uri", _is_text, "strings"),
            ("modality", _is_text, "strings"),
            ("media", _is_bytes, "bytes"),
        ):
            if name in names and not fits(self.schema.field(name).type):
                raise CorpusError(
                    f"column `{name}` of the manifest {self.place.uri} is {self.schema.field(name).type}; it must hold {kind}"
                )
        self._check_own()

    def _check_own(self) -> None:
        taken = {*COLUMNS.names, *SEARCH_COLUMNS, *self.wanted.reserved}
        clashes = [name for name in self.own.names if name in taken or name.startswith("_") or {".", "`"} & set(name)]
        if clashes:
            raise CorpusError(
                f"columns {', '.join(map(repr, clashes))} of the manifest {self.place.uri} clash with names of the table's own "
                "(or start with an underscore, or hold a dot or a backtick, which no query could name); rename or drop them"
            )
        for field in self.own:
            if pt.is_interval(field.type):
                raise CorpusError(
                    f"column {field.name!r} of the manifest {self.place.uri} is {field.type}, which no table holds; "
                    "write it as a duration or a number, or drop it"
                )

    @cached_property
    def own(self) -> pa.Schema:
        """The columns that are passed on, of plain types: dictionaries and views are decoded."""
        used = [*_USED, *(("size", "mtime") if self._has_size and "mtime" in self.schema.names else ())]
        fields = [field for field in self.schema if field.name not in used]
        return pa.schema([f.with_type(_plain(f.type)).remove_metadata() for f in fields])

    @cached_property
    def _has_size(self) -> bool:
        return "size" in self.schema.names and bool(pt.is_integer(self.schema.field("size").type))

    @cached_property
    def _names(self) -> FolderNames:
        return FolderNames(self.wanted.modalities)

    def sources(self, parts: Iterable[Part], skipped: Counter[str]) -> Iterator[pa.Table]:
        """All parts as batches of sources, in order; unreadable lines come after the rows of their part."""
        if (asked := self.wanted.modality) is not None and "modality" in self.schema.names:
            told = f"the manifest {self.place.uri} says what its sources are; modality {asked!r} is taken of rows that do not"
            say(told, logging.WARNING, stage="list")
        start = 0
        with reading(self.place.read_uri):
            for part in parts:
                yield self._sources(part, start, skipped)
                start += part.rows.num_rows
                if part.bad_lines:
                    yield self._bad_lines(part.bad_lines)

    def _sources(self, part: Part, start: int, skipped: Counter[str]) -> pa.Table:
        rows = list(self._rows(part, start))
        root = self.folder.rstrip("/") + "/"
        kept = [k for k, row in enumerate(rows) if row.problem or self.wanted.filter.wants((row.uri or "").removeprefix(root))]
        if len(kept) < len(rows):
            skipped["excluded"] += len(rows) - len(kept)
            rows = [rows[k] for k in kept]
        chosen = pa.array(kept, pa.int64())
        table = table_of(with_versions(rows, self.wanted.reach))
        for field in self.own:
            table = table.append_column(field, _decoded(part.rows[field.name], field.type).take(chosen))
        return table

    def _bad_lines(self, lines: Iterable[BadLine]) -> pa.Table:
        rows = [Row(f"{self.place.uri}#line-{line.number}", problem=f"line {line.number}: {line.reason}") for line in lines]
        table = table_of(rows)
        for field in self.own:
            table = table.append_column(field, pa.nulls(len(rows), field.type))
        return table

    def _rows(self, part: Part, start: int) -> Iterator[Row]:
        count = part.rows.num_rows
        uris = self._values(part.rows, "uri")
        media = self._values(part.rows, "media")
        modalities = self._values(part.rows, "modality")
        states = self._states(part.rows)
        ids = self._values(part.rows, "id") if "uri" not in part.rows.column_names else [None] * count
        for k in range(count):
            modality = modalities[k] or self.wanted.modality
            problem = part.problems.get(k)
            if modality is not None and modality not in self.wanted.modalities:
                known = ", ".join(sorted(self.wanted.modalities))
                problem, modality = problem or f"its modality is {modality!r}, which is none of {known}", None
            name = f"{self.place.uri}#{start + k if ids[k] is None else ids[k]}"
            version, size_bytes, reason = states[k]
            problem = problem or reason
            try:
                uri = canonical_uri(uris[k], self.folder) if uris[k] else ""
            except ValueError as error:
                shown = f"row {start + k}: {without_signatures(uris[k])[:80]!r} is no URI ({error})"
                yield Row(name, modality, version, size_bytes, problem=problem or shown)
                continue
            if media[k] is not None:
                name = uri or name
                version = f"sha256:{hashlib.sha256(media[k]).hexdigest()}"
                yield Row(name, modality, version, len(media[k]), media[k], problem=problem)
            elif not uri:
                missing = "`uri`" if "uri" in part.rows.column_names else "`media`"
                yield Row(name, modality, version, size_bytes, problem=problem or f"row {start + k}: {missing} is empty")
            else:
                problem = problem or self.wanted.reach.refusal(uri)
                signed = uri != uris[k] and uris[k].startswith(("http://", "https://"))
                if modality is None and not uri.startswith(("http://", "https://")):
                    modality = self._names.modality(uri.rpartition("/")[0])
                yield Row(uri, modality, version, size_bytes, read_uri=uris[k] if signed else None, problem=problem)

    def _values(self, rows: pa.Table, name: str) -> list[Any]:
        return rows[name].to_pylist() if name in rows.column_names else [None] * rows.num_rows

    def _states(self, rows: pa.Table) -> list[tuple[str | None, int | None, str | None]]:
        """Version and size of each row, as far as the manifest tells them, and what is wrong with these."""
        versions = self._values(rows, "version")
        etags = self._values(rows, "etag")
        found = [
            (str(v) if v is not None else etag_version(str(e)) if e is not None else None)
            for v, e in zip(versions, etags, strict=True)
        ]
        if not self._has_size:
            return [(version, None, None) for version in found]
        if "mtime" in rows.column_names and pt.is_timestamp(rows["mtime"].type):
            times = rows["mtime"].cast(pa.timestamp("ns"), safe=False).cast(pa.int64()).to_pylist()
        else:
            times = self._values(rows, "mtime")
        return [_state(*each) for each in zip(found, self._values(rows, "size"), times, strict=True)]


def _state(version: str | None, size: int | None, time: Any) -> tuple[str | None, int | None, str | None]:
    if size is not None and not 0 <= size < 2**63:
        return version, None, f"its size is {size}; write how many bytes it has, or leave the cell empty"
    if version is not None or size is None or time is None:
        return version, size, None
    try:
        return size_and_mtime(size, nanoseconds(time)), size, None
    except ValueError:  # a text that is no time, or NaN: then its store is asked
        return None, size, None
    except (OverflowError, TypeError):
        return None, size, f"its mtime {str(time)[:60]!r} is no time; write a date and time, or leave the cell empty"


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type as which a table holds it."""
    if pt.is_dictionary(kind):
        return _plain(kind.value_type)
    if pt.is_string_view(kind) or pt.is_null(kind):
        return pa.string()
    if pt.is_binary_view(kind):
        return pa.binary()
    if pt.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    if pt.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    return kind


def _decoded(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        return column if column.type == kind else column.cast(kind)
    except pa.ArrowNotImplementedError:  # a dictionary of views
        return pa.chunked_array([pa.array(column.to_pylist(), kind)])


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pt.is_dictionary(kind) else kind
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind) or pt.is_null(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind) or pt.is_binary_view(kind))


def batch_rows(wanted: Wanted, schema: pa.Schema, bytes_per_row: float) -> int:
    """Rows of a batch, fewer where each holds its media."""
    if "media" not in schema.names:
        return wanted.batch_rows
    return max(1, min(wanted.batch_rows, int(INLINE_BYTES / max(1.0, bytes_per_row))))


def require_rows(place: Place, parts: Iterator[Part]) -> None:
    """Refuse a manifest without a single row.

    Raises:
        CorpusError: it is empty.
    """
    with reading(place.read_uri):
        if not any(part.rows.num_rows or part.bad_lines for part in parts):
            raise CorpusError(f"the manifest {place.uri} has no rows; write one row per source")
