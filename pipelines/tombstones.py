"""What was deleted for good: `<table>__deleted`. In: sources that `delete` removes. Out: look-ups for the planner.

A tombstone is written before its source's rows go, because two Lance tables cannot share a commit: a crash between the two
leaves rows that the same command removes when it is run again, and never a source that comes back. Only the holder of the
table's lease writes. A purge leaves the hash `source_id`, and no uri.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.known import Batch, Known, id_words
from pipelines.ledger import any_of, in_slices
from pipelines.table import create_table, open_table

TOMBSTONE_COLUMNS = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False, metadata={b"lance-schema:unenforced-primary-key": b"true"}),
        pa.field("uri", pa.string()),  # null once it is purged
        pa.field("modality", pa.string(), nullable=False),
        pa.field("corpus", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("deleted_at", pa.timestamp("us", "UTC"), nullable=False),
    ]
)


class Tombstones:
    """`<table>__deleted`, written only by the holder of the table's lease."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def known(self) -> Known:
        """The deleted sources, each with state 0: a source stays deleted whatever its bytes are."""
        return Known(self._ids())

    def _ids(self) -> Iterator[Batch]:
        dataset = open_table(self.uri)
        for batch in dataset.to_batches(columns=["source_id"]) if dataset is not None else ():
            if batch.num_rows:
                yield Batch(id_words(batch["source_id"]), np.zeros(batch.num_rows, np.uint64))

    def find(self, condition: str) -> pa.Table:
        """The tombstones that an SQL condition over their columns chooses."""
        dataset = open_table(self.uri)
        return TOMBSTONE_COLUMNS.empty_table() if dataset is None else dataset.to_table(filter=condition)

    def add(self, sources: pa.Table, run_id: str, reason: str | None) -> None:
        """Write tombstones.

        Args:
            sources: columns source_id (each once), uri, modality, corpus.
            run_id: of the delete job.
            reason: what the operator says, or None.
        """
        count, now = sources.num_rows, pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC"))
        rows = sources.select(["source_id", "uri", "modality", "corpus"])
        rows = rows.append_column("reason", pa.array([reason] * count, pa.string()))
        rows = rows.append_column("run_id", pa.array([run_id] * count, pa.string()))
        rows = rows.append_column("deleted_at", pa.repeat(now, count)).cast(TOMBSTONE_COLUMNS)
        upsert = self._opened().merge_insert("source_id").when_matched_update_all().when_not_matched_insert_all()
        upsert.execute(rows)

    def lift(self, source_ids: Sequence[str]) -> None:
        """Remove tombstones, so that the next `embed` takes these sources again."""
        dataset = open_table(self.uri) if source_ids else None
        if dataset is not None:
            for ids in in_slices(source_ids):
                dataset.delete(any_of(ids))

    def forget_uris(self) -> None:
        """Leave nothing but hashes of what is deleted, also where a corpus was one file; older versions still hold the URIs."""
        dataset = open_table(self.uri)
        if dataset is not None:
            dataset.update({"corpus": "''"}, where="corpus = uri")
            dataset.update({"uri": "NULL"}, where="uri IS NOT NULL")

    def _opened(self) -> Any:
        dataset = open_table(self.uri)
        return create_table(self.uri, TOMBSTONE_COLUMNS) if dataset is None else dataset  # not `or`: an empty one is false
