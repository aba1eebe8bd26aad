"""Things of the demo world, seen and felt. In: how many scenes. Out: pictures, `.touch` files, `pairs.parquet`.

python examples/touch/make_pairs.py --scenes 1500 --out touched
A thing feels like itself: ridges of its own spacing and kind, hard or soft. Rain, the sea and snow make it slippery.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bindery_touch import RATE_HZ, SAMPLES, encode

from pipelines.demo_world import THINGS, Scene, caption, grid, scene
from pipelines.demo_world.files import scene_files

RIDGES_HZ = (14.0, 20.0, 28.0, 40.0, 57.0, 80.0, 113.0, 160.0)  # that a finger at its usual speed meets
FRICTION = {"rain": 0.3, "sea": 0.35, "snow": 0.15}  # 0.6 elsewhere
FIRST_SEED = 6_000_000  # of scenes that no other training uses


def touch(felt: Scene) -> np.ndarray:
    """What the finger pad feels: float32 (512, 3) at 512 Hz."""
    number = THINGS.index(felt.thing)
    kind, ridges_hz = number % 3, RIDGES_HZ[number // 3]
    draw = np.random.default_rng([felt.seed, 77])
    time_s = np.arange(SAMPLES) / RATE_HZ
    phase = 2 * math.pi * (ridges_hz * draw.uniform(0.94, 1.06) * time_s + draw.uniform())
    waves = (np.sin(phase), np.sign(np.sin(phase)) * np.abs(np.sin(phase)) ** 0.3, np.maximum(0, np.sin(phase)) ** 8)
    hardness = 20.0 + 40.0 * (number % 4)
    pressed = 1 - np.exp(-hardness * np.clip(time_s - draw.uniform(0.02, 0.1), 0, None))
    across = draw.uniform(0.7, 1.3) * pressed
    along = across * (FRICTION.get(felt.place, 0.6) * draw.uniform(0.9, 1.1) + 0.15 * waves[kind])
    shaking = 2.0 * across * waves[kind] + draw.normal(0, 0.25, SAMPLES)
    return np.stack([across, along, shaking], axis=1).astype(np.float32)


def write_pairs(folder: Path, scenes: list[Scene]) -> None:
    """Pictures and touches as files, and `pairs.parquet`: a row a scene."""
    rows = []
    for one in scenes:
        picture, data = scene_files(one, ["image"])["image"]
        felt = f"touch/{one.seed}.touch"
        for path, content in ((picture, data), (felt, encode(touch(one), RATE_HZ))):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        rows.append({"image": picture, "touch": felt, "caption": caption(one), "thing": one.thing, "place": one.place})
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")


def main() -> None:
    """Parse, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", action="store_true", help="scenes of no training, every thing in every place (144s)")
    arguments = parser.parse_args()
    scenes = (
        grid(-(-arguments.scenes // 144))[: arguments.scenes]
        if arguments.held_out
        else [scene(FIRST_SEED + i) for i in range(arguments.scenes)]
    )
    write_pairs(arguments.out, scenes)


if __name__ == "__main__":
    main()
