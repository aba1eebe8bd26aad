"""What a process frees it has for the next, and what is too large for that goes back; or all goes back at once."""

from __future__ import annotations

import subprocess
import sys

FAULTS = """
import resource, sys
import numpy as np
from pipelines.heap import give_freed_memory_back, keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory(64 << 20)
if sys.argv[1] == "give":
    np.ones(24 << 20, np.uint8)  # from a freed piece as large as this on glibc would keep smaller ones by itself
    give_freed_memory_back(64 << 10)
elif sys.argv[1] == "neither":
    np.ones(24 << 20, np.uint8)
for _ in range(3):
    np.ones(int(sys.argv[2]), np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(int(sys.argv[2]), np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, size: int) -> int:
    """Pages that come from the kernel while an array of so many bytes is made and freed ten times."""
    command = [sys.executable, "-c", FAULTS, how, str(size)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def test_freed_memory_is_used_again_and_large_pieces_go_back() -> None:
    size = 40 << 20
    assert faults("keep", size) < 100 < faults("plain", size)
    assert faults("keep", 2 * size) > 100


def test_what_works_now_and_then_gives_back_what_glibc_would_keep() -> None:
    size = 1 << 20
    assert faults("neither", size) < 100 < faults("give", size)
