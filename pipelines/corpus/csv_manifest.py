"""A CSV manifest. In: a place. Out: its schema, and its rows as they stream; what cannot be read is a problem of its row alone.

Types are inferred from the first block, as pyarrow does; a value further down that does not fit its column's type, bytes that
are no UTF-8, and a line with too few or too many columns cost themselves only. An empty cell is null.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.types as pt

from pipelines.corpus.corpus import CorpusError
from pipelines.corpus.manifest_rows import BadLine, Part
from pipelines.corpus.place import Place

SCHEMA_BLOCK_BYTES = 16 * 1024**2
BLOCK_BYTES = 1024**2
_ALWAYS_TEXT = ("uri", "modality", "version", "etag", "id")


def csv_schema(place: Place) -> pa.Schema:
    """Names and types of the columns.

    Raises:
        CorpusError: it is empty or no CSV.
    """
    convert = pc_csv.ConvertOptions(
        null_values=[""], strings_can_be_null=True, column_types={name: pa.string() for name in _ALWAYS_TEXT}
    )
    try:
        with place.fs.open(place.path, "rb") as file:
            schema = _open(file, SCHEMA_BLOCK_BYTES, convert, []).schema
    except pa.ArrowInvalid as error:
        raise _no_csv(place, error) from error
    text = (pt.is_null, pt.is_binary, pt.is_large_string)
    return pa.schema([f.with_type(pa.string()) if any(is_kind(f.type) for is_kind in text) else f for f in schema])


def csv_parts(place: Place, schema: pa.Schema, batch_rows: int) -> Iterator[Part]:
    """The rows, each column of its type in `schema`.

    Raises:
        CorpusError: no more rows can be told apart.
    """
    convert = pc_csv.ConvertOptions(
        null_values=[""], strings_can_be_null=True, column_types={name: pa.binary() for name in schema.names}
    )
    bad: list[BadLine] = []
    try:
        with place.fs.open(place.path, "rb") as file:
            for block in _open(file, BLOCK_BYTES, convert, bad):
                lines, bad[:] = tuple(bad), []
                for start in range(0, block.num_rows, batch_rows):
                    yield _typed(pa.Table.from_batches([block.slice(start, batch_rows)]), schema)
                yield Part(schema.empty_table(), bad_lines=lines)
    except pa.ArrowInvalid as error:
        raise _no_csv(place, error) from error
    yield Part(schema.empty_table(), bad_lines=tuple(bad))


def _open(file: object, block_bytes: int, convert: pc_csv.ConvertOptions, bad: list[BadLine]) -> pc_csv.CSVStreamingReader:
    def note(row: pc_csv.InvalidRow) -> str:
        bad.append(
            BadLine(row.number, f"{row.actual_columns} columns where {row.expected_columns} are expected: {row.text[:100]!r}")
        )
        return "skip"

    return pc_csv.open_csv(
        file,
        read_options=pc_csv.ReadOptions(use_threads=False, block_size=block_bytes),
        parse_options=pc_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
        convert_options=convert,
    )


def _typed(rows: pa.Table, schema: pa.Schema) -> Part:
    problems: dict[int, str] = {}
    columns = [_cast(rows[field.name], field, problems) for field in schema]
    return Part(pa.table(columns, schema=schema), problems)


def _cast(column: pa.ChunkedArray, field: pa.Field, problems: dict[int, str]) -> pa.Array | pa.ChunkedArray:
    try:
        return column.cast(pa.string()).cast(field.type)
    except pa.ArrowInvalid:
        return pa.array([_cast_one(value, field, k, problems) for k, value in enumerate(column)], field.type)


def _cast_one(value: pa.Scalar, field: pa.Field, k: int, problems: dict[int, str]) -> object:
    try:
        return value.cast(pa.string()).cast(field.type).as_py()
    except pa.ArrowInvalid:
        shown = value.as_py()[:60].decode("utf-8", "backslashreplace")
        problems[k] = f"column {field.name!r} is {field.type}, but {shown!r} is none"
        return None


def _no_csv(place: Place, error: pa.ArrowInvalid) -> CorpusError:
    text = str(error).splitlines()[0][:200]
    return CorpusError(f"the manifest {place.uri} is empty or no CSV ({text}); write a header and one row per source")
