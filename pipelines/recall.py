"""How much of the truth an index finds. In: a table with an index, a target. Out: settings that reach it, recall by pair.

Recall at 10: of the ten nearest by the cosine, which a comparison with every vector tells, the share that the index finds.
Queries are items of the table, drawn evenly from each modality, and each is left out of its own answer. A query of one modality
lies outside the cloud of another, where an index is at its worst, so each pair of modalities is measured apart, and settings
must do for all of them.

Q queries, N rows, D dimension, K results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pipelines.background import sample_rows, vectors_of
from pipelines.filters import is_in
from pipelines.nearest import SearchSettings, nearest
from pipelines.table import VECTOR

K = 10
QUERIES = 32  # of each modality
BATCH_ROWS = 4096  # rows that are compared at once
REFINE = (2, 4, 8, 16, 32, 64)
RANDOM_READ = 4  # a vector fetched by itself costs so many times as much as its bytes in a row
ANY = "all"  # rows of whatever modality
ITSELF = -2.0  # below every cosine


def tune(dataset: Any, settings: SearchSettings) -> SearchSettings:
    """The cheapest settings whose recall at 10 reaches the target for every pair of modalities, with the recall measured.

    Where none does, those with every partition probed and the most candidates refined, and what they reach.

    Args:
        dataset: a version of the table, its index fresh.
        settings: of the index; `probes`, `refine` and `recall` are to be found.
    """
    queries = held_out(dataset)
    truth = exact_neighbours(dataset, queries)
    pairs = list(truth)
    tried = settings
    for probes, refine in _choices(settings):
        tried = replace(settings, probes=probes, refine=refine, recall={})
        recall = {}
        for pair in pairs:
            recall[pair] = _recall(dataset, queries[pair[0]], truth[pair], pair[1], tried)
            if recall[pair] < settings.target:
                pairs.sort(key=lambda one: one != pair)  # what fails here most likely fails next time: ask it first
                break
        else:
            return replace(tried, recall=_named(recall))
    recall = {pair: _recall(dataset, queries[pair[0]], truth[pair], pair[1], tried) for pair in truth}
    return replace(tried, recall=_named(recall))


def _choices(settings: SearchSettings) -> list[tuple[int, int]]:
    """Probes and refine factors, the cheapest first, by the bytes that they touch; the last are all that an index can do.

    A row has a bit a dimension in the index, and 32 in its vector.
    """
    probes = [
        *(1 << n for n in range(2, settings.partitions.bit_length()) if 1 << n < settings.partitions),
        settings.partitions,
    ]

    def bits_a_dimension(choice: tuple[int, int]) -> float:
        return choice[0] / settings.partitions * settings.rows + 32 * RANDOM_READ * K * choice[1]

    return sorted(((p, r) for p in probes for r in REFINE), key=bits_a_dimension)


def held_out(dataset: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Items to ask with, by modality: Lance's row ids (Q,) and unit vectors (Q, D)."""
    found = {}
    for name, rows in sample_rows(dataset, QUERIES).items():
        found[name] = (rows["_rowid"].to_numpy(), vectors_of(rows))
    return found


def exact_neighbours(
    dataset: Any, queries: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[tuple[str, str], list[set[int]]]:
    """The K nearest of every query among the rows of each modality and of all, itself left out: {(from, among): a set a query}.

    One pass over the table.
    """
    query_QD = np.concatenate([vectors for _, vectors in queries.values()])
    own_Q = np.concatenate([rows for rows, _ in queries.values()])
    best = {
        name: (np.full((len(own_Q), 0), ITSELF, np.float32), np.zeros((len(own_Q), 0), np.uint64)) for name in [*queries, ANY]
    }
    for batch in dataset.to_batches(columns=["modality", VECTOR], with_row_id=True, batch_size=BATCH_ROWS):
        cosine_QN = query_QD @ vectors_of(batch).T
        rows_N, modality_N = batch["_rowid"].to_numpy(), np.array(batch["modality"].to_pylist())
        cosine_QN[own_Q[:, None] == rows_N] = ITSELF
        for name in best:
            mine_N = np.flatnonzero(modality_N == name) if name != ANY else np.arange(len(rows_N))
            best[name] = _merged(*best[name], cosine_QN[:, mine_N], rows_N[mine_N])
    ends = np.cumsum([len(rows) for rows, _ in queries.values()])
    found = {}
    for name, (cosine_QK, rows_QK) in best.items():
        sets = [
            {row for row, c in zip(r, cs, strict=True) if c > ITSELF} for r, cs in zip(rows_QK.tolist(), cosine_QK, strict=True)
        ]
        for asker, end in zip(queries, ends.tolist(), strict=True):
            found[asker, name] = sets[end - len(queries[asker][0]) : end]
    return found


def _merged(
    cosine_QK: np.ndarray, rows_QK: np.ndarray, cosine_QN: np.ndarray, rows_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best K of what was best so far and of new rows."""
    cosine = np.concatenate([cosine_QK, cosine_QN], axis=1)
    rows = np.concatenate([rows_QK, np.broadcast_to(rows_N, cosine_QN.shape)], axis=1)
    if cosine.shape[1] <= K:
        return cosine, rows
    order = np.argpartition(-cosine, K - 1, axis=1)[:, :K]
    return np.take_along_axis(cosine, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _recall(
    dataset: Any,
    queries: tuple[np.ndarray, np.ndarray],
    truth: list[set[int]],
    among: str,
    settings: SearchSettings,
) -> float:
    own_Q, query_QD = queries
    condition = is_in("modality", [among]) if among != ANY else None
    found = nearest(dataset, query_QD, K + 1, settings, condition)
    asked, rows = found["query"].to_numpy(), found["row"].to_numpy()
    right = wanted = 0
    for number, (own, true) in enumerate(zip(own_Q.tolist(), truth, strict=True)):
        hits = [row for row in rows[asked == number].tolist() if row != own][:K]
        right, wanted = right + len(true.intersection(hits)), wanted + len(true)
    return right / wanted if wanted else 1.0


def _named(recall: Mapping[tuple[str, str], float]) -> dict[str, float]:
    return {f"{asker} > {among}": round(value, 4) for (asker, among), value in sorted(recall.items())}
