"""A manifest: one row per source, as Parquet (a file, or a folder of files), CSV or JSON Lines. In: a place. Out: its rows.

A folder that holds `manifest.parquet`, `.csv` or `.jsonl` is the corpus of that manifest; the manifest itself is no source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.corpus.corpus import CorpusError, Opened, Wanted
from pipelines.corpus.csv_manifest import csv_parts, csv_schema
from pipelines.corpus.globs import Filter
from pipelines.corpus.jsonl_manifest import jsonl_parts, jsonl_schema
from pipelines.corpus.listing import list_files
from pipelines.corpus.manifest_rows import Manifest, Part, batch_rows, require_rows
from pipelines.corpus.place import Place, reading

SUFFIXES = (".parquet", ".csv", ".jsonl")


def certainty(place: Place) -> int:
    """By its name, or by the name of what lies in the folder."""
    return 3 if place.suffix in SUFFIXES or (place.kind == "folder" and _inside(place)) else 0


def open_format(place: Place, wanted: Wanted) -> Opened:
    """The rows of a manifest.

    Raises:
        CorpusError: it is not there, is damaged or empty, its columns are not those of a manifest, or a folder holds several.
    """
    if place.suffix not in SUFFIXES:
        manifests = _inside(place)
        if len(manifests) > 1:
            raise CorpusError(
                f"{place.uri} holds {' and '.join(m.name for m in manifests)}; name the one that counts, or remove one"
            )
        place = manifests[0]
    if place.kind == "nothing":
        raise CorpusError(f"no manifest is at {place.uri}; check the spelling, the bucket and the working directory")
    if place.kind == "folder" and place.suffix != ".parquet":
        raise CorpusError(f"{place.uri} is a folder, not a {place.suffix} file; name a file")
    readers: dict[str, Callable[[Place, Wanted], tuple[pa.Schema, Callable[[], Iterator[Part]]]]] = {
        ".parquet": _parquet,
        ".csv": lambda at, asked: _text(at, asked, csv_schema, csv_parts),
        ".jsonl": lambda at, asked: _text(at, asked, jsonl_schema, jsonl_parts),
    }
    with reading(place.read_uri):
        schema, parts = readers[place.suffix](place, wanted)
    manifest = Manifest(place, place.folder, schema, wanted)
    require_rows(place, parts())

    def rows(skipped: Counter[str]) -> Iterator[pa.Table]:
        return manifest.sources(parts(), skipped)

    return Opened(manifest.own, rows)


def _inside(place: Place) -> list[Place]:
    children = [place.child(f"manifest{suffix}") for suffix in SUFFIXES]
    return [child for child in children if child.kind == "file" or (child.kind == "folder" and child.suffix == ".parquet")]


def _text(place: Place, wanted: Wanted, find_schema: Any, read: Any) -> tuple[pa.Schema, Callable[[], Iterator[Part]]]:
    schema: pa.Schema = find_schema(place)
    if "media" in schema.names:
        raise CorpusError(f"column `media` of the manifest {place.uri}: text holds no bytes; write it as Parquet, or use `uri`")
    return schema, lambda: read(place, schema, wanted.batch_rows)


def _parquet(place: Place, wanted: Wanted) -> tuple[pa.Schema, Callable[[], Iterator[Part]]]:
    if place.kind == "file":
        paths = [place.path]
    else:
        found = [file.path for file in list_files(place, Filter(), Counter()) if file.path.endswith(".parquet")]
        paths = [f"{place.path.rstrip('/')}/{path}" for path in sorted(found)]
        if not paths:
            raise CorpusError(f"the folder {place.uri} holds no .parquet file; name a manifest that has rows")
    with _damage(place), place.fs.open(paths[0], "rb") as file:
        metadata = pq.ParquetFile(file)
        schema = metadata.schema_arrow.remove_metadata()
        weight = sum(metadata.metadata.row_group(k).total_byte_size for k in range(metadata.num_row_groups))
        size = batch_rows(wanted, schema, weight / max(1, metadata.metadata.num_rows))
    return schema, lambda: _parquet_parts(place, paths, schema, size)


def _parquet_parts(place: Place, paths: list[str], schema: pa.Schema, size: int) -> Iterator[Part]:
    for path in paths:
        with _damage(place), place.fs.open(path, "rb") as file:
            # Buffered: of a column's megabytes only what a batch needs is in memory.
            table = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
            if not table.schema_arrow.remove_metadata().equals(schema):
                raise CorpusError(f"{path} has other columns than {paths[0]}; write them with one schema")
            for batch in table.iter_batches(size):
                yield Part(pa.Table.from_batches([batch], batch.schema).replace_schema_metadata(None))


class _damage:  # noqa: N801 - reads as what it is: with _damage(place)
    """Turn what Arrow says of a damaged file into a CorpusError."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Of damaged pages Arrow raises a bare OSError; one of a disk or a store has a number, or a class of its own.
        pages = type(error) is OSError and error.errno is None
        if pages or isinstance(error, pa.ArrowInvalid):
            text = str(error).splitlines()[0][:200]
            raise CorpusError(f"the manifest {self._place.uri} is damaged or no Parquet ({text}); write it again") from error
