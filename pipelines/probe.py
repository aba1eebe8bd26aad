"""How much a few examples teach a linear classifier on a table's vectors. In: vectors, labels. Out: accuracies by examples.

N items, D dimension, k examples of each class.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

from encoders.errors import SpaceError

TEST_SHARE = 0.5  # of each class's sources; the rest is what examples are drawn from
MOST_STEPS = 2000
LEAST_SOURCES = 2  # of a class: one to learn from, one to be tried on


Sources = Mapping[str, Sequence[Sequence[int]]]  # class -> its sources -> their rows


@dataclass(frozen=True)
class Learnable:
    """What can be learnt from, `left_out` and `too_few` as of `Probed`; `shots` are the k that every class suffices for."""

    classes: Sources
    left_out: Sequence[str]
    shots: Sequence[int]
    too_few: Sequence[int]


@dataclass(frozen=True)
class Probed:
    """What a probe found.

    Attributes:
        classes: value -> how many items.
        shots: k -> accuracy for each seed.
        full: accuracy for each seed with everything that is not tried on.
        chance: 1 / classes.
        too_few: k that were asked for but that a class has not enough sources for.
        left_out: classes of a single source, which cannot be learnt from and tried on.
    """

    classes: Mapping[str, int]
    shots: Mapping[int, Sequence[float]]
    full: Sequence[float]
    chance: float
    too_few: Sequence[int]
    left_out: Sequence[str]


def probe(
    vectors_ND: np.ndarray, labels_N: Sequence[str], sources_N: Sequence[str], shots: Sequence[int], seeds: int
) -> Probed:
    """Multinomial logistic regression (scikit-learn's, C 1) on vectors scaled to about unit variance a dimension.

    For each seed half of each class's sources are tried on; k sources of the others, one item of each, are learnt from. Items
    of one source, as parts of a film, are never on both sides.

    Args:
        vectors_ND: unit vectors.
        labels_N: the classes.
        sources_N: what each item is of.
        shots: the k, each 1 or more.
        seeds: how many draws.

    Raises:
        SpaceError: fewer than two classes of two sources, not enough of them for any k, or numbers that make no probe.
    """
    ready = learnable(labels_N, sources_N, shots, seeds)
    classes, feasible = ready.classes, ready.shots
    scaled_ND = vectors_ND * np.sqrt(vectors_ND.shape[1])
    found: dict[int, list[float]] = {k: [] for k in feasible}
    full: list[float] = []
    for seed in range(seeds):
        pools, tried = _split(classes, seed)
        for k in feasible:
            drawn = {label: [sources[i][0] for i in range(k)] for label, sources in pools.items()}
            found[k].append(_accuracy(scaled_ND, drawn, tried))
        every = {label: [row for source in sources for row in source] for label, sources in pools.items()}
        full.append(_accuracy(scaled_ND, every, tried))
    return Probed(
        classes={label: sum(map(len, sources)) for label, sources in classes.items()},
        shots=found,
        full=full,
        chance=1 / len(classes),
        too_few=ready.too_few,
        left_out=ready.left_out,
    )


def learnable(labels_N: Sequence[str], sources_N: Sequence[str], shots: Sequence[int], seeds: int) -> Learnable:
    """Look at what a probe would learn from; arguments and errors as of `probe`."""
    if seeds < 1 or not shots or min(shots) < 1:
        raise SpaceError(f"{seeds} seeds of {list(shots)} examples; ask for at least 1 of each")
    classes, left_out = _by_class(labels_N, sources_N)
    available = min(_pool(len(sources)) for sources in classes.values())
    feasible = sorted({k for k in shots if k <= available})
    if not feasible:
        raise SpaceError(f"the smallest class has {available} sources to learn from; ask for so many examples at most")
    return Learnable(classes, left_out, feasible, sorted(set(shots) - set(feasible)))


def _by_class(labels_N: Sequence[str], sources_N: Sequence[str]) -> tuple[Sources, list[str]]:
    """Classes that can be learnt from and tried on, and the others."""
    rows_of: dict[str, dict[str, list[int]]] = {}
    for row, (label, source) in enumerate(zip(labels_N, sources_N, strict=True)):
        rows_of.setdefault(label, {}).setdefault(source, []).append(row)
    left_out = sorted(label for label, sources in rows_of.items() if len(sources) < LEAST_SOURCES)
    classes = {label: list(sources.values()) for label, sources in sorted(rows_of.items()) if label not in left_out}
    if len(classes) < 2:
        raise SpaceError(
            f"{len(classes)} classes have at least {LEAST_SOURCES} sources, a probe needs 2 of them; there are "
            f"{len(rows_of)} values in all"
        )
    return classes, left_out


def _pool(sources: int) -> int:
    """How many of so many sources are there to learn from; at least one, and at least one is not."""
    return sources - max(1, int(sources * TEST_SHARE))


def _split(classes: Sources, seed: int) -> tuple[dict[str, list[list[int]]], dict[str, list[int]]]:
    """What may be learnt from, in random order of sources and items, and the rows to be tried on."""
    draw = np.random.default_rng(seed)
    pools: dict[str, list[list[int]]] = {}
    tried: dict[str, list[int]] = {}
    for label, sources in classes.items():
        order = [list(draw.permutation(sources[i])) for i in draw.permutation(len(sources))]
        pools[label] = order[: _pool(len(order))]
        tried[label] = [row for source in order[_pool(len(order)) :] for row in source]
    return pools, tried


def _accuracy(vectors_ND: np.ndarray, learnt: Mapping[str, Sequence[int]], tried: Mapping[str, Sequence[int]]) -> float:
    model = LogisticRegression(C=1.0, max_iter=MOST_STEPS)
    rows, labels = _flat(learnt)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # one example a class is meant
        model.fit(vectors_ND[rows], labels)
    rows, labels = _flat(tried)
    return float((model.predict(vectors_ND[rows]) == np.array(labels)).mean())


def _flat(rows: Mapping[str, Sequence[int]]) -> tuple[list[int], list[str]]:
    return [row for each in rows.values() for row in each], [label for label, each in rows.items() for _ in each]
