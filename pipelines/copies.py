"""Which images are copies of each other under other names. In: the vectors a frozen tower made of them. Out: groups of rows.

Copies have the same vector but for rounding, and images that differ do not. N rows, D dimension.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

DIRECTIONS = 16  # that vectors are looked at from
CELL = 2e-3  # of them; a tower's rounding moves a vector by 1e-6, so that copies are in one cell of one grid at least
SHIFTS = (0.0, 1 / 3, 2 / 3)  # of the grids


def groups_of_copies(vectors_ND: np.ndarray) -> np.ndarray:
    """A number for each row, the same where the vectors are.

    Vectors nearer than about 2e-3 (a cosine of 1 - 2e-6) may count as the same.

    Args:
        vectors_ND: float32, of norm 1.

    Returns:
        int64 (N,), from 0.
    """
    count, dim = vectors_ND.shape
    seen_NK = vectors_ND @ np.random.default_rng(0).standard_normal((dim, DIRECTIONS), np.float32)
    cells = [np.unique(np.floor(seen_NK / CELL + shift), axis=0, return_inverse=True)[1] for shift in SHIFTS]
    nodes = np.concatenate([(1 + number) * count + cell for number, cell in enumerate(cells)])  # after the rows'
    rows, size = np.tile(np.arange(count), len(cells)), (1 + len(cells)) * count
    edges = coo_matrix((np.ones(len(rows), np.int8), (rows, nodes)), shape=(size, size))
    return np.asarray(connected_components(edges, directed=False)[1][:count], np.int64)
