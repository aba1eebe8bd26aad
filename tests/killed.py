"""A job that is killed while it holds its table. In: a command, how long it may hold it. Out: only what it did until then."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def kill_holder(command: Sequence[str], db: Path, after_s: float) -> None:
    """Start a job on table `media` of a database, and kill it so long after it got the lease; it may have ended in between."""
    lease = db / "_bindery" / "media"
    held_before = {epoch.name for epoch in lease.glob("epoch-*")}
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # by name: a new holder clears the epochs before its own, so that their count stays
    while child.poll() is None and {epoch.name for epoch in lease.glob("epoch-*")} <= held_before:
        time.sleep(0.01)
    assert child.poll() is None, "it ended before it held the table, or within ten milliseconds"
    time.sleep(after_s)
    child.kill()
    child.wait()
