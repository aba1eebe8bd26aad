"""How good vectors are, in numbers. In: unit vectors of media and texts that training has not seen. Out: scores.

N items, C classes, D dimension, B a block of queries. Every score has a chance level: say it beside the score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from encoders.space import Space

KS = (1, 5, 10)
BLOCK = 1024  # queries whose cosines with the whole gallery are in memory at a time
HEAT = 2.0  # Wang and Isola's t


def classifier(space: Space, prompts: Mapping[str, Sequence[str]]) -> np.ndarray:
    """One vector a class from words alone.

    Args:
        space: with a text encoder.
        prompts: {class: the sentences that say it}.

    Returns:
        float32 (C, D): the mean of the unit vectors of each class's sentences, normalised; in the order of `prompts`.
    """
    rows = [space.embed("text", list(sentences)).mean(axis=0) for sentences in prompts.values()]
    return np.stack([row / np.linalg.norm(row) for row in rows])


def accuracy(vectors_ND: np.ndarray, classifier_CD: np.ndarray, truth_N: Sequence[int] | np.ndarray) -> float:
    """Zero-shot accuracy: how often the nearest class is the true one; 1 / C at chance if classes are equally common."""
    return float((np.argmax(vectors_ND @ classifier_CD.T, axis=1) == np.asarray(truth_N)).mean())


def recall(
    query_ND: np.ndarray, gallery_ND: np.ndarray, ks: Sequence[int] = KS, same: Sequence[np.ndarray] = ()
) -> dict[str, float]:
    """Retrieval: how often a right row of the gallery is among the k nearest to query i: row i, or one that is the same.

    Wrong rows that are as near as the right one count as nearer, so vectors that have all fallen together score 0.

    Args:
        query_ND, gallery_ND: row i of both belong together.
        ks: how many results are looked at.
        same: arrays (N,) of numbers; rows with equal numbers in one of them answer each other, as a picture that is there
            twice does. Without them only row i answers query i.

    Returns:
        {"R@1": ..., ...} in [0, 1]; `chance_of_recall` says what chance gives.
    """
    before = [_wrong_before(block, query_ND, gallery_ND, same) for block in _blocks(len(query_ND))]
    return {f"R@{k}": float((np.concatenate(before) < k).mean()) for k in ks}


def chance_of_recall(count: int, ks: Sequence[int] = KS, same: Sequence[np.ndarray] = ()) -> dict[str, float]:
    """What `recall` is for a gallery in random order: k / N where each query has one right row, more where it has several."""
    right_N = np.concatenate([_right(block, count, same).sum(axis=1) for block in _blocks(count)]).astype(np.float64)
    chances = {}
    for k in ks:
        missed_N = np.prod([np.clip(count - right_N - i, 0, None) / max(1, count - i) for i in range(min(k, count))], axis=0)
        chances[f"R@{k}"] = float(1 - np.mean(missed_N))
    return chances


def precision_at_1(
    query_ND: np.ndarray,
    gallery_ND: np.ndarray,
    labels_N: Sequence[object] | np.ndarray,
    same: Sequence[np.ndarray] = (),
) -> float:
    """Across modalities: how often the nearest item of another scene carries the query's label.

    Row i of both arrays is the same scene, which is left out, as is what `same` (see `recall`) says is the same: the match must
    be a different one with the same label. Chance is how common the label is among the others.
    """
    labels = np.asarray(labels_N)
    hits = []
    for block in _blocks(len(query_ND)):
        cosine_BN = np.where(_right(block, len(gallery_ND), same), -np.inf, query_ND[block] @ gallery_ND.T)
        hits.append(labels[np.argmax(cosine_BN, axis=1)] == labels[block])
    return float(np.concatenate(hits).mean())


def alignment(a_ND: np.ndarray, b_ND: np.ndarray) -> float:
    """Mean squared distance of the pairs (Wang and Isola 2020, alpha 2): 0 if they coincide, 2 if they are orthogonal."""
    return float(np.mean(np.sum((a_ND - b_ND) ** 2, axis=1, dtype=np.float64)))


def uniformity(vectors_ND: np.ndarray) -> float:
    """Log of the mean of exp(-2 |x - y|^2) over all pairs of different rows (Wang and Isola 2020, t 2).

    0 where all have fallen together, towards -4 for vectors that are spread evenly over the sphere; lower is better.

    Raises:
        ValueError: fewer than two rows.
    """
    count = len(vectors_ND)
    if count < 2:
        raise ValueError(f"uniformity is of pairs of vectors; {count} make none")
    total = 0.0
    for block in _blocks(count):
        cosine_BN = np.clip(vectors_ND[block] @ vectors_ND.T, -1, 1).astype(np.float64)
        total += float(np.exp(-HEAT * (2 - 2 * cosine_BN)).sum()) - float(len(cosine_BN))  # without each row's own
    return float(np.log(total / (count * (count - 1))))


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BLOCK):
        yield slice(start, min(start + BLOCK, count))


def _right(block: slice, count: int, same: Sequence[np.ndarray]) -> np.ndarray:
    """bool (B, N): which rows of the gallery answer the block's queries."""
    right_BN = np.arange(block.start, block.stop)[:, None] == np.arange(count)
    for codes_N in same:
        right_BN |= codes_N[block, None] == codes_N
    return np.asarray(right_BN)


def _wrong_before(block: slice, query_ND: np.ndarray, gallery_ND: np.ndarray, same: Sequence[np.ndarray]) -> np.ndarray:
    """How many wrong rows are at least as near as the nearest right one, for each query of the block: int (B,)."""
    cosine_BN = query_ND[block] @ gallery_ND.T
    right_BN = _right(block, len(gallery_ND), same)
    best_B = np.where(right_BN, cosine_BN, -np.inf).max(axis=1)
    return np.asarray(((cosine_BN >= best_B[:, None]) & ~right_BN).sum(axis=1))
