"""What a run would take, before it starts. In: what a source costs, resources, prices. Out: seconds, machines, money; in words.

On CPUs alone an actor has one core for its decoder and its tower, so that their seconds add up; with GPUs they work at the same
time, and the slower side is what a run takes. Reading goes on beside both.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.bottleneck import verdict
from pipelines.log import in_json, say

# Fitted to runs of benchmarks/plan_fact.py on two cores:
LOADS = 7.0  # times as long as a decoder a run takes to start: Ray, the actors and their decoders import for most of it, too
SHARE = 0.95  # of what a core does alone, when all are at work: the driver, Ray, and the memory that they share
ROW_S = 0.0002  # of a core, a row: through Ray's store and into Lance
WITHIN_H = 24.0  # machines are counted so that a run ends within these
CPU = "cpu"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A type of machine that one could rent.

    Attributes:
        name: of the type.
        cpus, gpus: of one machine; a core is taken to be as fast as one here.
        usd_an_hour: of one machine.
        tower_speedup: how many times as fast one GPU of it runs the towers as what the plan was made on, a GPU or a core.
            Without it a GPU is taken to be like the one there, and where there was none, nothing is said of it.
    """

    name: str
    cpus: int
    usd_an_hour: float
    gpus: int = 0
    tower_speedup: float | None = None

    def __post_init__(self) -> None:
        for what, value, least in (("cpus", self.cpus, 1), ("gpus", self.gpus, 0), ("usd_an_hour", self.usd_an_hour, 0)):
            if not value >= least:
                raise ValueError(f"prices: {what} {value} of {self.name!r} is no number of {least} or more; mend its line")
        if self.tower_speedup is not None and not self.tower_speedup > 0:
            raise ValueError(
                f"prices: tower_speedup {self.tower_speedup} of {self.name!r} is not above 0; mend it or leave it out"
            )


# Assumptions of 2026-11-22, as in docs/scale.md: spot machines, $0.02 a core hour, $4 a GPU hour. The config names your own.
PRICES = (
    Machine(name="16 CPUs", cpus=16, usd_an_hour=0.32),
    Machine(name="64 CPUs", cpus=64, usd_an_hour=1.28),
    Machine(name="16 CPUs, 1 GPU", cpus=16, gpus=1, usd_an_hour=4.32),
    Machine(name="192 CPUs, 8 GPUs", cpus=192, gpus=8, usd_an_hour=35.84),
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The sources of one modality, and what one of them costs on average, in seconds of a core or of the tower's device."""

    sources: int
    bytes: int
    tried: int
    would_reject: Mapping[str, int]  # of those tried, by error type
    rows: float  # that a source becomes
    read_s: float  # that its decoder waits for its bytes
    decode_s: float
    tower_s: float
    other_s: float  # to take over what was decoded, to check vectors and make rows

    @property
    def rejects(self) -> float:
        """How many sources would be rejected, if all are like those tried."""
        return self.sources * sum(self.would_reject.values()) / self.tried

    @property
    def core_s(self) -> float:
        """Of a core, without the tower."""
        return self.decode_s + self.other_s + ROW_S * self.rows

    def by_clock(self, gpus: int) -> dict[str, float]:
        """What the stages of a run measure: on CPUs alone the decoder and the tower take turns on a core, and each waits."""
        if gpus:
            return {"read": self.read_s, "decode": self.decode_s / SHARE, "tower": self.tower_s}
        both_s = min(self.core_s, self.tower_s)
        return {"read": self.read_s, "decode": (self.decode_s + both_s) / SHARE, "tower": (self.tower_s + both_s) / SHARE}


@dataclass(frozen=True)
class Offer:
    """How many machines of one type end a run within WITHIN_H, in how many hours, and what they cost.

    `with_towers` is False where only decoding can be told: a lower bound.
    """

    machine: str
    machines: int
    hours: float
    usd: float
    with_towers: bool


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run would take.

    Attributes:
        corpus: whose.
        costs: by modality.
        cpus, gpus: of the cluster, or of this machine.
        device: on which the sample's towers ran, "cpu" or a GPU's name.
        plan_s: seconds that listing and comparing took.
        load_s: seconds that a decoder took to start.
        prices: of machines.
    """

    corpus: str
    costs: Mapping[str, Cost]
    cpus: int
    gpus: int
    device: str
    plan_s: float
    load_s: float
    prices: Sequence[Machine]

    @property
    def start_s(self) -> float:
        """What a run takes beside its plan and its work."""
        return LOADS * self.load_s if self.costs else 0.0

    @property
    def work_s(self) -> float:
        """Of the resources at hand; without the towers' share where `with_towers` is False."""
        return self._work_s(self.cpus, self.gpus, self._tower_speed(self.gpus, None))

    @property
    def with_towers(self) -> bool:
        """Whether the sample's towers ran on what the run's towers will run on."""
        return self._tower_speed(self.gpus, None) is not None

    @property
    def seconds(self) -> float:
        """Of the whole run, by the clock."""
        return self.plan_s + self.start_s + self.work_s

    @property
    def bottleneck(self) -> str | None:
        """In words; None if there is nothing to do."""
        if not self.costs:
            return None
        if not self.with_towers:
            return f"the towers ran on {self.device} here, which tells nothing of theirs: plan on a node like those of the run"
        each = self.costs.values()
        sums = {stage: sum(c.sources * c.by_clock(self.gpus)[stage] for c in each) for stage in ("read", "decode", "tower")}
        return verdict({**sums, "idle": max(0.0, self.work_s * (self.gpus or self.cpus) - sums["tower"])})

    @property
    def offers(self) -> list[Offer]:
        """For each type of machine."""
        return [self._offer(machine) for machine in self.prices] if self.costs else []

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        named = ("cpus", "gpus", "device", "plan_s", "load_s", "start_s", "work_s", "seconds", "with_towers", "bottleneck")
        each = {
            modality: {
                **vars(cost),
                "core_per_s": _rate(cost.core_s),
                "tower_per_s": _rate(cost.tower_s),
                "by_clock_s": cost.by_clock(self.gpus),
            }
            for modality, cost in self.costs.items()
        }
        offers = [{**vars(offer)} for offer in self.offers]
        return rounded({**{name: getattr(self, name) for name in named}, "modalities": each, "machines": offers})  # type: ignore[no-any-return]

    def show(self) -> None:
        """On stderr, for people; in a log of JSON the sentence alone."""
        if in_json() or not self.costs:
            say(self.words, stage="plan", bottleneck=self.bottleneck)
            return
        console = Console(file=sys.stderr)
        sources = Table("modality", "sources", "MB", "tried", "bad", "decoded/s", "through the tower/s", box=None)
        for modality, cost in self.costs.items():
            numbers = f"{cost.sources:,}", f"{cost.bytes / 1e6:,.1f}", str(cost.tried), str(sum(cost.would_reject.values()))
            sources.add_row(modality, *numbers, f"{1 / cost.core_s:,.1f}", f"{1 / cost.tower_s:,.1f}")
        machines = Table("machines", f"to end in {WITHIN_H:.0f} h", "hours", "USD", box=None)
        for offer in self.offers:
            least = "" if offer.with_towers else ">= "
            machines.add_row(
                offer.machine, f"{least}{offer.machines:,}", f"{least}{offer.hours:,.2f}", f"{least}{offer.usd:,.2f}"
            )
        console.print(sources, f"Rates are of one core, and of one device of the towers: {self.device}.\n", highlight=False)
        console.print(f"{self.words}.\n", machines, highlight=False)

    @property
    def words(self) -> str:
        """The plan in one sentence."""
        if not self.costs:
            return f"{self.corpus}: nothing to embed"
        here = f"{self.cpus} CPUs" + (f" and {self.gpus} GPUs" if self.gpus else "")
        least = "" if self.with_towers else "at least "
        parts = f"{_time(self.plan_s)} to plan, {_time(self.start_s)} to start, {_time(self.work_s)} of work"
        limit = f"most of it is the start, which more machines do not shorten; of the work, {self.bottleneck}"
        limit = limit if self.start_s > self.work_s else f"{self.bottleneck}"
        return f"{self.corpus}, on the {here} at hand: {least}{_time(self.seconds)}: {parts}; {limit}"

    def _tower_speed(self, gpus: int, speedup: float | None) -> float | None:
        """Of one device of such a machine, 1 as here; None if that cannot be told."""
        if gpus:
            return speedup or (None if self.device == CPU else 1.0)
        return 1.0 if self.device == CPU else None

    def _work_s(self, cpus: int, gpus: int, tower_speed: float | None) -> float:
        total, cores = 0.0, cpus * SHARE
        for cost in self.costs.values():
            tower_s = cost.tower_s / tower_speed if tower_speed else 0.0
            if gpus:
                total += cost.sources * max(cost.read_s / cpus, cost.core_s / cores, tower_s / gpus)
            else:
                total += cost.sources * max(cost.read_s / cpus, (cost.core_s + tower_s) / cores)
        return total

    def _offer(self, machine: Machine) -> Offer:
        speed = self._tower_speed(machine.gpus, machine.tower_speedup)
        work_h = self._work_s(machine.cpus, machine.gpus, speed) / 3600
        machines = max(1, math.ceil(work_h / WITHIN_H))
        hours = work_h / machines + (self.plan_s + self.start_s) / 3600
        return Offer(machine.name, machines, hours, machines * hours * machine.usd_an_hour, speed is not None)


def _rate(seconds: float) -> float | None:
    return 1 / seconds if seconds else None


def _time(seconds: float) -> str:
    for unit, each in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * each:
            return f"{seconds / each:,.1f} {unit}"
    return f"{seconds:.1f} s"


def rounded(value: Any) -> Any:
    """Floats to five digits, at any depth: they are measured."""
    if isinstance(value, Mapping):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
