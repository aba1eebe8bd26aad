"""What a search would do, without doing it. In: an index, a query. Out: how it would be found, and by how much comparing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.damage import batches_where
from pipelines.filters import conjunction, explained, is_in
from pipelines.index import Index
from pipelines.query import understand
from pipelines.table import open_table


@dataclass(frozen=True)
class SearchPlan:
    """A search that could be made.

    Attributes:
        query: what would be asked, in words.
        table: URI of the table.
        k: hits at most.
        rows: that may be found: they meet the condition.
        index: the kind of the table's vector index; None: every vector is compared.
        compared_rows: of these at most, that are compared one by one as no index holds them.
        compared_bytes: of their vectors.
        embed_s: that it took to embed the query, the tower loaded within; the search itself comes on top.
        bottleneck: in words.
    """

    query: str
    table: str
    k: int
    rows: int
    index: str | None
    compared_rows: int
    compared_bytes: int
    embed_s: float
    bottleneck: str


def plan_search(
    index: Index, query: Mapping[str, Any], modality: Sequence[str] | None, where: str | None, k: int
) -> SearchPlan:
    """Check a search as `Index.search` does, and embed its query.

    Raises:
        ValueError, TypeError: as `Index.search`.
    """
    index.search_many([], modality=modality, where=where, k=k)  # a search for nothing: what is wrong with the rest is told
    dataset: Any = open_table(index.uri)
    began = time.perf_counter()
    [asked] = understand([query], index.space, dataset, None)
    embed_s = time.perf_counter() - began
    condition = conjunction(where, *([is_in("modality", modality)] if modality is not None else []))
    with explained(where, index.columns):
        rows = sum(batch.num_rows for batch in batches_where(dataset, condition, columns=["modality"]))
    stats = index.stats()
    compared = min(rows, stats.unindexed_rows)
    return SearchPlan(
        query=asked.words,
        table=index.uri,
        k=k,
        rows=rows,
        index=stats.index,
        compared_rows=compared,
        compared_bytes=4 * stats.dim * compared,
        embed_s=round(embed_s, 4),
        bottleneck=_bottleneck(stats.index, compared),
    )


def _bottleneck(index: str | None, compared: int) -> str:
    beside = f", and compares {compared:,} vectors that it lacks" if compared else ""
    return f"compares all {compared:,} vectors" if index is None else f"asks the index ({index}){beside}"
