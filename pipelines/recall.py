"""How much of the truth an index finds. In: a table with an index, a target. Out: settings that reach it, recall by pair.

Recall at 10: of the ten nearest by the cosine, which a comparison with every vector tells, the share that the index finds.
Queries are items of the table, drawn evenly from each modality, and each is left out of its own answer. A query of one modality
lies outside the cloud of another, where an index is at its worst, so each pair of modalities is measured apart, and gets a way
to be asked of its own.

Q queries, N rows, D dimension, K results.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from pipelines.background import measure, sample_rows
from pipelines.filters import is_in
from pipelines.nearest import ANY, K, SearchSettings, Way, nearest
from pipelines.table import VECTOR, vectors_of

RULE = 2  # rises when what `tune` finds changes, so that tables are tuned anew
QUERIES = 48  # of each modality
FRESH = 2  # times as much as items do, and more, fresh queries were seen to miss: see docs/decisions/0016
CHEAP = 0.1  # of what the probing costs: candidates that are compared for so little are compared
BATCH_ROWS = 4096  # rows that are compared at once
LEAST_PROBES = 16
REFINE = (4, 8, 16, 32, 64)
FAIR = 16  # of these: beyond it more partitions are tried first
SAMPLED = 256  # rows a partition that Lance trains an index on
TIE = 1e-5  # cosines that differ by less are equal: copies, and the last digits of another order of sums
ITSELF = -2.0  # below every cosine


def tune(dataset: Any, settings: SearchSettings) -> SearchSettings:
    """For every pair of modalities the cheapest way to ask whose recall at 10 should reach the target, and that recall.

    What people ask with is less like the items of a table than these are like each other, so items are to miss half of what may
    be missed, and no way is cheaper than the least probes and candidates. Where no way does, every partition is probed and the
    most candidates refined; more of them than needed, where they cost next to nothing. An index that was trained on all rows,
    those that ask among them, finds these too easily; a small table can afford twice as many of both. Between two modalities
    the query is moved into the cone of what is looked for, where the index puts candidates in an order that is only nearly
    right, so that more of them are compared at least; if that does not reach the target, it asks from where it lies.

    Args:
        dataset: a version of the table, its index fresh.
        settings: of the index; its ways are to be found.
    """
    queries = held_out(dataset)
    truth = exact_neighbours(dataset, queries)
    background = measure(dataset, queries)
    ways = {}
    for (asker, among), true in sorted(truth.items()):
        apart = among not in (asker, ANY)
        moved_QD = np.stack([background.among(query_D, among) for query_D in queries[asker][1]]) if apart else None
        recall = partial(_recall, dataset, queries[asker], moved_QD, true, among)
        tried = [_cheapest(settings, recall, moved=True)] if apart else []
        if not tried or not _enough(settings, tried[0].recall or 0.0):  # modalities that lie in no cones of their own
            tried.append(_cheapest(settings, recall))
        ways[f"{asker} > {among}"] = max(tried, key=lambda way: way.recall or 0.0)
    return replace(settings, ways=ways, rule=RULE)


def _enough(settings: SearchSettings, recall: float) -> bool:
    """Whether items find so many that fresh queries will reach the target."""
    return 1 - recall <= (1 - settings.target) / FRESH


def _cheapest(settings: SearchSettings, recall_of: Callable[[Way], np.ndarray], moved: bool = False) -> Way:
    """The fewest partitions that do when a fair number of candidates are refined, else the most; then the fewest candidates.

    Args:
        settings: of the index.
        recall_of: of each query, asked in a way.
        moved: into the cone of what is looked for.
    """
    last, least = settings.partitions, FAIR if moved else REFINE[0]
    steps = (round(LEAST_PROBES * 2 ** (n / 2)) for n in range(2 * last.bit_length()))
    probes = [*(step for step in steps if step < last), last]

    @cache
    def measured(way: Way) -> float:
        recall_Q = recall_of(way)
        return float(recall_Q.mean()) if len(recall_Q) else 1.0

    def enough(probes: int, refine: int) -> bool:
        return _enough(settings, measured(Way(probes, refine, moved=moved)))

    fewest, refine = probes[0], least
    if not enough(fewest, refine):
        most = FAIR if enough(last, FAIR) else REFINE[-1]
        fewest = probes[min(bisect_left(probes[:-1], True, key=lambda p: enough(p, most)), len(probes) - 1)]
        candidates = [r for r in REFINE if least <= r < most]
        refine = [*candidates, most][bisect_left(candidates, True, key=lambda r: enough(fewest, r))]
    probing = settings.cost(Way(fewest, 0))
    refine = max(refine, *(r for r in REFINE if settings.cost(Way(0, r)) <= CHEAP * probing), 0)
    if settings.rows <= SAMPLED * last:
        fewest, refine = min(last, 2 * fewest), min(REFINE[-1], 2 * refine)
    best = Way(fewest, refine, moved=moved)
    return replace(best, recall=round(measured(best), 4))


def held_out(dataset: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Items to ask with, by modality: Lance's row ids (Q,) and unit vectors (Q, D)."""
    found = {}
    for name, rows in sample_rows(dataset, QUERIES).items():
        found[name] = (rows["_rowid"].to_numpy(), vectors_of(rows))
    return found


def exact_neighbours(
    dataset: Any, queries: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[tuple[str, str], list[np.ndarray]]:
    """Cosines of the K nearest of every query among the rows of each modality and of all, itself left out.

    One pass over the table. {(from, among): an array of K at most for each query}.
    """
    query_QD = np.concatenate([vectors for _, vectors in queries.values()])
    own_Q = np.concatenate([rows for rows, _ in queries.values()])
    best = {name: np.full((len(own_Q), 0), ITSELF, np.float32) for name in [*queries, ANY]}
    for batch in dataset.to_batches(columns=["modality", VECTOR], with_row_id=True, batch_size=BATCH_ROWS):
        cosine_QN = query_QD @ vectors_of(batch).T
        rows_N, modality_N = batch["_rowid"].to_numpy(), np.array(batch["modality"].to_pylist())
        cosine_QN[own_Q[:, None] == rows_N] = ITSELF
        for name in best:
            mine_N = np.flatnonzero(modality_N == name) if name != ANY else np.arange(len(rows_N))
            best[name] = _largest(np.concatenate([best[name], cosine_QN[:, mine_N]], axis=1))
    ends = np.cumsum([len(rows) for rows, _ in queries.values()]).tolist()
    return {
        (asker, name): [row_K[row_K > ITSELF] for row_K in cosine_QK[end - len(queries[asker][0]) : end]]
        for name, cosine_QK in best.items()
        for asker, end in zip(queries, ends, strict=True)
    }


def _largest(cosine_QN: np.ndarray) -> np.ndarray:
    """The K largest of each row, or all (Q, K)."""
    return cosine_QN if cosine_QN.shape[1] <= K else -np.partition(-cosine_QN, K - 1, axis=1)[:, :K]


def _recall(
    dataset: Any,
    queries: tuple[np.ndarray, np.ndarray],
    moved_QD: np.ndarray | None,
    truth: list[np.ndarray],
    among: str,
    way: Way,
) -> np.ndarray:
    """Of each query that has a true neighbour the share that is found (Q,); of copies one is as good as another."""
    own_Q, query_QD = queries
    condition = is_in("modality", [among]) if among != ANY else None
    found = nearest(dataset, query_QD, K + 1, way, condition, near_QD=moved_QD if way.moved else None)
    asked, rows, cosine = (found[name].to_numpy() for name in ("query", "row", "similarity"))
    shares = []
    for number, (own, true_K) in enumerate(zip(own_Q.tolist(), truth, strict=True)):
        hits = cosine[(asked == number) & (rows != own)][: len(true_K)]
        shares += [int((hits >= true_K.min() - TIE).sum()) / len(true_K)] if len(true_K) else []
    return np.array(shares)
