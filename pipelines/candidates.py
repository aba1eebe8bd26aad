"""Which rows answer a query, and in which order. In: one version of a table, queries, what to look for. Out: ranked row ids.

Results of one modality come in the order of the cosine. Where results mix modalities the best of each are found apart, and the
calibrated score decides, as cosines of different modality pairs do not compare:

    score = (cosine(q, x) - mean) / spread        of cosine(q, y) over a sample of items y of x's modality

N candidates, D dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.query import MatchQuery

from encoders.ranking import first_of_each, maximal_marginal_relevance, reciprocal_rank_fusion, standardise
from pipelines.background import Background
from pipelines.damage import UNREADABLE
from pipelines.filters import conjunction, explained, is_in
from pipelines.nearest import SearchSettings, full_text_index_of, nearest, rows_by_id
from pipelines.query import Asked
from pipelines.table import VECTOR, uri_of, vectors_of

DEEPER, AT_LEAST = 4, 64  # candidates: so many times as many as hits where some are dropped or reordered, and at least so many
MOST_REORDERED = 1024  # hits, those left out among them: each candidate is compared with each, which takes memory by the square


@dataclass(frozen=True)
class Wish:
    """What to look for; `Index.search` documents each."""

    modalities: Sequence[str] | None  # None: any
    where: str | None
    k: int
    offset: int
    calibrated: bool
    hybrid: bool
    diversity: float
    collapse: float | None
    columns: Sequence[str]

    def __post_init__(self) -> None:
        if not isinstance(self.k, Integral) or not isinstance(self.offset, Integral) or not isinstance(self.where, str | None):
            raise TypeError(
                f"k={self.k!r}, offset={self.offset!r}, where={self.where!r}: two whole numbers, and a condition in SQL"
            )
        if self.k < 1 or self.offset < 0:
            raise ValueError(f"k={self.k}, offset={self.offset}: ask for at least 1 hit, and leave out none or more")
        if not 0 <= self.diversity <= 1:
            raise ValueError(f"diversity={self.diversity} must lie between 0 (none) and 1")
        if self.collapse is not None and not 0 < self.collapse <= 1:
            raise ValueError(f"collapse={self.collapse} is no cosine of near-duplicates; give one in (0, 1], such as 0.98")
        if self.reordered and self.k + self.offset > MOST_REORDERED:
            raise ValueError(
                f"k={self.k}, offset={self.offset}: with hybrid, diversity, collapse at most {MOST_REORDERED:,} together"
            )
        self.condition(self.modalities)

    @property
    def direct(self) -> bool:
        """Whether the nearest are the hits."""
        return not self.reordered and not self.offset

    @property
    def reordered(self) -> bool:
        """Whether the nearest are not yet the hits."""
        return self.hybrid or self.diversity > 0 or self.collapse is not None

    @property
    def depth(self) -> int:
        """How many candidates to find."""
        wanted = self.k + self.offset
        return max(AT_LEAST, DEEPER * wanted) if self.reordered else wanted

    def condition(self, modalities: Sequence[str] | None) -> str | None:
        """The filter, for rows of these modalities."""
        return conjunction(self.where, *([is_in("modality", modalities)] if modalities is not None else []))


@dataclass(frozen=True)
class Ranked:
    """The hits of one query, best first.

    Attributes:
        rows: Lance's row ids, uint64 (N,).
        similarity: the cosine, float32 (N,).
        score: calibrated; of a hybrid search that of the fusion. float32 (N,).
        key: what the order comes from, float64 (N,), descending.
        columns: of the hits, where they were read along with the search; None: they are to be fetched.
    """

    rows: np.ndarray
    similarity: np.ndarray
    score: np.ndarray
    key: np.ndarray
    columns: pa.Table | None = None

    def take(self, chosen: np.ndarray | slice) -> Ranked:
        """Some of them, in this order, without columns."""
        return Ranked(self.rows[chosen], self.similarity[chosen], self.score[chosen], self.key[chosen])


def ranked(
    dataset: Any,
    asked: Sequence[Asked],
    wish: Wish,
    settings: SearchSettings | None,
    background: Background,
    indexed: bool = True,
) -> list[Ranked]:
    """The hits of each query.

    Args:
        dataset: a version of the table.
        asked: the queries.
        wish: what to look for.
        settings: how to ask the vector index; None compares every vector.
        background: of the table.
        indexed: whether other indices may be used.

    Raises:
        ValueError: the condition cannot be used; or a hybrid search without a text, or without a full-text index.
        OSError: the table cannot be read; or the full-text index, in a hybrid search.
    """
    with explained(wish.where, dataset.schema.names):
        tables = _found(dataset, asked, wish, settings, background, indexed)
    found = [_by_vector(rows, one, background, wish) for rows, one in zip(tables, asked, strict=True)]
    if wish.direct:
        return found
    if wish.hybrid:
        found = [_with_text(dataset, hits, one, wish, indexed) for hits, one in zip(found, asked, strict=True)]
    if wish.collapse is not None or wish.diversity > 0:
        vectors = _vectors(dataset, np.unique(np.concatenate([hits.rows for hits in found])))
        found = [_spread_out(hits, vectors, wish) for hits in found]
    return [hits.take(slice(wish.offset, wish.offset + wish.k)) for hits in found]


def _found(
    dataset: Any,
    asked: Sequence[Asked],
    wish: Wish,
    settings: SearchSettings | None,
    background: Background,
    indexed: bool,
) -> list[pa.Table]:
    """What the vectors find, by query: where modalities mix the best of each, as the nearest of all may be of one.

    Each is asked for apart, too, where the nearest need not lie around the query, so that an index would look elsewhere.
    """
    query_QD = np.stack([one.vector for one in asked])
    depth = min(wish.depth, max(1, dataset.count_rows()))
    askers = {name for one in asked for name in _askers(one, background)}
    names = list(wish.modalities if wish.modalities is not None else background.vectors)
    around = settings is None or (wish.modalities is None and askers <= set(background.vectors))
    mixed = len(names) > 1 and (wish.calibrated or not around)
    apart = names if mixed or (wish.modalities is not None and len(names) == 1) else [None]

    def search(one: str | None, columns: Sequence[str] = ()) -> pa.Table:
        way = near_QD = None
        if settings is not None:
            way = settings.way(askers, one)
            near_QD = _near(asked, background, settings, one) if one is not None and way.moved else None
        condition = wish.condition([one] if one is not None else wish.modalities)
        return nearest(dataset, query_QD, depth, way, condition, indexed, columns, near_QD)

    if len(apart) == 1:
        found = search(apart[0], wish.columns if wish.direct else ())
    else:
        with ThreadPoolExecutor(len(apart)) as pool:  # the searches wait for storage, and Lance lets go of Python's lock
            found = pa.concat_tables(list(pool.map(search, apart)))
    if len(asked) == 1:
        return [found]
    return [found.filter(pc.equal(found["query"], number)) for number in range(len(asked))]


def _askers(asked: Asked, background: Background) -> Sequence[str | None]:
    """The modality that a query is of, or those that it may pass for; None where it may be anything."""
    return [asked.modality] if asked.modality is not None else background.like(asked.vector) or [None]


def _near(asked: Sequence[Asked], background: Background, settings: SearchSettings, modality: str) -> np.ndarray:
    """Where the index looks for items of a modality: where its way says so the place of a query among them, else the query."""

    def place(one: Asked) -> np.ndarray:
        askers = _askers(one, background)
        there = list(askers) == [modality] or not settings.way(askers, modality).moved
        return one.vector if there else background.among(one.vector, modality)

    return np.stack([place(one) for one in asked])


def _by_vector(rows: pa.Table, asked: Asked, background: Background, wish: Wish) -> Ranked:
    """Candidates in the order of their calibrated score, or of the cosine alone."""
    cosine_N = rows["similarity"].to_numpy()
    score_N = _scores(cosine_N, rows["modality"].to_pylist(), asked, background)
    key_N = (score_N if wish.calibrated else cosine_N).astype(np.float64)
    order_N = np.lexsort((-cosine_N, -key_N))[: wish.depth]
    hits = Ranked(rows["row"].to_numpy(), cosine_N, score_N, key_N).take(order_N)
    if "columns" not in rows.column_names:
        return hits
    return replace(hits, columns=pa.Table.from_struct_array(rows["columns"].take(order_N)))


def _scores(cosine_N: np.ndarray, modalities: Sequence[str], asked: Asked, background: Background) -> np.ndarray:
    mean_N, spread_N = background.cosines(asked.vector, modalities).T
    return standardise(cosine_N, mean_N, spread_N)


def _with_text(dataset: Any, hits: Ranked, asked: Asked, wish: Wish, indexed: bool) -> Ranked:
    """Fused with what the words of the query find in the column `text`, by reciprocal ranks."""
    if asked.text is None:
        raise ValueError(f"hybrid=True also looks for words, but the query {asked.words} has no text; add one, or leave it out")
    if full_text_index_of(dataset) is None:
        raise ValueError("hybrid=True needs a full-text index over the column text; `bindery optimize` makes it")
    by_words = _by_words(dataset, asked.text, wish, indexed)
    fused = reciprocal_rank_fusion([hits.rows.tolist(), by_words])
    known = dict(zip(hits.rows.tolist(), hits.similarity.tolist(), strict=True))
    new = _vectors(dataset, np.array([row for row in fused if row not in known], np.uint64))
    known |= {row: float(np.clip(vector @ asked.vector, -1, 1)) for row, vector in new.items()}
    score_N = np.array(list(fused.values()), np.float64)
    cosine_N = np.array([known[row] for row in fused], np.float32)
    return Ranked(np.array(list(fused), np.uint64), cosine_N, score_N.astype(np.float32), score_N)


def _by_words(dataset: Any, text: str, wish: Wish, indexed: bool) -> list[int]:
    """Row ids of the items whose texts have the words, best first."""
    try:
        found = dataset.to_table(
            columns=["_rowid", "_score"],
            full_text_query=MatchQuery(text, "text"),
            filter=wish.condition(wish.modalities),
            prefilter=True,
            limit=wish.depth,
            use_scalar_index=indexed,
        )
    except UNREADABLE as error:  # the condition was good enough for the vectors
        what = f"the full-text index of {uri_of(dataset)} cannot be read; `bindery optimize` mends it, or leave out hybrid"
        raise OSError(f"{what} ({error!s:.200})") from error
    rows: list[int] = found.sort_by([("_score", "descending"), ("_rowid", "ascending")])["_rowid"].to_pylist()
    return rows


def _spread_out(hits: Ranked, vectors: Mapping[int, np.ndarray], wish: Wish) -> Ranked:
    """Without near-duplicates, and then diverse; relevance is the key, brought to [0, 1] over the candidates."""
    if not len(hits.rows):
        return hits
    vectors_ND = np.stack([vectors[row] for row in hits.rows.tolist()])
    if wish.collapse is not None:
        kept = first_of_each(vectors_ND, wish.collapse)
        hits, vectors_ND = hits.take(kept), vectors_ND[kept]
    if wish.diversity > 0:
        least, most = hits.key.min(), hits.key.max()
        relevance_N = (hits.key - least) / max(most - least, 1e-9)
        hits = hits.take(maximal_marginal_relevance(relevance_N, vectors_ND, wish.k + wish.offset, wish.diversity))
    return hits


def _vectors(dataset: Any, rows: np.ndarray) -> dict[int, np.ndarray]:
    return dict(zip(rows.tolist(), vectors_of(rows_by_id(dataset, rows, [VECTOR])), strict=True))
