"""How the C library holds memory. In: how much of it. Out: a process whose freed memory stays its own, or goes back at once."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h
_OLDER_MOST = 32 * 1024**2  # that older versions of glibc take; what is refused leaves them at 128 KiB for good


def keep_freed_memory(most_bytes: int) -> None:
    """Keep what is freed for the next: else each batch's memory goes back to the kernel and comes again, page by page.

    That was a fifth of a tower's time on a CPU, and a sixth of a picture's decoding. Where the C library is not glibc, nothing
    is done (mallopt(3)).

    Args:
        most_bytes: what is larger goes back as before.
    """
    mallopt = _mallopt()
    if mallopt is not None:
        if not mallopt(_M_MMAP_THRESHOLD, most_bytes):
            mallopt(_M_MMAP_THRESHOLD, min(most_bytes, _OLDER_MOST))
        mallopt(_M_TRIM_THRESHOLD, 2 * most_bytes - 1)


def give_freed_memory_back(least_bytes: int) -> None:
    """Give what is freed back to the kernel, from so many bytes on; for a process that works now and then.

    Threads share what is smaller. Where the C library is not glibc, nothing is done.
    """
    mallopt = _mallopt()
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, least_bytes)
        mallopt(_M_TRIM_THRESHOLD, 2 * least_bytes)
        mallopt(_M_ARENA_MAX, 1)


def _mallopt() -> Callable[[int, int], int] | None:
    return getattr(ctypes.CDLL(None), "mallopt", None)
