"""Processes below one of ours. In: a pid. Out: those below it, by what they are; each is killed by pid, never by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

KINDS = {
    "decoder": "pipelines.decoder_child",
    "embedder": "DecodeThenEmbed",
    "stager": "ray::Stager",
    "raylet": "raylet/raylet",
    "gcs": "gcs/gcs_server",
}


@dataclass(frozen=True)
class Process:
    """One process; its start time tells it from a later one with the same pid."""

    pid: int
    started: str

    @property
    def running(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        fields = _stat(self.pid)
        return bool(fields) and fields[0] != "Z" and fields[19] == self.started

    @property
    def command(self) -> str:
        """Its command line; "" if it has ended."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""

    def kill(self) -> None:
        """SIGKILL, if it is still there."""
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def below(pid: int) -> set[Process]:
    """All processes below this one."""
    parents: dict[int, tuple[int, str]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - called ten times a second
        fields = _stat(int(name)) if name.isdigit() else []
        if fields and fields[0] != "Z":
            parents[int(name)] = int(fields[1]), fields[19]
    found = {pid}
    while more := {child for child, (parent, _) in parents.items() if parent in found} - found:
        found |= more
    return {Process(one, parents[one][1]) for one in found - {pid}}


def of_kind(pid: int, kind: str) -> list[Process]:
    """The processes of one kind below this one, oldest first."""
    return sorted((one for one in below(pid) if KINDS[kind] in one.command), key=lambda one: one.pid)


def wait_ended(processes: Iterable[Process], seconds: float) -> list[Process]:
    """Wait until these have ended; those that have not are killed and returned."""
    deadline = time.monotonic() + seconds
    left = [one for one in processes if one.running]
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = [one for one in left if one.running]
    for one in left:
        one.kill()
    return left


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
