"""How many rows go through a tower at once. In: a forward pass for which memory may run out. Out: a number, results in pieces.

Nothing here knows a device: the forward pass tells by torch.OutOfMemoryError what does not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

FIRST_ROWS = 32  # to begin with, and for work that is too little to look for a better number
GAIN = 1.05  # twice the rows must bring so many times the rows a second: they take twice the memory

Result = TypeVar("Result")


def best_rows(seconds: Callable[[int], float], most: int) -> int:
    """The number of rows from which on more of them at once are no faster, found by doubling.

    Args:
        seconds: how long a forward pass of so many rows takes; torch.OutOfMemoryError if they do not fit.
        most: that it may be.

    Raises:
        torch.OutOfMemoryError: not even one row fits.
    """
    rows = min(FIRST_ROWS, most)
    while not (rate := _rate(seconds, rows)):
        if rows == 1:
            raise torch.OutOfMemoryError("not even one row fits")
        rows = most = rows // 2
    while 2 * rows <= most and (twice := _rate(seconds, 2 * rows)) >= GAIN * rate:
        rows, rate = 2 * rows, twice
    return rows


def in_pieces(forward: Callable[[int, int], Result], total: int, rows: int) -> tuple[list[Result], int]:
    """`forward(first, end)` of all rows in order, `rows` at once, or fewer as soon as memory runs out.

    Args:
        forward: torch.OutOfMemoryError if the rows do not fit.
        total: how many rows there are.
        rows: that go at once.

    Returns:
        The results, and how many rows went at once in the end.

    Raises:
        torch.OutOfMemoryError: not even one row fits.
    """
    done: list[Result] = []
    first = 0
    while first < total:
        end = min(first + rows, total)
        try:
            done.append(forward(first, end))
            first = end
            continue
        except torch.OutOfMemoryError:
            if end - first == 1:
                raise
        rows = (end - first) // 2  # out here, where nothing holds what the failed pass has made
        torch.cuda.empty_cache()  # somebody else on the device may need the rest
    return done, rows


def room(count: int, rows: int) -> int:
    """Rows that `count` rows are filled up to, `rows` at once: the last batch up to a power of two, so that shapes are few."""
    whole, rest = divmod(count, rows)
    return whole * rows + (min(rows, 1 << (rest - 1).bit_length()) if rest else 0)


def _rate(seconds: Callable[[int], float], rows: int) -> float:
    """Rows a second; 0 if they do not fit."""
    try:
        return rows / seconds(rows)
    except torch.OutOfMemoryError:
        return 0.0
