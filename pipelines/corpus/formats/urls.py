"""A text file of http(s) URLs, one a line (`.txt`, or `.csv` without a header). In: a place. Out: what each URL names.

Empty lines and lines that start with "#" are passed over. The version is the server's ETag, else Last-Modified and size, asked
for concurrently. Parameters of signatures are not part of the URI that is stored; the URL is read as it was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from pipelines.corpus.corpus import Opened, Wanted
from pipelines.corpus.place import Place, reading
from pipelines.corpus.rows import Row, table_of, with_versions
from pipelines.identity import canonical_uri

BATCH_URLS = 1000
_SCHEMES = ("http://", "https://")


def certainty(place: Place) -> int:
    """By its name and its first URL, so that a text file can be a source too."""
    if place.suffix not in (".txt", ".csv") or place.kind != "file":
        return 0
    with reading(place.read_uri):
        _, first = next(_lines(place), (0, ""))
    return 4 if first.lower().startswith(_SCHEMES) else 0


def open_format(place: Place, wanted: Wanted) -> Opened:
    """The URLs of a list."""
    return Opened(pa.schema([]), lambda skipped: _tables(place, wanted, skipped))


def _lines(place: Place) -> Iterator[tuple[int, str]]:
    """Lines that are not empty and no comment, with their numbers from 1."""
    with place.fs.open(place.path, "rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.decode("utf-8", "backslashreplace").lstrip("\ufeff").strip().rstrip(",").strip('"')
            if text and not text.startswith("#"):
                yield number, text


def _tables(place: Place, wanted: Wanted, skipped: Counter[str]) -> Iterator[pa.Table]:
    with reading(place.read_uri):
        lines = _lines(place)
        while batch := list(islice(lines, min(BATCH_URLS, wanted.batch_rows))):
            rows = [_row(place, number, url, wanted) for number, url in batch]
            kept = [row for row in rows if row.problem or wanted.filter.wants(_path(row.uri or ""))]
            if len(kept) < len(rows):
                skipped["excluded"] += len(rows) - len(kept)
            yield table_of(with_versions(kept, wanted.reach))


def _row(place: Place, number: int, url: str, wanted: Wanted) -> Row:
    if not url.lower().startswith(_SCHEMES):
        reason = f"line {number}: {url[:80]!r} is no http(s) URL; a manifest may name media anywhere"
        return Row(f"{place.uri}#line-{number}", wanted.modality, problem=reason)
    try:
        uri = canonical_uri(url.partition("#")[0])
    except ValueError as error:
        return Row(f"{place.uri}#line-{number}", wanted.modality, problem=f"line {number}: no URL ({error})")
    problem = wanted.reach.refusal(uri)
    return Row(uri, wanted.modality, read_uri=url if url != uri else None, problem=problem)


def _path(uri: str) -> str:
    """What globs are matched against: host and path."""
    return uri.partition("://")[2].partition("?")[0]
