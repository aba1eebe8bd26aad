"""One fault, and what became of it. In: a world, a place to write to, a point. Out: a row of the table of faults.

A point is run like this: the job starts, the fault strikes, the same command runs again until it exits 0; a reader reads all
along. Then the table must be the one of a run that nobody disturbed.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import KINDS, Process, below, of_kind, wait_ended
from proxy import Proxy, Rule, fine
from reader import Reader
from world import World, compare, state

RUN_S = 400  # longer than any run, disturbed or not, takes on a busy machine
MOST_RUNS = 8
DRIVER, NODE, SECOND = "driver", "node", "second writer"
GATEWAY, PROXY = "gateway", "proxy"
CRASHED = {"DecoderCrash", "DecoderKilled", "DecoderTimeout"}  # what a killed decoder leaves: a reject, until it is tried again


@dataclass(frozen=True)
class Point:
    """What happens when. Strikes come one after the other, from `delay_s` after the driver has logged the event `anchor`.

    Without any, the driver ends itself at a moment that `victim` names (victim.py).
    """

    fault: str
    changed: bool = False  # the table holds an older version of the corpus
    victim: dict[str, Any] = field(default_factory=dict)
    strikes: tuple[str, ...] = ()
    anchor: str = "rows"
    delay_s: float = 0.0
    rule: Callable[[], Rule] | None = None  # what the proxy does to the requests of this run


@dataclass
class Place:
    """Where the job runs and writes: the environment of its processes, what has power over the machines in it."""

    name: str = "local"
    environment: dict[str, str] = field(default_factory=dict)
    bucket: str = ""
    proxy: Proxy | None = None
    options: dict[str, str] | None = None  # of the reader, who goes past the proxy
    strikes: dict[str, Callable[[], None]] = field(default_factory=dict)
    raylets: Callable[[], list[int]] | None = None  # the pids that workers run below, where that is not the driver


@dataclass
class Outcome:
    """A row of the table."""

    fault: str
    where: str
    scenario: str
    struck: list[bool]  # of each fault, whether it came in time
    codes: list[int]  # exit codes, in order; negative: killed
    lost: int
    twice: int
    wrong: int
    rejects_wrong: int
    reader_reads: int
    reader_saw: list[str]
    embedded_again: int
    left_running: int  # processes that outlived a dead driver by 30 s
    seconds: float
    notes: list[str]

    @property
    def survived(self) -> bool:
        """The table is right, and nobody ever saw it wrong."""
        clean = all(code in (0, 3) or code < 0 for code in self.codes)
        right = not (self.lost or self.twice or self.wrong or self.rejects_wrong or self.reader_saw)
        return self.codes[-1] == 0 and clean and right


class Run:
    """One start of the command; it ends by itself, or by the fault."""

    def __init__(self, world: World, db: str, point: Point | None, place: Place, *more: str) -> None:
        self._log = world.folder / f"run-{time.monotonic_ns()}.log"
        self._log.touch()
        fault = {**(point.victim if point else {}), "log": str(self._log)}
        self._process = world.start(db, fault, place.environment, *more)
        self._world, self._db, self._point, self._place = world, db, point, place
        self._anchored: float | None = None
        self._to_come = [strike for strike in point.strikes if strike != PROXY] if point else []
        self._too_late = False
        self.struck = False
        self.left_running = 0
        self.code = 0
        self.notes: list[str] = []

    def watch(self, rng: random.Random) -> int:
        """Wait for its end, strike when it is time, see that all it has started ends with it; its exit code."""
        ours: set[Process] = set()
        deadline = time.monotonic() + RUN_S
        while self._process.is_alive():
            ours |= below(self._process.pid)
            if self._point and self._to_come:
                self._strike(self._point, rng)
            if time.monotonic() > deadline:
                self.notes.append(f"hung: killed after {RUN_S} s")
                self._process.kill()
            time.sleep(0.05)
        self._process.join()
        self.code = self._process.exitcode
        self.left_running = len(wait_ended(ours, 30))
        at_a_moment = self._point is not None and not self._point.strikes
        self.struck = self.code < 0 if at_a_moment else not self._to_come and not self._too_late
        if self.code not in (0, 3) and self.code != -9:
            self.notes.append(f"exit {self.code}: {Path(f'{self._log}.said').read_text()[-1500:]}")
        return self.code

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it has logged; the last line may not be complete yet."""
        found = []
        for line in self._log.read_text().splitlines():
            with suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    @property
    def rows(self) -> int:
        """How many sources came through the towers."""
        return sum(event["more"] for event in self.events if event["event"] == "rows")

    def _strike(self, point: Point, rng: random.Random) -> None:
        if self._anchored is None:
            if any(event["event"] == point.anchor for event in self.events):
                self._anchored = time.monotonic()
            return
        if time.monotonic() < self._anchored + point.delay_s:
            return
        strike = self._to_come[0]
        if strike == SECOND:
            other = Run(self._world, self._db, None, self._place)
            self.notes.append(f"the second writer: exit {other.watch(rng)}")
            self._too_late = other.code != 3
        elif strike in KINDS:
            owners = self._place.raylets() if self._place.raylets else [self._process.pid]
            targets = [process for owner in owners for process in of_kind(owner, strike)]
            if not targets:
                return  # not yet there
            rng.choice(targets).kill()
        elif strike == DRIVER:
            self._process.kill()
        else:
            self._place.strikes[strike]()
        self._to_come.pop(0)


@contextmanager
def _spoilt(proxy: Proxy | None, rule: Callable[[], Rule] | None) -> Iterator[Counter[str]]:
    """Let a rule hold for a while; what it did."""
    done: Counter[str] = Counter()
    if proxy is None or rule is None:
        yield done
        return
    before, proxy.rule = proxy.spoilt.copy(), rule()
    yield done
    proxy.rule = fine
    done.update(proxy.spoilt - before)


def suffer(world: World, points: list[Point], place: Place, seed: int) -> Outcome:
    """Let faults strike one run after the other, then run to the end, then look. One point, or a chain of one scenario."""
    rng = random.Random(seed)
    began = time.monotonic()
    changed = points[0].changed
    db = world.new_db(changed, place.bucket)
    runs: list[Run] = []
    with Reader(db, world.may_vanish if changed else (), place.options) as reader:
        for point in points:
            runs.append(Run(world, db, point, place))
            with _spoilt(place.proxy, point.rule) as requests:
                runs[-1].watch(rng)
            if PROXY in point.strikes:
                runs[-1].struck = bool(requests)
                runs[-1].notes.append(f"requests spoilt: {dict(requests)}")
        while runs[-1].code != 0 and len(runs) < len(points) + MOST_RUNS:
            runs.append(Run(world, db, None, place))
            runs[-1].watch(rng)
        notes = [note for run in runs for note in run.notes]
        crashed = [kind for kind in state(db).rejects.values() if kind in CRASHED]
        if crashed:
            notes.append(f"{len(crashed)} rejected as {crashed[0]}, then tried again")
            runs.append(Run(world, db, None, place, "--retry-rejects"))
            runs[-1].watch(rng)
    verdict = compare(state(db), world.expected)
    planned = world.changed if changed else world.sources
    return Outcome(
        fault=", then ".join(point.fault for point in points),
        where=place.name,
        scenario="changed" if changed else "fresh",
        struck=[run.struck for run in runs[: len(points)]],
        codes=[run.code for run in runs],
        **vars(verdict),
        reader_reads=reader.reads,
        reader_saw=sorted(reader.broken) + ([] if place.bucket else sorted(reader.errors)),
        embedded_again=max(0, sum(run.rows for run in runs) - planned),
        left_running=sum(run.left_running for run in runs),
        seconds=round(time.monotonic() - began, 1),
        notes=notes,
    )
