"""What to do with what was found. In: cosines, ranks and vectors of candidates. Out: scores that compare, another order, fewer.

N candidates, D dimension, K results. Pure arithmetic, no table.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from encoders.algebra import similarity

RANK_CONSTANT = 60  # of reciprocal rank fusion, as in its paper
LEAST_SPREAD = 1e-3  # of cosines: below it all items look alike to the query, and a difference is rounding

Item = TypeVar("Item", bound=Hashable)


def standardise(cosine_N: np.ndarray, mean: np.ndarray | float, spread: np.ndarray | float) -> np.ndarray:
    """How unusual a cosine is for its pair of modalities: (cosine - mean) / spread, a z-score.

    Cosines of different modality pairs do not compare: a sentence is nearer to any other sentence than to the picture it
    describes (the modality gap: Liang et al., 2022, "Mind the gap"). Standard scores against a background of random items do.

    Args:
        cosine_N: of a query with candidates, in [-1, 1].
        mean: of the query's cosine with random items of the candidate's modality; a number, or (N,).
        spread: their standard deviation; taken as at least `LEAST_SPREAD`.

    Returns:
        float32 (N,): 0 for a random item, 3 for one that stands out.
    """
    return np.asarray((np.asarray(cosine_N, np.float64) - mean) / np.maximum(spread, LEAST_SPREAD), np.float32)


def reciprocal_rank_fusion(rankings: Iterable[Sequence[Item]]) -> dict[Item, float]:
    """One ranking from several: each gives an item 1 / (60 + its rank), rank 1 being the best; the sums decide, best first.

    Only ranks count, so that scores of different kinds (a cosine, BM25) need no common scale. Cormack, Clarke and Buettcher,
    2009, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods".

    Args:
        rankings: each best first, without repeats; an item may be missing from some.

    Returns:
        {item: score}, best first; equals in the order in which they were first met.
    """
    scores: dict[Item, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (RANK_CONSTANT + rank)
    return dict(sorted(scores.items(), key=lambda pair: -pair[1]))


def maximal_marginal_relevance(relevance_N: np.ndarray, vectors_ND: np.ndarray, k: int, diversity: float) -> np.ndarray:
    """Choose candidates one by one, each relevant and unlike those chosen before:
    argmax of (1 - diversity) * relevance - diversity * (largest cosine to a chosen one).

    Carbonell and Goldstein, 1998, "The use of MMR, diversity-based reranking".

    Args:
        relevance_N: of the candidates to the query, on the scale of cosines.
        vectors_ND: the candidates.
        k: how many to choose.
        diversity: 0 is the order of relevance alone, 1 looks at difference alone.

    Returns:
        int64 (min(k, N),), indices in the order of choice; equals in the order of the candidates.

    Raises:
        ValueError: diversity is outside [0, 1], or as for `similarity`.
    """
    if not 0 <= diversity <= 1:
        raise ValueError(f"diversity={diversity} must lie between 0 (relevance alone) and 1 (difference alone)")
    count = len(relevance_N)
    cosine_NN = similarity(vectors_ND, vectors_ND) if count else np.empty((0, 0))
    left_N, likeness_N = np.ones(count, bool), np.full(count, -np.inf)
    chosen: list[int] = []
    for _ in range(min(k, count)):
        penalty_N = likeness_N if chosen else np.zeros(count)
        value_N = (1 - diversity) * np.asarray(relevance_N, np.float64) - diversity * penalty_N
        best = int(np.where(left_N, value_N, -np.inf).argmax())
        chosen.append(best)
        left_N[best] = False
        likeness_N = np.maximum(likeness_N, cosine_NN[best])
    return np.array(chosen, np.int64)


def first_of_each(vectors_ND: np.ndarray, threshold: float) -> np.ndarray:
    """Near-duplicates collapsed: the candidates, in order, whose cosine to each one kept before is below the threshold.

    Args:
        vectors_ND: the candidates, best first.
        threshold: a cosine in (0, 1]; 0.99 drops what is all but the same.

    Returns:
        int64, the indices that stay, ascending.

    Raises:
        ValueError: the threshold is outside (0, 1], or as for `similarity`.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold of {threshold} is no cosine of near-duplicates; give one in (0, 1], such as 0.98")
    cosine_NN = similarity(vectors_ND, vectors_ND) if len(vectors_ND) else np.empty((0, 0))
    kept: list[int] = []
    for candidate in range(len(cosine_NN)):
        if not kept or cosine_NN[candidate, kept].max() < threshold - 1e-6:  # float32: the cosine of equals may be below 1
            kept.append(candidate)
    return np.array(kept, np.int64)
