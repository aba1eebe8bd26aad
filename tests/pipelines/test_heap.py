"""What a process frees it has for the next, and what is too large for that goes back."""

from __future__ import annotations

import subprocess
import sys

FAULTS = """
import resource, sys
import numpy as np
from pipelines.heap import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory(64 << 20)
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
