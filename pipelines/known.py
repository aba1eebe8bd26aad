"""What the table already holds, small enough to keep in memory. In: id and state columns. Out: lookups of whole batches.

A source costs 16 bytes: 64 bits of its id, 64 bits of a hash of its state, in sorted runs. A run ends at RUN_IDS, so that the
memory that sorting takes besides does not grow with the table.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa

ABSENT, SAME, OTHER = 0, 1, 2  # verdicts of `Known.compare`
RUN_IDS = 1 << 24
ID_DIGITS = 32

Pair = tuple[np.ndarray, np.ndarray]  # two uint64 arrays of one length


def id_words(ids: pa.Array | pa.ChunkedArray) -> Pair:
    """Ids of 32 hex digits as two uint64 arrays: the first and the last 16 digits."""
    column = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    digits = column.cast(pa.binary()).cast(pa.binary(ID_DIGITS))  # refuses ids of other lengths
    text = memoryview(digits.buffers()[1] or b"")[ID_DIGITS * digits.offset :][: ID_DIGITS * len(digits)]
    words = np.frombuffer(unhexlify(text), ">u8").astype(np.uint64).reshape(-1, 2)
    return words[:, 0].copy(), words[:, 1].copy()  # what keeps one half must not keep the other alive


def text_hash(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """64-bit hashes of strings, row by row."""
    hashes: np.ndarray = pd.util.hash_array(texts.to_numpy(zero_copy_only=False).astype(object), categorize=False)
    return hashes


def state_hash(version: pa.Array | pa.ChunkedArray | np.ndarray, recipe: pa.Array | pa.ChunkedArray | str) -> np.ndarray:
    """64-bit hashes of version and recipe, row by row; `text_hash` of the versions may be given in place of them."""
    if isinstance(recipe, str):
        marks = text_hash(pa.array([recipe]))
    else:
        few = (recipe.combine_chunks() if isinstance(recipe, pa.ChunkedArray) else recipe).dictionary_encode()
        marks = text_hash(few.dictionary)[few.indices.to_numpy(zero_copy_only=False)]
    hashes = version if isinstance(version, np.ndarray) else text_hash(version)
    states: np.ndarray = np.bitwise_xor(hashes, marks)
    return states


class Known:
    """Sorted ids with the hash of each one's state. If an id comes twice, its first state counts."""

    def __init__(self, batches: Iterable[Pair]) -> None:
        self.runs: list[Pair] = []
        waiting: list[Pair] = []
        count = 0
        for batch in batches:
            waiting.append(batch)
            count += len(batch[0])
            if count >= RUN_IDS:
                self.runs.append(_first_of_each(waiting))
                waiting, count = [], 0
        if count:
            self.runs.append(_first_of_each(waiting))

    def compare(self, ids: np.ndarray, states: np.ndarray) -> np.ndarray:
        """For each id ABSENT, SAME (as stored, with the same state) or OTHER (stored with another state)."""
        verdicts = np.full(len(ids), ABSENT, np.uint8)
        for known, kept in reversed(self.runs):
            place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
            verdict = np.where(kept[place] == states, SAME, OTHER).astype(np.uint8)
            verdicts = np.where(known[place] == ids, verdict, verdicts)
        return verdicts

    def __len__(self) -> int:
        return sum(len(ids) for ids, _ in self.runs)


def _first_of_each(pairs: list[Pair]) -> Pair:
    """The pairs in order of their ids, each id once; the list is emptied, so that there are not three copies at a time."""
    ids, states = np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
    pairs.clear()
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    states = states[order]
    first = np.concatenate([[True], ids[1:] != ids[:-1]])
    return (ids, states) if first.all() else (ids[first], states[first])


class Seen:
    """Which ids of a listing came before, exactly: 128-bit ids in a few sorted runs that are merged as they grow."""

    def __init__(self) -> None:
        self._runs: list[Pair] = []  # high and low words, each in order of the high ones

    def add(self, high: np.ndarray, low: np.ndarray) -> np.ndarray:
        """Add a batch; True for each id that was there before, in this batch or an earlier one."""
        repeated = self.holds(high, low)
        order = np.lexsort((low, high))  # of equal ids the first comes first
        high, low = high[order], low[order]
        repeated[order[1:]] |= (high[1:] == high[:-1]) & (low[1:] == low[:-1])
        fresh = ~repeated[order]
        if fresh.any():
            self._runs.append((high[fresh], low[fresh]))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            if len(self._runs[-2][0]) + len(self._runs[-1][0]) > RUN_IDS:
                break
            self._runs[-2:] = [_merged(*self._runs[-2:])]
        return repeated

    def holds(self, high: np.ndarray, low: np.ndarray) -> np.ndarray:
        """True for each id that has been added."""
        there = np.zeros(len(high), bool)
        for run_high, run_low in self._runs:
            place = np.searchsorted(run_high, high)
            for step in range(2):  # two ids may share their high half; three never will (2^-128)
                near = np.minimum(place + step, len(run_high) - 1)
                there |= (run_high[near] == high) & (run_low[near] == low)
        return there


def _merged(one: Pair, other: Pair) -> Pair:
    order = np.argsort(np.concatenate([one[0], other[0]]), kind="stable")  # two sorted runs: a merge
    return np.concatenate([one[0], other[0]])[order], np.concatenate([one[1], other[1]])[order]
