"""Which faults, when. In: how many, a seed, the places there are. Out: chains of faults, the same for the same seed.

A chain is up to three runs of one job, each with its own fault: so a fault also strikes what the one before left behind. All
but the last end the driver while there is still work to do. Classes come in turn, so that any number of points covers as many
of them as it can.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from points import DRIVER, GATEWAY, NODE, PROXY, SECOND, Point
from proxy import DROP, HALF_REQUEST, LATE_500, Ambush, Storm
from victim import MOMENTS

EARLY = [name for name in MOMENTS if "compacting" not in name and "given back" not in name]  # there is still work to do
REPEATED = ("after stage", "while replacing", "before commit", "after commit")
DELAYS = {"begins": 3.0, "lease taken": 5.0, "table made": 8.0, "rows": 1.0, "after commit": 0.5}  # event: longest delay, s
ORDER = ("cluster", "s3", "cluster", "cluster", "s3", "local", "light", "light", "light s3")
STORMS = (0.02, 0.05, 0.1)
AMBUSHES = (
    (DROP, "PUT", "media.lance/_versions"),  # the commit is there, its answer is not
    (LATE_500, "PUT", "media.lance/_versions"),
    (HALF_REQUEST, "PUT", "media.lance/_versions"),
    (DROP, "PUT", "_bindery"),  # the lease
    (DROP, "PUT", "media__rejects.lance"),
    (DROP, "PUT", "media.lance/data"),
)
Draw = Callable[[random.Random], Point]


def chains(points: int, seed: int, where: list[str]) -> Iterator[tuple[str, list[Point]]]:
    """(place, chain) until there are so many points."""
    rng = random.Random(seed)
    order = itertools.cycle([place for place in ORDER if place in where])
    last = {place: itertools.cycle(_last(place)) for place in where}
    early = itertools.cycle([*(partial(_moment, name) for name in EARLY), partial(_kill, DRIVER), partial(_kill, DRIVER)])
    drawn = 0
    while drawn < points:
        place = next(order)
        killers = [next(early)(rng) for _ in range(min(0 if place == "local" else rng.randint(1, 2), points - drawn - 1))]
        changed = rng.random() < 0.5
        chain = [*killers, next(last[place])(rng)]
        hurry = 0.1 if place.startswith("light") else 1.0  # its runs last a second
        yield place, [replace(point, changed=changed, delay_s=point.delay_s * hurry) for point in chain]
        drawn += len(chain)


def _last(place: str) -> list[Draw]:
    """The faults that a chain may end with: most of them a run is to survive."""
    if place == "local":
        return [partial(_kill, kind) for kind in ("raylet", DRIVER, "gcs")]
    if place.endswith("s3"):
        ambushes: list[Draw] = [partial(_ambush, *ambush) for ambush in AMBUSHES]
        return [draw for ambush in ambushes for draw in (_storm, ambush, partial(_kill, GATEWAY))]
    late: list[Draw] = [partial(_moment, name) for name in MOMENTS if name not in EARLY]
    kills: list[Draw] = [partial(_kill, kind) for kind in ("embedder", NODE, "decoder", "stager", SECOND)]
    if place == "light":
        return [*late, partial(_kill, SECOND), partial(_kill, DRIVER)]
    return [*kills, late[1], *kills, late[2], *kills, *late]


def _moment(name: str, rng: random.Random) -> Point:
    nth = rng.randint(1, 2) if name in REPEATED else 1
    return Point(f"driver killed {name}, {nth}", victim={"moment": name, "nth": nth})


def _kill(kind: str, rng: random.Random) -> Point:
    if kind in (DRIVER, NODE, GATEWAY):
        anchor = rng.choice(sorted(DELAYS))
    else:
        anchor = "table made" if kind in ("raylet", "gcs") else rng.choice(["table made", "rows"])
    delay_s = round(rng.uniform(0, DELAYS[anchor]), 3) if kind in (DRIVER, NODE, GATEWAY, "raylet", "gcs") else 0.0
    what = "meets the job" if kind == SECOND else "killed"
    return Point(f"{kind} {what} {delay_s} s after {anchor}", strikes=(kind,), anchor=anchor, delay_s=delay_s)


def _storm(rng: random.Random) -> Point:
    rate, seed = rng.choice(STORMS), rng.randrange(10**6)
    return Point(f"storm, {rate:.0%} of requests spoilt", strikes=(PROXY,), rule=lambda: Storm(seed, rate))


def _ambush(kind: str, method: str, words: str, rng: random.Random) -> Point:
    nth = rng.randint(1, 3)
    return Point(f"{kind}: {method} {words}, {nth}", strikes=(PROXY,), rule=lambda: Ambush(kind, method, words, (nth,)))
