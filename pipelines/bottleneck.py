"""What holds a run back, in words. In: seconds that its stages took, added over all workers. Out: a sentence, and a share.

`read` and `decode` are seconds in which decoders waited for bytes and worked on them; `tower` and `idle` those in which towers
worked and waited for decoders. They add up over processes, so only their ratios mean something.
"""

from __future__ import annotations

from collections.abc import Mapping

STAGES = ("read", "decode", "tower", "idle")
MEASURES = (*(f"_{stage}_s" for stage in STAGES), "_slots")  # columns that rows carry, of workers' seconds and batches' places
BUSY = 0.8  # of their time, from which on the towers themselves are the limit


def busy_share(seconds: Mapping[str, float]) -> float | None:
    """The share of their time in which towers worked, 0 to 1; None before any has."""
    tower, idle = seconds.get("tower", 0.0), seconds.get("idle", 0.0)
    return tower / (tower + idle) if tower > 0 else None


def verdict(seconds: Mapping[str, float]) -> str | None:
    """What to add to make the run faster; None before any tower has worked."""
    busy = busy_share(seconds)
    if busy is None:
        return None
    if busy >= BUSY:
        return f"the towers are the limit, busy {busy:.0%} of their time: more GPUs, or more CPUs where there are none, help"
    if seconds.get("read", 0.0) > seconds.get("decode", 0.0):
        return f"reading is the limit, towers are busy {busy:.0%} of their time: the store, or the way there, is too slow"
    return f"decoding is the limit, towers are busy {busy:.0%} of their time: more CPUs, or smaller media, help"
