"""The embed job, made to end itself at a named moment. In: a fault, arguments of jobs.embed. Out: its exit code, or SIGKILL.

It runs the real job in a process of its own. What it wraps are the calls that bracket a moment: they do what they always do,
are counted, and at the chosen one the process sends itself SIGKILL. Every such call and the progress go to a log, a line of
JSON each. Intervals are shortened here, because no user should shorten them.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lance
import ray
from lance.fragment import LanceFragment
from lance.optimize import Compaction

import pipelines.compaction
import pipelines.embed
import pipelines.todo
import pipelines.writer
from jobs.embed import main
from pipelines.lease import Lease
from pipelines.ledger import Ledger
from pipelines.progress import EmbedProgress
from pipelines.rejects import Rejects

COMMIT_INTERVAL_S = 0.05
COMPACT_FRAGMENTS = 2
BLOCK_SOURCES = 24


@dataclass(frozen=True)
class Moment:
    """One side of a call that the job makes; where `work` is set, calls whose first argument is empty do not count."""

    owner: Any
    call: str
    after: bool
    work: bool = False


COMPACTION = SimpleNamespace(plan=Compaction.plan, commit=Compaction.commit)  # Lance's class itself takes no wrappers
MOMENTS = {
    "lease taken": Moment(Lease, "__enter__", True),
    "table made": Moment(Ledger, "prepare", True),
    "after stage": Moment(Ledger, "commit", False, work=True),  # fragments lie in the table's folder, nothing else is done
    "while replacing": Moment(LanceFragment, "delete", True),  # the older rows' deletion file is written, not committed
    "before commit": Moment(lance.LanceDataset, "commit", False),
    "after commit": Moment(lance.LanceDataset, "commit", True),  # the answer is lost with the driver
    "before rejects": Moment(Rejects, "write", False, work=True),
    "after rejects": Moment(Rejects, "write", True, work=True),  # and before stale ones are cleared
    "before compacting": Moment(COMPACTION, "plan", False),
    "while compacting": Moment(COMPACTION, "commit", False),  # the larger fragment is written, not committed
    "after compacting": Moment(COMPACTION, "commit", True),
    "lease not given back": Moment(Lease, "__exit__", False),
}


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Log:
    """Lines of JSON that whoever watches this process reads as they come."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("a", buffering=1)  # noqa: SIM115 - open as long as the process lives

    def write(self, event: str, **more: Any) -> None:
        """One event, now."""
        self._file.write(json.dumps({"event": event, "at": time.time(), **more}) + "\n")


def _wrap(moment: Moment, before: Callable[[int], None], after: Callable[[int], None]) -> None:
    """Let a method run as it is, between two observers that are told the how-manieth call it is."""
    owner, call = moment.owner, moment.call
    static = isinstance(vars(owner)[call], staticmethod)
    original = getattr(owner, call)
    count = itertools.count(1)

    def observed(*args: Any, **kwargs: Any) -> Any:
        if moment.work and not args[1]:
            return original(*args, **kwargs)
        nth = next(count)
        before(nth)
        result = original(*args, **kwargs)
        after(nth)
        return result

    setattr(owner, call, staticmethod(observed) if static else observed)


def _arm(name: str, moment: Moment, fault: dict[str, Any], log: Log) -> None:
    """Log this moment, and die at it if it is the fault's."""

    def reached(nth: int) -> None:
        log.write(name, nth=nth)
        if fault.get("moment") == name and fault["nth"] == nth:
            _die()

    def not_yet(_: int) -> None: ...

    _wrap(moment, *((not_yet, reached) if moment.after else (reached, not_yet)))


def _log_progress(log: Log) -> None:
    original = EmbedProgress.update
    last = [0]

    def update(self: EmbedProgress, done: int, *rest: Any) -> None:
        if done > last[0]:
            log.write("rows", done=done, more=done - last[0])
            last[0] = done
        original(self, done, *rest)

    EmbedProgress.update = update  # type: ignore[method-assign]


def _small_ray(cpus: int) -> None:
    original = ray.init

    def init(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("address") == "local":
            kwargs |= {"num_cpus": cpus, "object_store_memory": 200 << 20}
        return original(*args, **kwargs)

    ray.init = init


def run(fault: dict[str, Any], argv: list[str], environment: dict[str, str], said: str) -> None:
    """In a new process: run the job there, with what it says in a file, and exit with its code, if it lives."""
    with Path(said).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    pipelines.writer.COMMIT_INTERVAL_S = COMMIT_INTERVAL_S
    pipelines.embed.COMPACT_FRAGMENTS = COMPACT_FRAGMENTS
    pipelines.todo.BLOCK_SOURCES = BLOCK_SOURCES
    log = Log(fault["log"])
    _small_ray(fault.get("cpus", 1))
    _log_progress(log)
    for name, moment in MOMENTS.items():
        _arm(name, moment, fault, log)
    pipelines.compaction.Compaction = COMPACTION
    log.write("begins")
    code = main(argv)
    log.write("ends", code=code)
    sys.exit(code)
