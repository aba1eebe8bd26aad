"""What the table already holds, small enough to keep in memory. In: id and state columns. Out: lookups of whole batches.

A source costs 16 bytes, in sorted runs: the first 64 bits of its id, and 64 bits in which the rest of the id and a hash of the
source's state are mixed, so that two sources whose ids begin alike are never taken for one. A run ends at RUN_IDS, so that the
memory that sorting takes besides does not grow with the table.
"""

from __future__ import annotations

from binascii import unhexlify
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

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


class Batch(NamedTuple):
    """Rows of a table: the words of their ids, their states, and how many rows each id should have, where that is told."""

    words: Pair
    states: np.ndarray
    counts: np.ndarray | None = None


class _Marked(NamedTuple):
    """Rows as they are sorted: the first word of the id, the second mixed with the state, how many there should be."""

    high: np.ndarray
    marks: np.ndarray
    counts: np.ndarray | None


class Known:
    """Sorted ids with what is known of each one's state."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.runs: list[Pair] = []
        self._alike = 1  # so many ids of a run, at most, begin alike
        uneven: Counter[tuple[int, int, int]] = Counter()
        waiting: list[_Marked] = []
        count = 0
        for batch in batches:
            counts = None if batch.counts is None else batch.counts.copy()  # a view of a table's column would keep all of it
            waiting.append(_Marked(batch.words[0], batch.words[1] ^ batch.states, counts))
            count += len(batch.states)
            if count >= RUN_IDS:
                uneven.update(self._close_run(waiting))
                waiting, count = [], 0
        if count:
            uneven.update(self._close_run(waiting))
        for (high, mark, due), rows in uneven.items():
            if rows != due:  # in all runs together
                self._spoil(high, mark)

    def compare(self, words: Pair, states: np.ndarray) -> np.ndarray:
        """For each id ABSENT, SAME (as stored, with the same state and all its rows) or OTHER.

        OTHER may be an id that is not stored but begins as one does that is: that costs work, and loses nothing, as rows are
        replaced by their whole ids.
        """
        high, marks = words[0], words[1] ^ states
        verdicts = np.full(len(high), ABSENT, np.uint8)
        for known, kept in self.runs:
            first = np.searchsorted(known, high)
            for step in range(self._alike):
                place = np.minimum(first + step, len(known) - 1)
                here = known[place] == high
                verdicts[here & (verdicts == ABSENT)] = OTHER
                verdicts[here & (kept[place] == marks)] = SAME
        return verdicts

    def __len__(self) -> int:
        return sum(len(ids) for ids, _ in self.runs)

    def _close_run(self, batches: list[_Marked]) -> dict[tuple[int, int, int], int]:
        """Sort rows, each id and state once; the list is emptied, so that there are not three copies at a time.

        Returns:
            How many rows there are, by id, mark and the number there should be, where the two differ.
        """
        high = np.concatenate([batch.high for batch in batches])
        marks = np.concatenate([batch.marks for batch in batches])
        told = [batch.counts for batch in batches if batch.counts is not None]
        batches.clear()
        order = _order(high, marks)
        high = high[order]  # one after the other, so that each old one goes before the next new one comes
        marks = marks[order]
        due = np.concatenate(told)[order] if told else None
        del told, order
        first = np.append(True, (high[1:] != high[:-1]) | (marks[1:] != marks[:-1]))
        uneven = {} if due is None else _uneven(high, marks, due, first)
        if not first.all():
            high, marks = high[first], marks[first]
        again = high[1:] == high[:-1]
        if again.any():
            begins = np.flatnonzero(np.append(True, ~again))
            self._alike = max(self._alike, int(np.diff(begins, append=len(high)).max()))
        self.runs.append((high, marks))
        return uneven

    def _spoil(self, high: int, mark: int) -> None:
        """No state is that of a source whose rows are too few or too many."""
        for known, kept in self.runs:
            start, end = (np.searchsorted(known, np.uint64(high), side) for side in ("left", "right"))
            kept[start:end][kept[start:end] == np.uint64(mark)] ^= np.uint64(1)


class Seen:
    """Which ids of a listing came before, exactly: 128-bit ids in a few sorted runs that are merged as they grow."""

    def __init__(self) -> None:
        self._runs: list[Pair] = []  # high and low words, each in order of the high ones

    def __len__(self) -> int:
        return sum(len(high) for high, _ in self._runs)

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


def _uneven(high: np.ndarray, marks: np.ndarray, due: np.ndarray, first: np.ndarray) -> dict[tuple[int, int, int], int]:
    """How many rows there are of an id, mark and due number, where these differ; `first` tells where each id and mark begin."""
    if first.all():
        wrong = np.flatnonzero(due != 1)
        starts, rows = wrong, np.ones(len(wrong), int)
    else:
        starts = np.flatnonzero(first)
        rows = np.diff(starts, append=len(high))
        wrong = rows != due[starts]
        starts, rows = starts[wrong], rows[wrong]
    return {(int(high[k]), int(marks[k]), int(due[k])): int(n) for k, n in zip(starts, rows, strict=True)}


def _order(high: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """As `np.lexsort((marks, high))`, at a third of the cost where few ids come twice."""
    order = np.argsort(high)
    ordered = high[order]
    again = ordered[1:] == ordered[:-1]
    if again.any():
        several = np.append(again, False) | np.append(False, again)
        rows = order[several]
        order[several] = rows[np.lexsort((marks[rows], high[rows]))]
    return order


def _merged(one: Pair, other: Pair) -> Pair:
    order = np.argsort(np.concatenate([one[0], other[0]]), kind="stable")  # two sorted runs: a merge
    return np.concatenate([one[0], other[0]])[order], np.concatenate([one[1], other[1]])[order]
