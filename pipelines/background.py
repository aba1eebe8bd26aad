"""What a query's cosines are like before anything is found. In: a table. Out: a sample of each modality, and what it tells.

Vectors of one modality lie in a cone of their own, so that a query's cosines with pictures and with sounds do not compare (the
modality gap). How they lie around their mean is seen on a sample. n sampled rows of a modality, D dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.damage import rows_where
from pipelines.filters import is_in
from pipelines.table import VECTOR, vectors_of

SAMPLE = 256  # rows a modality
OUTER = 0.01  # of a modality's items lie further out than what still counts as one of them
CONE = 0.25  # of the mean cosine with the mean, which the outer items of a modality keep where it lies in a cone of its own
ROUNDING = 1e-6  # of float32 unit vectors: what is shorter has no direction
LOOKED_AT = 8192  # rows whose modality is read to find them


@dataclass(frozen=True)
class Background:
    """Of one table.

    Attributes:
        rows: of the table when the sample was taken.
        vectors: unit vectors by modality, float32 (n, D), for each modality that the table holds.
    """

    rows: int
    vectors: Mapping[str, np.ndarray]

    @cached_property
    def means(self) -> dict[str, np.ndarray]:
        """The mean vector of each modality, (D,)."""
        return {name: vectors_nD.mean(axis=0) for name, vectors_nD in self.vectors.items()}

    @cached_property
    def _edges(self) -> dict[str, float]:
        edges = {m: float(np.quantile(vectors_nD @ self.means[m], OUTER)) for m, vectors_nD in self.vectors.items()}
        return {m: edge for m, edge in edges.items() if edge >= CONE * float(self.means[m] @ self.means[m])}

    def like(self, query_D: np.ndarray) -> list[str]:
        """The modalities, none or several, for one of whose items it may pass: as near to their mean as all but a few are.

        Of a modality whose own items are not all near their mean nothing can be told by that.
        """
        return [name for name, edge in self._edges.items() if query_D @ self.means[name] >= edge]

    def among(self, query_D: np.ndarray, modality: str) -> np.ndarray:
        """Where the items of a modality lie that are nearest to a query from elsewhere: its own place in their cone, norm 1.

        An index ranks its partitions by their distance, by which all those of the query's own cone come before the first of
        another. What a cosine with items of one modality depends on is what is left of the query without the means of the
        modalities; moved to their mean, that ranks their partitions as the query ranks their items.
        """
        if modality not in self.means:
            return query_D
        moved_D = query_D - self._span @ (self._span.T @ query_D) + self.means[modality]
        norm = float(np.linalg.norm(moved_D))
        return np.asarray(moved_D / norm, np.float32) if norm > ROUNDING else query_D

    @cached_property
    def _span(self) -> np.ndarray:
        """An orthonormal basis of what the means span, (D, modalities at most): means may depend on one another."""
        basis, sizes, _ = np.linalg.svd(np.stack(list(self.means.values()), axis=1), full_matrices=False)
        return np.asarray(basis[:, sizes > ROUNDING * max(1.0, sizes[0])], np.float32)

    def cosines(self, query_D: np.ndarray, modalities: Sequence[str]) -> np.ndarray:
        """Mean and standard deviation (N, 2) of the query's cosines with items of these N modalities.

        One that is not in the sample, as it is rare and not of the space, gets the mean of those that are.
        """
        names = set(modalities) if self.vectors.keys() >= set(modalities) else self.vectors.keys()
        cosines = {name: self.vectors[name] @ query_D for name in names}
        known = {name: (some_n.mean(), some_n.std()) for name, some_n in cosines.items()}
        rare = tuple(np.mean(list(known.values()), axis=0)) if known else (0.0, 1.0)
        return np.array([known.get(name, rare) for name in modalities], np.float64).reshape(-1, 2)


def measure(dataset: Any, modalities: Iterable[str]) -> Background:
    """Take a sample of a table; nothing is written.

    Args:
        dataset: a version of it.
        modalities: that it may hold.
    """
    vectors = {name: vectors_of(rows) for name, rows in sample_rows(dataset, SAMPLE).items()}
    for name in modalities:
        if name not in vectors:  # too rare to be met by chance, or not there
            rare = vectors_of(rows_where(dataset, is_in("modality", [name]), columns=[VECTOR], limit=SAMPLE))
            vectors |= {name: rare} if len(rare) else {}
    return Background(dataset.count_rows(), vectors)


def sample_rows(dataset: Any, count: int) -> dict[str, pa.Table]:
    """Rows from all over the table, at most `count` of each modality that is met: `_rowid` and the vector.

    One row by chance of each of as many equal stretches, the same at each call: at even distances what repeats in a table,
    scene by scene, would be met in step.
    """
    total, rng = dataset.count_rows(), np.random.default_rng(0)
    looked_at = _spread(rng, total, LOOKED_AT)
    modality = np.array(dataset.take(looked_at.tolist(), columns=["modality"])["modality"].to_pylist(), object)
    found = {}
    for name in sorted(set(modality.tolist())):
        places = looked_at[modality == name]
        chosen = places[_spread(rng, len(places), count)]
        found[name] = dataset.take(chosen.tolist(), columns=["_rowid", VECTOR])
    return found


def _spread(rng: np.random.Generator, total: int, count: int) -> np.ndarray:
    """Ascending numbers below `total`, one of each of `count` equal stretches; all, where these are no more."""
    if total <= count:
        return np.arange(total)
    edges = np.linspace(0, total, count + 1).astype(np.int64)
    return rng.integers(edges[:-1], edges[1:])
