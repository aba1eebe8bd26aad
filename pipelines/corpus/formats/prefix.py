"""A folder or prefix of media, or a single file. In: a place. Out: every file below it that may be media.

A file of a kind that is never media is skipped by its extension. Of the rest, the modality is the argument's; else that of the
innermost folder, from the root's own name on, that is named like a modality; else it is left open for its bytes to tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pyarrow as pa

from pipelines.corpus.corpus import CorpusError, Opened, Wanted
from pipelines.corpus.listing import File, list_files
from pipelines.corpus.modality import FolderNames, extension, never_media
from pipelines.corpus.place import Place, reading
from pipelines.corpus.rows import Row, tables


def certainty(place: Place) -> int:
    """The format of last resort."""
    return 1


def open_format(place: Place, wanted: Wanted) -> Opened:
    """Every file below the place.

    Raises:
        CorpusError: nothing is there, or it may not be read.
    """
    if place.kind == "file":
        return Opened(pa.schema([]), lambda skipped: _file(place, wanted, skipped))
    if place.kind == "nothing":
        raise CorpusError(f"nothing is at {place.uri}; check the spelling, the bucket and the working directory")
    first: Counter[str] = Counter()
    if next(list_files(place, wanted.filter, first), None) is None:
        seen = f" but what is skipped ({', '.join(f'{n} {kind}' for kind, n in first.items())})" if first else ""
        raise CorpusError(f"no file lies below {place.uri}{seen}; put media there, or name another prefix")
    return Opened(pa.schema([]), lambda skipped: _folder(place, wanted, skipped))


def _file(place: Place, wanted: Wanted, skipped: Counter[str]) -> Iterator[pa.Table]:
    read_uri = place.read_uri if place.read_uri != place.uri else None
    rows = _rows(place.folder, [File(place.name, None, None)], wanted, skipped)
    with reading(place.read_uri):
        yield from tables((row._replace(read_uri=read_uri) for row in rows), wanted.batch_rows, wanted.reach)


def _folder(place: Place, wanted: Wanted, skipped: Counter[str]) -> Iterator[pa.Table]:
    return tables(_rows(place.uri, list_files(place, wanted.filter, skipped), wanted, skipped), wanted.batch_rows, wanted.reach)


def _rows(root: str, files: Iterable[File], wanted: Wanted, skipped: Counter[str]) -> Iterator[Row]:
    start = root.rstrip("/") + "/"
    names = FolderNames(wanted.modalities)
    name = root.rpartition("/")[2]
    for path, size_bytes, version, problem in files:
        if not wanted.filter.wants(path):
            skipped["excluded"] += 1
            continue
        kind = extension(path)
        if never_media(kind):
            skipped[kind] += 1
            continue
        modality = wanted.modality or names.modality(f"{name}/{path[: max(path.rfind('/'), 0)]}")
        yield Row(start + path, modality, version, size_bytes, problem=problem)
