"""What a corpus is, whatever its format. In: a format's batches. Out: a stream of sources with counts of all the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.corpus.globs import Filter
from pipelines.reach import PUBLIC, Reach

BATCH_ROWS = 10_000
STANDARD_MODALITIES = ("image", "video", "audio", "text", "depth", "thermal", "imu")

COLUMNS = pa.schema(
    [
        pa.field("uri", pa.string()),  # canonical; inline media `manifest_uri#id`, members of shards `shard_uri#member`
        pa.field("modality", pa.string()),  # null: not known before its bytes are looked at
        pa.field("version", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("media", pa.large_binary()),  # inline bytes
        pa.field("container", pa.string()),  # the shard that holds it: read size_bytes at offset
        pa.field("offset", pa.int64()),
        pa.field("read_uri", pa.string()),  # where to read from when it is not `uri`: a signed URL
        pa.field("problem", pa.string()),  # why this row is no source
    ]
)


class CorpusError(ValueError):
    """A corpus cannot be used; the message says which value, why, and what to do. Nothing has started."""


@dataclass(frozen=True)
class Wanted:
    """What the caller asks of any format.

    Attributes:
        modality: of every source that does not say its own.
        modalities: all names of modalities that are known.
        reserved: names that a manifest's own columns may not have.
        batch_rows: rows of a batch at most.
        reach: where sources may lie.
    """

    modality: str | None = None
    modalities: Collection[str] = STANDARD_MODALITIES
    reserved: Collection[str] = ()
    filter: Filter = field(default_factory=Filter)
    batch_rows: int = BATCH_ROWS
    reach: Reach = PUBLIC


@dataclass(frozen=True)
class Opened:
    """What a format makes of a place: its own columns, and its rows (COLUMNS, then its own), counting what it skips."""

    columns: pa.Schema
    rows: Callable[[Counter[str]], Iterator[pa.Table]]


@dataclass
class Corpus:
    """Where sources come from.

    Attributes:
        id: its canonical root, or the name it was given.
        columns: the manifest's own further columns, as they came.
        reach: where its sources may lie.
        found: sources seen so far: rows given out, and those skipped.
        skipped: those that are no media or not wanted, by extension or reason.
    """

    id: str
    columns: pa.Schema
    rows: Callable[[Counter[str]], Iterator[pa.Table]]
    limit: int | None = None
    reach: Reach = PUBLIC
    found: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def batches(self) -> Iterator[pa.Table]:
        """All sources, streaming: COLUMNS, then `columns`. The counts start again at 0 and are complete when it ends.

        Raises:
            CorpusError: some of it may not be read.
            OSError: the store stopped answering.
        """
        self.skipped.clear()
        self.found = given = 0
        for table in self.rows(self.skipped):
            batch = table if self.limit is None else table.slice(0, self.limit - given)
            given += batch.num_rows
            self.found = given + self.skipped.total()
            if batch.num_rows:
                yield batch
            if given == self.limit:
                return
        self.found = given + self.skipped.total()
