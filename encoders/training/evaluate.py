"""How good a space is, in numbers. In: unit vectors of media and texts that training has not seen. Out: shares in [0, 1].

N items, Q queries, C classes, D dimension. Every score has a chance level: say it beside the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from encoders.space import Space


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


def recall(query_ND: np.ndarray, gallery_ND: np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Retrieval: how often row i of the gallery is among the k nearest to query i; k / N at chance.

    Equals count against the query, so vectors that have all fallen together score 0.

    Returns:
        {"R@1": ..., ...}; of N items, k > N always succeeds.
    """
    similarity_NN = query_ND @ gallery_ND.T
    rank_N = (similarity_NN >= np.diag(similarity_NN)[:, None]).sum(axis=1)
    return {f"R@{k}": float((rank_N <= k).mean()) for k in ks}


def precision_at_1(query_ND: np.ndarray, gallery_ND: np.ndarray, labels_N: Sequence[object] | np.ndarray) -> float:
    """Across modalities: how often the nearest item of another scene carries the query's label.

    Row i of both arrays is the same scene, which is left out: the match must be a different one with the same label.
    Chance is how common the label is among the others.
    """
    similarity_NN = query_ND @ gallery_ND.T
    np.fill_diagonal(similarity_NN, -np.inf)
    labels = np.asarray(labels_N)
    return float((labels[np.argmax(similarity_NN, axis=1)] == labels).mean())
