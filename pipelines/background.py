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
import pyarrow.compute as pc

from pipelines.damage import rows_where
from pipelines.filters import is_in
from pipelines.table import VECTOR

SAMPLE = 256  # rows a modality
OUTER = 0.01  # of a modality's items lie further out than what still counts as one of them
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
        return {m: float(np.quantile(vectors_nD @ self.means[m], OUTER)) for m, vectors_nD in self.vectors.items()}

    def like(self, query_D: np.ndarray) -> list[str]:
        """The modalities, none or several, for one of whose items it may pass: as near to their mean as all but a few are."""
        return [name for name, edge in self._edges.items() if query_D @ self.means[name] >= edge]

    def cosines(self, query_D: np.ndarray, modalities: Sequence[str]) -> np.ndarray:
        """Mean and standard deviation (N, 2) of the query's cosines with items of these N modalities.

        One that is not in the sample, as it is rare and not of the space, gets the mean of those that are.
        """
        cosines = {name: vectors_nD @ query_D for name, vectors_nD in self.vectors.items()}
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
    """Rows evenly spaced over the table, at most `count` of each modality that is met: `_rowid` and the vector."""
    total = dataset.count_rows()
    looked_at = np.linspace(0, total - 1, min(LOOKED_AT, total)).astype(np.int64)
    modality = np.array(dataset.take(looked_at.tolist(), columns=["modality"])["modality"].to_pylist(), object)
    found = {}
    for name in sorted(set(modality.tolist())):
        places = looked_at[modality == name]
        chosen = places[np.linspace(0, len(places) - 1, min(count, len(places))).astype(np.int64)]
        found[name] = dataset.take(chosen.tolist(), columns=["_rowid", VECTOR])
    return found


def vectors_of(rows: pa.Table | pa.RecordBatch) -> np.ndarray:
    """The vector column as float32 (N, D)."""
    column = rows[VECTOR]
    flat = np.asarray(pc.list_flatten(column), np.float32)
    return flat.reshape(len(column), column.type.list_size)
