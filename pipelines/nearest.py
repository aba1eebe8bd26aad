"""The one call that finds neighbours. In: a version of a table, query vectors, a condition. Out: row ids and cosines.

Q queries, D dimension. How a table's vector index is to be asked stands in the table's own metadata, so that every reader asks
alike: `bindery.search`, written by pipelines/vector_index.py.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from pipelines.table import QUERY_INDEX, VECTOR, vectors_of

Told = TypeVar("Told")
SEARCH_KEY = "bindery.search"
K = 10  # hits, of which recall tells how many are right
ANY = "all"  # rows of whatever modality
RANDOM_READ = 4  # a vector fetched by itself costs so many times as much as its bytes in a row
COMPARED_ROWS = 4096  # candidates whose vectors are held at once
EXACT_VALUES = 1 << 23  # rows x dimension, below which comparing every vector is fast: see docs/search.md


@dataclass(frozen=True)
class Way:
    """How to ask a table's vector index.

    Attributes:
        probes: partitions that are looked through for a query.
        refine: so many times as many candidates as hits are compared by their exact vectors.
        recall: at 10, as it was measured; None: it was not.
        moved: whether the index looks where the query would lie among the items that are looked for (`Background.among`).
    """

    probes: int
    refine: int
    recall: float | None = None
    moved: bool = False


@dataclass(frozen=True)
class SearchSettings:
    """A table's vector index, and the ways to ask it.

    Attributes:
        kind: of the index, as Lance names it.
        partitions: that the vectors are divided into.
        target: the recall at 10 that was asked for.
        rows: of the table when the index was trained.
        ways: by modality of the query and of what may be found: "text > image", "text > all"; until they are tuned one alone.
        rule: which of pipelines/recall.py they were found by; 0 of a program that had none.
    """

    kind: str
    partitions: int
    target: float
    rows: int
    ways: Mapping[str, Way]
    rule: int = 0

    @property
    def worst(self) -> float | None:
        """The recall at 10 of the worst pair; None if it was not measured."""
        measured = [way.recall for way in self.ways.values() if way.recall is not None]
        return min(measured) if len(measured) == len(self.ways) else None

    def way(self, askers: Collection[str | None], among: str | None) -> Way:
        """How to ask: as thoroughly as any of the ways that these queries may need, of all where nothing is known of them.

        Args:
            askers: modality of each query; None for one of none, or of several.
            among: the modality that may be found; None for any.
        """
        ways = {tuple(pair.split(" > ")): way for pair, way in self.ways.items()}
        anyone = not {asker for asker, _ in ways}.issuperset(askers)
        fits = [way for (asker, one), way in ways.items() if one == (among or ANY) and (anyone or asker in askers)]
        fits = fits or list(self.ways.values())
        most = Way(max(way.probes for way in fits), max(way.refine for way in fits), moved=any(way.moved for way in fits))
        return fits[0] if len(fits) == 1 else most

    def cost(self, way: Way) -> float:
        """The bits a dimension that a search touches: one of a row in the index, 32 of a vector that is fetched by itself."""
        return way.probes / self.partitions * self.rows + 32 * RANDOM_READ * K * way.refine

    def to_json(self) -> str:
        """As it stands in the table's metadata."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, dataset: Any) -> SearchSettings | None:
        """Those of a table; None where it has no vector index, or one that nobody has measured by pairs."""
        told = (dataset.schema.metadata or {}).get(SEARCH_KEY.encode())
        if told is None or vector_index_of(dataset) is None:
            return None
        known = json.loads(told)
        if "ways" not in known:
            return None
        return _of(cls, known | {"ways": {pair: _of(Way, way) for pair, way in known["ways"].items()}})


def _of(kind: type[Told], values: Mapping[str, Any]) -> Told:
    """One of a dataclass, from what is stored; what a newer program has stored beside is passed over."""
    return kind(**{field.name: values[field.name] for field in fields(kind) if field.name in values})  # type: ignore[arg-type]


def vector_index_of(dataset: Any) -> Any | None:
    """What Lance says of the index over the vectors: name, kind, rows; None where there is none."""
    return _index_over(dataset, VECTOR)


def unindexed_rows(dataset: Any) -> int:
    """Rows that a search compares one by one, as the vector index does not hold them, or there is none that is measured."""
    rows: int = dataset.count_rows()
    index = vector_index_of(dataset) if SearchSettings.of(dataset) is not None else None
    return rows - (min(rows, index.num_rows_indexed) if index is not None else 0)


def full_text_index_of(dataset: Any) -> Any | None:
    """What Lance says of the full-text index; None where there is none."""
    index = _index_over(dataset, "text")
    return index if index is not None and index.index_type == "Inverted" else None


def _index_over(dataset: Any, column: str) -> Any | None:
    return next((index for index in dataset.describe_indices() if list(index.field_names) == [column]), None)


def nearest(
    dataset: Any,
    query_QD: np.ndarray,
    k: int,
    way: Way | None,
    condition: str | None,
    indexed: bool = True,
    columns: Sequence[str] = (),
    near_QD: np.ndarray | None = None,
) -> pa.Table:
    """The k rows nearest to each query by the cosine, best first.

    Args:
        dataset: a version of the table.
        query_QD: unit vectors.
        k: of each query at most.
        way: how to ask the vector index; None compares every vector.
        condition: SQL; only rows that meet it.
        indexed: whether they may be looked for in scalar indices.
        columns: of the table, to be read of the rows that are found.
        near_QD: where the index looks for candidates, if not near the queries (`Background.among`).

    Returns:
        query (int32, which one), row (uint64, Lance's row id), modality, similarity (float32, in [-1, 1]), columns (a struct).

    Raises:
        ValueError: the condition cannot be used.
        OSError: the table cannot be read.
    """
    wanted: dict[str, Any] = {"column": VECTOR, "k": k, "metric": "cosine", "use_index": way is not None}
    if way is not None:
        # Not `nprobes`, which would be the most, too, and find too little where few rows meet the condition; effort 0: no more.
        wanted |= {"k": k * way.refine, "minimum_nprobes": way.probes, "search_effort": 0.0}
    asked_QD = query_QD if way is None or near_QD is None else near_QD
    wanted["q"] = asked_QD[0] if len(asked_QD) == 1 else asked_QD  # alone it is quicker than as a batch of one
    found = dataset.to_table(
        columns=["_rowid", "_distance"], nearest=wanted, filter=condition, prefilter=True, use_scalar_index=indexed
    )
    row_N = found["_rowid"].to_numpy()
    number_N = found[QUERY_INDEX].to_numpy() if len(asked_QD) > 1 else np.zeros(len(row_N), np.int32)
    if way is None:
        cosine_N = np.clip(1 - found["_distance"].to_numpy(), -1, 1).astype(np.float32)
    else:  # Lance would compare candidates exactly, too, but it reads rows one plan after the other: half as fast
        cosine_N = _cosines(dataset, row_N, query_QD, number_N)
        order_N = np.lexsort((row_N, -cosine_N, number_N))
        first_N = np.searchsorted(number_N[order_N], number_N[order_N])  # of its query's
        best = order_N[np.arange(len(order_N)) - first_N < k]
        row_N, number_N, cosine_N = row_N[best], number_N[best], cosine_N[best]
    read = rows_by_id(dataset, row_N, list(dict.fromkeys(["modality", *columns])))
    told = {"query": number_N, "row": row_N, "modality": read["modality"], "similarity": cosine_N}
    return pa.table(told | {"columns": read.select(columns).to_struct_array()} if columns else told)


def rows_by_id(dataset: Any, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
    """Rows by Lance's row ids, in their order; each id once or more."""
    return dataset._take_rows(rows.tolist(), columns=list(columns))  # no public name; a filter by ids takes three times as long


def _cosines(dataset: Any, row_N: np.ndarray, query_QD: np.ndarray, number_N: np.ndarray) -> np.ndarray:
    """The cosine of each row with its query, float32 (N,)."""
    found = [np.empty(0, np.float32)]
    for start in range(0, len(row_N), COMPARED_ROWS):
        some = slice(start, start + COMPARED_ROWS)
        vectors_nD = vectors_of(rows_by_id(dataset, row_N[some], [VECTOR]))
        dots_n = np.einsum("nd,nd->n", vectors_nD, query_QD[number_N[some]])
        found.append(np.clip(dots_n / np.linalg.norm(vectors_nD, axis=1), -1, 1).astype(np.float32))
    return np.concatenate(found)
