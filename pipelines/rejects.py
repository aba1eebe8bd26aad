"""The rejects table: sources that have no vector, and why. In: rejects of a run. Out: rows by source, attempts counted.

Two tables cannot share a commit, so the table of items is the truth: it is committed first. A reject whose source the items
hold in the same version is stale: readers do not see it (`valid_rejects`), and the next run clears it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.known import Batch, Known, id_words, state_hash
from pipelines.ledger import any_of, in_slices
from pipelines.log import note
from pipelines.table import REJECT_COLUMNS, create_table, open_table

NOTED_AT_ONCE = 100  # of a commit in the log; the table has them all
_SEPARATOR = "\n"  # which is in no id, no URI and no version


@dataclass(frozen=True)
class Rejected:
    """A source that has no vector, and why."""

    source_id: str
    uri: str
    modality: str
    version: str
    stage: str
    error_type: str
    message: str
    expected: bool = True

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Rejected:
        """What workers say of it in a row with `_reject_*` filled in."""
        own = {name: row[name] for name in ("source_id", "uri", "modality", "version")}
        said = {name: row[f"_reject_{name}"] for name in ("stage", "message", "expected")}
        return cls(**own, **said, error_type=row["_reject_type"])


def note_rejects(rejected: Sequence[Rejected]) -> None:
    """A line each in a log of JSON; of very many the first."""
    for one in rejected[:NOTED_AT_ONCE]:
        about = {name: getattr(one, name) for name in ("stage", "uri", "source_id", "modality", "version", "error_type")}
        note(f"rejected: {one.message}", logging.WARNING, **about)
    if len(rejected) > NOTED_AT_ONCE:
        causes = Counter(one.error_type for one in rejected)
        note(f"rejected {len(rejected):,} sources, of which {NOTED_AT_ONCE} are told here", logging.WARNING, rejects=causes)


def valid_rejects(rejects: Any | None, items: Any | None) -> pa.Table:
    """The rejects, but for stale ones.

    A crash between the two tables leaves those. One whose modality was not known then is stale if the items hold its URI in
    this version as anything.

    Args:
        rejects: the rejects table, if there is one; opened before the items, so that what is cleared meanwhile is not missed.
        items: the table of items, if there is one.

    Returns:
        Rows of REJECT_COLUMNS.
    """
    if rejects is None:
        return REJECT_COLUMNS.empty_table()
    rows = rejects.to_table()
    if not rows.num_rows or items is None:
        return rows
    named = pc.not_equal(rows["modality"], "")
    keys = pc.if_else(named, rows["source_id"], rows["uri"])
    looked_for = pa.array(pc.binary_join_element_wise(keys, rows["version"], _SEPARATOR).combine_chunks())
    stale: set[str] = set()
    for batch in items.to_batches(columns=["source_id", "uri", "version"]):
        for name in ("source_id", "uri"):
            held = pc.binary_join_element_wise(batch[name], batch["version"], _SEPARATOR)
            stale.update(held.filter(pc.is_in(held, value_set=looked_for)).to_pylist())
    return rows.filter(pc.invert(pc.is_in(looked_for, value_set=pa.array(sorted(stale), pa.string()))))


class Rejects:
    """`<table>__rejects`, written only by the holder of the table's lease."""

    def __init__(self, uri: str, run_id: str) -> None:
        self._uri = uri
        self._run_id = run_id

    def known(self, retry: bool) -> Known:
        """The sources rejected before, by version; with `retry`, none counts as done with, nor ever one that was not read."""
        return Known(self._states(retry))

    def _states(self, retry: bool) -> Iterator[Batch]:
        dataset = open_table(self._uri)
        if dataset is None:
            return
        for batch in dataset.to_batches(columns=["source_id", "version", "stage"]):
            if batch.num_rows:
                again = np.array([retry or stage == "read" for stage in batch["stage"].to_pylist()])
                states = np.where(again, np.uint64(0), state_hash(batch["version"], ""))
                yield Batch(id_words(batch["source_id"]), states)

    def of_corpus(self, chosen: str) -> Iterator[pa.RecordBatch]:
        """`source_id`, `uri` and `modality` of the rejects that an SQL filter chooses."""
        dataset = open_table(self._uri)
        if dataset is not None:
            yield from dataset.to_batches(columns=["source_id", "uri", "modality"], filter=chosen)

    def write(self, rejected: Sequence[Rejected], corpus: str) -> None:
        """Add or replace the rows of rejected sources."""
        if not rejected:
            return
        dataset = open_table(self._uri)
        if dataset is None:  # not `or`: an empty dataset is false
            dataset = create_table(self._uri, REJECT_COLUMNS)
        attempts: dict[str, int] = {}
        for ids in in_slices([r.source_id for r in rejected]):
            old = dataset.to_table(columns=["source_id", "attempts"], filter=any_of(ids))
            attempts |= dict(zip(old["source_id"].to_pylist(), old["attempts"].to_pylist(), strict=True))
        now = datetime.now(UTC)
        rows = [
            {
                **{k: v for k, v in vars(r).items() if k != "expected"},
                "corpus": corpus,
                "attempts": attempts.get(r.source_id, 0) + 1,
                "run_id": self._run_id,
                "rejected_at": now,
            }
            for r in rejected
        ]
        table = pa.Table.from_pylist(rows, schema=REJECT_COLUMNS)
        dataset.merge_insert("source_id").when_matched_update_all().when_not_matched_insert_all().execute(table)

    def clear(self, source_ids: Sequence[str]) -> None:
        """Remove the rows of sources that have a vector now."""
        dataset = open_table(self._uri) if source_ids else None
        if dataset is not None:
            for ids in in_slices(source_ids):
                dataset.delete(any_of(ids))
