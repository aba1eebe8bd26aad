"""Make the demo world as ordinary files, to embed and search: python -m jobs.make_demo --scenes 200 --out demo

In: how many scenes, where to. Out: media files, `manifest.parquet`, `pairs.parquet`, a report.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import track

from jobs.config import DryRun, JsonReport, planned, run_job
from pipelines.demo_world import MODALITIES, Scene, corpus_metadata, grid, scene, write_corpus
from pipelines.demo_world.corpus import check_modalities, process_count
from pipelines.demo_world.files import scene_files
from pipelines.demo_world.scene import DEMO_SEED, HELD_OUT_SEED, ROUND
from pipelines.log import say

WORLD = "1"  # rises when the same seed comes to look or sound different
KEY = "bindery.demo"
TRIED = 4  # scenes, for a dry run


@dataclass(frozen=True, kw_only=True)
class MakeDemoConfig(DryRun):
    """Write the demo world as ordinary files.

    Args:
        scenes: how many scenes; with held_out a multiple of 144.
        out: where to, a folder or URI.
        modalities: what to write of each scene, separated by commas.
        first_seed: the first scene's seed, the others follow; by default 8000000, with held_out 9000000.
        held_out: every thing in every place equally often, from scenes that nothing is trained on.
    """

    scenes: int
    out: str
    modalities: str = ",".join(MODALITIES)
    first_seed: int | None = None
    held_out: bool = False


def make_demo(config: MakeDemoConfig) -> JsonReport:
    """Write the corpus, unless it is there already.

    Raises:
        ValueError: arguments that make no corpus, or another corpus is in the way.
    """
    modalities = [name.strip() for name in config.modalities.split(",")]
    check_modalities(modalities)
    first_seed = config.first_seed if config.first_seed is not None else HELD_OUT_SEED if config.held_out else DEMO_SEED
    scenes = _scenes(config, first_seed)
    asked = {"scenes": config.scenes, "first_seed": first_seed, "held_out": config.held_out, "modalities": modalities}
    wanted = json.dumps({"world": WORLD, **asked}, sort_keys=True)
    there = corpus_metadata(config.out)
    if there is not None and there.get(KEY) != wanted:
        raise ValueError(
            f"{config.out} holds another corpus ({there.get(KEY, 'not made by this job')}) than the one asked for ({wanted}): "
            "choose another folder, or delete that one"
        )
    values = {"out": config.out, **asked, "files": config.scenes * len(modalities), "already_there": there is not None}
    if config.dry_run:
        return planned("make_demo", {**values, **(_measured(config.scenes, modalities) if there is None else {"seconds": 0.0})})
    started = time.monotonic()
    if there is None:
        shown = track(scenes, "scenes", config.scenes, console=Console(file=sys.stderr), disable=not sys.stderr.isatty())
        write_corpus(config.out, shown, modalities, metadata={KEY: wanted})
    else:
        say(f"{config.out} already holds this corpus; nothing to do")
    return JsonReport({**values, "seconds": round(time.monotonic() - started, 1)})


def _measured(scenes: int, modalities: Sequence[str]) -> dict[str, Any]:
    """Bytes of all scenes, and the seconds that they take on this machine's cores, after a few that are made in memory."""
    scene_files(scene(DEMO_SEED), modalities)  # what is made once for all is no cost of a scene
    tried, began = min(TRIED, scenes), time.perf_counter()
    made = [scene_files(scene(DEMO_SEED + number), modalities) for number in range(1, tried + 1)]
    scene_s, cores = (time.perf_counter() - began) / tried, process_count()
    return {
        "bytes": sum(len(content) for files in made for _, content in files.values()) * scenes // tried,
        "tried": tried,
        "cores": cores,
        "seconds": round(scene_s * scenes / cores, 1),
        "bottleneck": "drawing the scenes",
    }


def _scenes(config: MakeDemoConfig, first_seed: int) -> Iterable[Scene]:
    if config.scenes < 1:
        raise ValueError(f"--scenes is {config.scenes}: ask for at least 1")
    if first_seed < 0:
        raise ValueError(f"--first-seed is {first_seed}: a scene's seed is 0 or more")
    if not config.held_out:
        return (scene(first_seed + i) for i in range(config.scenes))
    if config.scenes % ROUND:
        raise ValueError(f"--scenes is {config.scenes}: held-out scenes come in rounds of {ROUND}, one per thing and place")
    return grid(config.scenes // ROUND, first_seed)


def main(argv: Sequence[str] | None = None) -> int:
    """The verb."""
    return run_job(MakeDemoConfig, make_demo, argv)


if __name__ == "__main__":
    sys.exit(main())
