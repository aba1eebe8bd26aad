"""The long form: as many faults as asked for, drawn by a seed. In: how many. Out: a table; exit 1 if one of them hurt.

    python tests/chaos 200 --seed 1          (make chaos POINTS=200)

Needs the packages of infra/s3 for the faults of a store; without them (or with --no-s3) those are left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import light
from draw import chains
from gateway import Gateway
from places import places
from points import Outcome, suffer
from table import markdown
from world import SEGMENTS, World

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def main() -> int:
    """Exit code: 1 if a fault hurt."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("points", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no further chain after so long")
    parser.add_argument("--no-s3", action="store_true")
    parser.add_argument("--light", action="store_true", help="without Ray and towers (light.py): seconds a point")
    parser.add_argument("--only", default="", help="one place alone: local, cluster or s3")
    parser.add_argument("--segment", default=SEGMENTS, help="of the embed job; whole is faster, and sees less")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="bindery-chaos-"))
    outcomes: list[Outcome] = []
    try:
        with nullcontext() if arguments.no_s3 else Gateway() as gateway, places(gateway, not arguments.light) as found:
            if arguments.light:
                world = World(folder, {}, "whole", light.run)
            else:
                world = World(folder, found["cluster"].environment, arguments.segment)
            drawn = chains(arguments.points, arguments.seed, [n for n in found if arguments.only in ("", n)])
            for k, (place, points) in enumerate(drawn):
                if time.monotonic() - began > 60 * arguments.minutes:
                    break
                outcomes.append(suffer(world, points, found[place], seed=arguments.seed * 10_000 + k))
                print(json.dumps({"survived": outcomes[-1].survived, **vars(outcomes[-1])}), flush=True)
                _keep(outcomes, arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return int(not outcomes or not all(outcome.survived for outcome in outcomes))


def _keep(outcomes: list[Outcome], arguments: argparse.Namespace) -> None:
    rows = [{"survived": outcome.survived, **vars(outcome)} for outcome in outcomes]
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"seed": arguments.seed, "asked_for": arguments.points, "outcomes": rows}, indent=1)
    (arguments.out / "chaos.json").write_text(text + "\n")
    (arguments.out / "chaos.md").write_text(markdown(outcomes, arguments.seed))


if __name__ == "__main__":
    sys.exit(main())
