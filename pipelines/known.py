"""What the table already holds, small enough to keep in memory. In: id and state columns. Out: lookups of whole batches.

A source costs 16 bytes: 64 bits of its id, 64 bits of a hash of its state, in sorted arrays.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

ABSENT, SAME, OTHER = 0, 1, 2  # verdicts of `Known.compare`

_NIBBLE = np.zeros(256, np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16, dtype=np.uint8)


def id_words(ids: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Ids of 32 hex digits as two uint64 arrays: the first and the last 16 digits."""
    text = b"".join(s.encode() for s in ids.to_pylist())
    nibbles = _NIBBLE[np.frombuffer(text, np.uint8)].reshape(-1, 16, 2)
    words = (nibbles[:, :, 0] << 4 | nibbles[:, :, 1]).view(">u8").astype(np.uint64)
    return words[:, 0], words[:, 1]


def state_hash(version: pa.Array | pa.ChunkedArray, recipe: pa.Array | pa.ChunkedArray | str) -> np.ndarray:
    """64-bit hashes of version and recipe, row by row."""
    joined = pc.binary_join_element_wise(version, recipe, "\n")
    return pd.util.hash_array(joined.to_numpy(zero_copy_only=False).astype(object), categorize=False)


class Known:
    """Sorted ids with the hash of each one's state. If an id comes twice, its first state counts."""

    def __init__(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        pairs = list(batches)
        ids = np.concatenate([p[0] for p in pairs]) if pairs else np.empty(0, np.uint64)
        states = np.concatenate([p[1] for p in pairs]) if pairs else np.empty(0, np.uint64)
        self._ids, first = np.unique(ids, return_index=True)
        self._states = states[first]

    def compare(self, ids: np.ndarray, states: np.ndarray) -> np.ndarray:
        """For each id ABSENT, SAME (as stored, with the same state) or OTHER (stored with another state)."""
        if not len(self._ids):
            return np.full(len(ids), ABSENT, np.uint8)
        place = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        there = self._ids[place] == ids
        return np.where(there, np.where(self._states[place] == states, SAME, OTHER), ABSENT).astype(np.uint8)

    def __len__(self) -> int:
        return len(self._ids)


class Seen:
    """Which ids of a listing came before, exactly: 128-bit ids in a few sorted runs that are merged as they grow."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []  # each sorted, of dtype (high, low)

    def add(self, high: np.ndarray, low: np.ndarray) -> np.ndarray:
        """Add a batch; True for each id that was there before, in this batch or an earlier one."""
        keys = np.empty(len(high), [("high", np.uint64), ("low", np.uint64)])
        keys["high"], keys["low"] = high, low
        unique, first = np.unique(keys, return_index=True)
        repeated = np.ones(len(keys), bool)
        repeated[first] = False
        for run in self._runs:
            place = np.searchsorted(run["high"], high)
            for step in range(2):  # two ids may share their high half; three never will (2^-128)
                near = np.minimum(place + step, len(run) - 1)
                repeated |= run[near] == keys
        fresh = unique[~repeated[first]]
        if len(fresh):
            self._runs.append(fresh)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            last = self._runs.pop()
            self._runs[-1] = np.sort(np.concatenate([self._runs[-1], last]))
        return repeated
