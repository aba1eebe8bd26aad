"""A JSON Lines manifest. In: a place. Out: its schema, and its rows as they stream; a bad line is a problem of its own alone.

Names and types of columns are those of the first SCHEMA_LINES lines; where a column has values of several types there, the most
frequent one counts. A later value of another type, or of a column never seen before, makes its row a problem.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from pipelines.corpus.manifest_rows import BadLine, Part
from pipelines.corpus.place import Place

SCHEMA_LINES = 100_000
_MISFITS = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)
_ALWAYS_TEXT = ("uri", "modality")


def jsonl_schema(place: Place) -> pa.Schema:
    """Names and types of the columns."""
    values: dict[str, list[Any]] = defaultdict(list)
    for line in islice(_lines(place), SCHEMA_LINES):
        if isinstance(line, dict):
            for name, value in line.items():
                values[name] += () if value is None else (value,)  # a column whose values are all null is still one
    return pa.schema([(name, pa.string() if name in _ALWAYS_TEXT else _type_of(found)) for name, found in values.items()])


def jsonl_parts(place: Place, schema: pa.Schema, batch_rows: int) -> Iterator[Part]:
    """The rows, each column of its type in `schema`."""
    stream = enumerate(_lines(place), start=1)
    while batch := list(islice(stream, batch_rows)):
        rows = [line for _, line in batch if isinstance(line, dict)]
        bad = tuple(BadLine(number, line) for number, line in batch if isinstance(line, str) and line)
        yield _typed(rows, schema, bad)


def _lines(place: Place) -> Iterator[dict[str, Any] | str]:
    """Each line's object, or what is wrong with it ("" for an empty line)."""
    with place.fs.open(place.path, "rb") as file:
        for line in file:
            if not line.strip():
                yield ""
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:  # bytes that are no UTF-8 too
                yield f"no JSON ({str(error)[:100]}): {line[:60]!r}"
                continue
            if b"\\u" in line and not _is_unicode(row):
                yield f"holds half of a surrogate pair, which is no character: {line[:60]!r}"
                continue
            yield row if isinstance(row, dict) else f"a JSON object is expected, not {line[:60]!r}"


def _is_unicode(row: object) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _typed(rows: list[dict[str, Any]], schema: pa.Schema, bad: tuple[BadLine, ...]) -> Part:
    problems: dict[int, str] = {}
    known = set(schema.names)
    for k, row in enumerate(rows):
        if not known.issuperset(row):
            new = next(name for name in row if name not in known)
            problems[k] = (
                f"column {new!r} is in none of the first {SCHEMA_LINES:,} lines; move such a row to the top, or drop it"
            )
    columns = [_column([row.get(field.name) for row in rows], field, problems) for field in schema]
    return Part(pa.table(columns, schema=schema), problems, bad)


def _column(values: list[Any], field: pa.Field, problems: dict[int, str]) -> pa.Array:
    try:
        return pa.array(values, field.type)
    except _MISFITS:
        return pa.array([_fitting(value, field, k, problems) for k, value in enumerate(values)], field.type)


def _fitting(value: Any, field: pa.Field, k: int, problems: dict[int, str]) -> Any:
    try:
        pa.array([value], field.type)
    except _MISFITS:
        problems[k] = f"column {field.name!r} is {field.type}, but {str(value)[:60]!r} is none"
        return None
    return value


def _type_of(values: list[Any]) -> pa.DataType:
    try:
        found = pa.infer_type(values)
    except _MISFITS:
        ((most, _),) = Counter(type(value) for value in values).most_common(1)
        return _type_of([value for value in values if type(value) is most]) if len({*map(type, values)}) > 1 else pa.string()
    return pa.string() if pt.is_null(found) else found
