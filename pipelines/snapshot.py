"""One version of a table, and what a search has to know of it. In: a Lance dataset. Out: settings, a sample, counts."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow.compute as pc

from encoders.space import Space
from pipelines.background import Background, measure
from pipelines.damage import rows_where
from pipelines.filters import is_in
from pipelines.nearest import EXACT_VALUES, SearchSettings, unindexed_rows
from pipelines.table import VECTOR, check_space, open_table, table_id, through_rings

UNINDEXED_SHARE = 0.01  # above it searches get slow, and somebody should be told
GROWTH = 2  # the background is measured anew when the table has so many times as many rows


@dataclass(frozen=True)
class Stats:
    """What a table holds.

    Attributes:
        items: rows by modality, largest first.
        rows: all of them.
        unindexed_rows: rows that a search compares one by one, as the vector index does not hold them, or there is none.
        index: the vector index, as Lance names its kind; None where every row is compared.
        recall: at 10 of the worst pair of modalities, as it was measured when the index was last tuned; 1 without index.
        space: the name of the space; `space_fingerprint` says which exactly.
        dim: D, the length of every vector.
        version: of the table, as Lance counts commits.
        columns: names, in order.
    """

    items: Mapping[str, int]
    rows: int
    unindexed_rows: int
    index: str | None
    recall: float | None
    space: str
    space_fingerprint: str
    dim: int
    version: int
    columns: Sequence[str]


class Snapshot:
    """A version of a table, open for reading; threads may share it."""

    def __init__(self, dataset: Any, earlier: Background | None = None, told: bool = False) -> None:
        self.dataset = dataset
        self._background = earlier
        self._told = told  # whether somebody was warned of this table
        self._looked = False  # whether the background is known to be that of this version
        self._turn = threading.Lock()

    @cached_property
    def rings(self) -> Any:
        """The same dataset, for what reads single rows from all over it."""
        return through_rings(self.dataset)

    @cached_property
    def rows(self) -> int:
        """Rows of the table."""
        return int(self.dataset.count_rows())

    @cached_property
    def columns(self) -> list[str]:
        """Names, in order."""
        return list(self.dataset.schema.names)

    @cached_property
    def settings(self) -> SearchSettings | None:
        """How to ask the vector index; None where there is none, or one of another program."""
        return SearchSettings.of(self.dataset)

    @cached_property
    def indexed(self) -> bool:
        """Whether it has indices, of whatever kind."""
        return bool(self.dataset.describe_indices())

    @cached_property
    def unindexed_rows(self) -> int:
        """Rows that a search compares one by one."""
        return unindexed_rows(self.dataset)

    def tell_if_slow(self) -> None:
        """Warn, once, where searches compare many rows one by one."""
        slow = 0 if self._told else self.unindexed_rows
        if slow <= UNINDEXED_SHARE * self.rows or slow * self.dataset.schema.field(VECTOR).type.list_size < EXACT_VALUES:
            return
        self._told = True
        what = "are not in its vector index" if self.settings is not None else "have no vector index"
        warnings.warn(
            f"{slow:,} of {self.rows:,} rows of {self.dataset.uri} {what}, so a search compares them one by one; "
            "`bindery optimize` brings it up to date",
            stacklevel=4,
        )

    def background(self, space: Space) -> Background:
        """A sample of the table: that of an earlier version as long as it will do, else one that is taken now."""
        with self._turn:
            if not self._looked:
                if self._background is None or not self._covers(self._background, space):
                    self._background = measure(self.dataset, space.modalities)
                self._looked = True
            assert self._background is not None
            return self._background

    def stats(self, space: Space) -> Stats:
        """What the table holds; reads one column."""
        counts: Counter[str] = Counter()
        for batch in self.dataset.to_batches(columns=["modality"]):
            for pair in pc.value_counts(batch["modality"]).to_pylist():
                counts[pair["values"]] += pair["counts"]
        settings = self.settings
        return Stats(
            items=dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))),
            rows=self.rows,
            unindexed_rows=self.unindexed_rows,
            index=settings.kind if settings is not None else None,
            recall=settings.worst if settings is not None else 1.0,
            space=space.name,
            space_fingerprint=space.fingerprint,
            dim=space.dim,
            version=self.dataset.version,
            columns=self.columns,
        )

    def refreshed(self, space: Space) -> Snapshot:
        """The newest version of the table: this one, if there is none newer.

        Raises:
            SpaceError: another table, of another space, was put in its place.
            OSError: the store is away.
        """
        if self.dataset.latest_version == self.dataset.version:
            return self
        newest = self.dataset.checkout_version(self.dataset.latest_version)
        if table_id(newest) != table_id(self.dataset):
            another: Any = open_table(newest.uri)  # nothing is remembered of it
            check_space(another, space, newest.uri)
            return Snapshot(another)
        return Snapshot(newest, self._background, self._told)

    def _covers(self, known: Background, space: Space) -> bool:
        missing = [name for name in space.modalities if name not in known.vectors]
        new = len(rows_where(self.dataset, is_in("modality", missing), columns=["modality"], limit=1)) if missing else 0
        return not new and self.rows < GROWTH * max(1, known.rows)
