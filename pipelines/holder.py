"""Which process holds a lease. In: nothing. Out: enough to see, on the same machine, that it is dead."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process of one machine since its last boot."""

    host: str
    pid: int
    started: str

    @classmethod
    def own(cls) -> Process:
        """This one."""
        return cls(_host(), os.getpid(), _start_time(os.getpid()))

    def dead(self) -> bool:
        """Whether it ran on this machine and runs no more."""
        return self.host == _host() and _start_time(self.pid) != self.started


def _host() -> str:
    """This machine since its last boot, and this process namespace on it (containers have their own pids)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        return socket.gethostname()
    return f"{socket.gethostname()} {boot} {namespace}"


def _start_time(pid: int) -> str:
    """When a process started, in the kernel's ticks; "" if there is none (a zombie counts as none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
