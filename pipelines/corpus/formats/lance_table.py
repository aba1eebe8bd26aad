"""A Lance table as a manifest: a row per source, with `uri` or inline `media` (blobs too). In: a place. Out: its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import lance
import pyarrow as pa

from pipelines.corpus.corpus import CorpusError, Opened, Wanted
from pipelines.corpus.manifest_rows import INLINE_BYTES, Manifest, Part
from pipelines.corpus.place import Place, reading
from pipelines.storage import lance_options


def certainty(place: Place) -> int:
    """By its name."""
    return 3 if place.suffix == ".lance" else 0


def open_format(place: Place, wanted: Wanted) -> Opened:
    """The rows of the newest version.

    Raises:
        CorpusError: there is no such table, it is empty, or its columns are not those of a manifest.
    """
    with reading(place.read_uri):
        try:
            dataset = lance.dataset(place.uri, storage_options=lance_options(place.uri))
        except ValueError as error:
            raise CorpusError(
                f"no Lance table is at {place.uri} ({str(error).splitlines()[0][:200]}); check the spelling"
            ) from error
    schema = _scan(dataset, wanted).projected_schema
    manifest = Manifest(place, place.folder, schema.remove_metadata(), wanted)
    if dataset.count_rows() == 0:
        raise CorpusError(f"the Lance table {place.uri} has no rows; write one row per source")

    def rows(skipped: Counter[str]) -> Iterator[pa.Table]:
        batches = _batches(place, dataset, wanted)
        return manifest.sources((Part(pa.Table.from_batches([b]).replace_schema_metadata(None)) for b in batches), skipped)

    return Opened(manifest.own, rows)


def _batches(place: Place, dataset: Any, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    try:
        yield from _scan(dataset, wanted).to_batches()
    except ValueError as error:  # what Lance says of a damaged file
        raise CorpusError(
            f"the Lance table {place.uri} is damaged ({str(error).splitlines()[0][:200]}); write it again"
        ) from error


def _scan(dataset: Any, wanted: Wanted) -> Any:
    """All columns, in order; batches of bounded bytes where media are inline."""
    weight = {"batch_size_bytes": INLINE_BYTES} if "media" in dataset.schema.names else {"batch_size": wanted.batch_rows}
    return dataset.scanner(scan_in_order=True, blob_handling="all_binary", **weight)
