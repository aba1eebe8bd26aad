"""What a plan is compared with. In: a table, its rejects, its tombstones. Out: compact lookups of all three.

16 bytes a source, and 16 more where a manifest's labels have to be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.damage import batches_where
from pipelines.filters import is_in
from pipelines.known import Batch, Known, id_words, state_hash
from pipelines.labels import label_hash
from pipelines.rejects import Rejects
from pipelines.tombstones import Tombstones

NOTHING = Known([])


@dataclass(frozen=True)
class Holdings:
    """What is there already, by source.

    Attributes:
        items: sources of the table; their state is version and recipe. One that has not `segment_count` rows has no state.
        recipes: the recipes that the table holds.
        labels: sources that this corpus has put into the table; their state is the hash of its own columns.
        rejects: sources rejected before; their state is the version alone, as a reject is tried again when its bytes change.
        deleted: sources that were deleted on purpose and are not to come back.
    """

    items: Known = NOTHING
    recipes: frozenset[str] = frozenset()
    labels: Known = NOTHING
    rejects: Known = NOTHING
    deleted: Known = NOTHING


@dataclass
class _Items:
    """One pass over the table's rows."""

    recipes: set[str] = field(default_factory=set)

    def states(self, dataset: Any) -> Iterator[Batch]:
        for batch in dataset.to_batches(columns=["source_id", "version", "recipe", "segment_count"]):
            if batch.num_rows:
                self.recipes.update(pc.unique(batch["recipe"]).to_pylist())
                states = state_hash(batch["version"], batch["recipe"])
                yield Batch(id_words(batch["source_id"]), states, batch["segment_count"].to_numpy())


def read_holdings(
    dataset: Any | None, rejects: Rejects, tombstones: Tombstones, corpus: str, own: Sequence[str], retry_rejects: bool
) -> Holdings:
    """Look through the table, which may be None, its rejects and its tombstones.

    Args:
        dataset: the table.
        rejects: its rejects.
        tombstones: its list of deleted sources.
        corpus: whose labels are of interest.
        own: the columns of that corpus which are its labels.
        retry_rejects: none counts as done with.
    """
    items, found = NOTHING, _Items()
    labels = NOTHING
    if dataset is not None:
        items = Known(found.states(dataset))
        labels = Known(_labels(dataset, corpus, own)) if own else NOTHING
    return Holdings(items, frozenset(found.recipes), labels, rejects.known(retry_rejects), tombstones.known())


def _labels(dataset: Any, corpus: str, own: Sequence[str]) -> Iterator[Batch]:
    there = [name for name in own if name in dataset.schema.names]
    for batch in batches_where(dataset, of_corpus(corpus), columns=["source_id", *there]):
        if batch.num_rows:
            yield Batch(id_words(batch["source_id"]), label_hash(pa.table(batch), own))


def of_corpus(corpus: str) -> str:
    """The SQL filter that chooses the rows of one corpus."""
    return is_in("corpus", [corpus])
