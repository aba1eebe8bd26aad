"""What does an item cost besides its decoding and its tower? In: a folder. Out: benchmarks/results/overhead.json.

    .venv/bin/python -m benchmarks.overhead --folder DIR [--check]

CPU milliseconds of all processes of `jobs.embed` (driver, Ray, actors, decoding children) per picture: those of many pictures
less those of few, over their number, so that the start of a run is not among them. From it go the decoding and the forward of
the same pictures in processes that do nothing else, one a core, which keep freed memory, too. The tower costs next to
nothing, so that the rest shows. --check: exit 1 above the threshold.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks import workload
from benchmarks.synthetic import machine
from benchmarks.thresholds import missed
from encoders.embedder import Embedder
from encoders.encoder import Encoder
from encoders.space import load_space
from pipelines.embed import EmbedSettings, planner_of, prepare
from pipelines.heap import keep_freed_memory
from pipelines.known import Seen
from pipelines.stages import TENSOR_BYTES, DecodeThenEmbed

RESULT = Path(__file__).parent / "results" / "overhead.json"
FEW, MANY = 1000, 10_000
ALONE = 512  # pictures of the process that only decodes, and of the profile
PROFILED = 12  # functions
TRIES = 3
EVERY_S = 0.2


def cpu_by_process(corpus: Path, db: Path, space: str) -> dict[str, float]:
    """CPU seconds of an embed run by kind of process, each as it was last seen: none ends before the run does."""
    command = [sys.executable, "-m", "jobs.embed", str(corpus), "--db", str(db), "--space", space]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CI": "1"}
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    root, seen = psutil.Process(run.pid), {}
    while run.poll() is None:
        for process in [root, *root.children(recursive=True)]:
            try:
                with process.oneshot():
                    times, words = process.cpu_times(), process.cmdline()
                    if words:  # else it has ended
                        seen[process.pid, process.create_time()] = kind(" ".join(words)), times.user + times.system
            except (psutil.Error, ProcessLookupError):  # it has ended
                continue
        time.sleep(EVERY_S)
    assert run.returncode == 0
    total: dict[str, float] = {}
    for name, seconds in seen.values():
        total[name] = total.get(name, 0.0) + seconds
    return total


def kind(command: str) -> str:
    """What a process is."""
    known = {"decoder_child": "decoding children", "ray::MapWorker": "actors", "jobs.embed": "driver", "ray::": "other workers"}
    return next((name for words, name in known.items() if words in command), "Ray's own")


def alone_ms(corpus: Path, space: str) -> dict[str, float]:
    """CPU milliseconds a picture of a process that reads, decodes, embeds; one a core, as a busy core slows its neighbour."""
    cores = os.cpu_count() or 1
    with get_context("spawn").Pool(cores) as pool:
        each = pool.starmap(_alone_ms, [(corpus, space)] * cores, chunksize=1)
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def _alone_ms(corpus: Path, space: str) -> dict[str, float]:
    torch.set_num_threads(1)
    keep_freed_memory(TENSOR_BYTES)
    encoder = load_space(space).encoder("image")
    embedder = Embedder(encoder, workload.BATCH)
    paths = sorted(corpus.rglob("*.jpg"))[:ALONE]
    encoder.preprocess(paths[0])
    began = time.process_time()
    rows = []
    for path in paths:
        medium = encoder.decode(path.read_bytes())
        rows.append(encoder.preprocess(medium))
        encoder.describe(medium)
    decoded = time.process_time()
    for first in range(0, len(rows), workload.BATCH):
        embedder({name: np.stack([row[name] for row in rows[first : first + workload.BATCH]]) for name in encoder.features})
    ended = time.process_time()
    return {"decode": 1000 * (decoded - began) / len(rows), "forward": 1000 * (ended - decoded) / len(rows)}


def _measured(folder: Path, space: str) -> dict[str, Any]:
    """One try: a difference of sums of CPU seconds, which the machine's other guests move by a tenth."""
    shutil.rmtree(folder / "db", ignore_errors=True)
    runs = {}
    for count in (FEW, MANY):
        runs[count] = cpu_by_process(workload.jpegs(folder, count), folder / "db" / str(count), space)
    each = {name: 1000 * (s - runs[FEW].get(name, 0.0)) / (MANY - FEW) for name, s in runs[MANY].items()}
    alone = alone_ms(workload.jpegs(folder, MANY), space)
    return {
        "overhead_ms": round(sum(each.values()) - alone["decode"] - alone["forward"], 3),
        "by_process_ms": {name: round(ms, 3) for name, ms in each.items()},
        "alone_ms": {name: round(ms, 3) for name, ms in alone.items()},
        "start_cpu_s": round(sum(runs[FEW].values()) - FEW * sum(each.values()) / 1000, 1),
    }


def profile_ms(corpus: Path, space: str) -> dict[str, dict[str, float]]:
    """CPU milliseconds a picture by function, those that take most by themselves: of an actor, and of a decoding child.

    A profiler slows what it looks at, small functions most: these tell where the time goes, not how much of it there is.
    """
    prepared = prepare(EmbedSettings(corpus=str(corpus), db=str(corpus / "db"), space=space, limit=2 * ALONE))
    todo = [t for w in planner_of(prepared, None, prepared.report(""), Seen()).batches() for t in w.todo.values()]
    actor = DecodeThenEmbed(prepared.job(""))
    list(actor(todo[0].slice(0, workload.BATCH)))
    encoder = prepared.space.encoder("image")
    paths = sorted(corpus.rglob("*.jpg"))[:ALONE]
    return {
        "actor": _most(lambda: list(actor(todo[0].slice(workload.BATCH, ALONE)))),
        "decoding child": _most(lambda: _decode(encoder, paths)),
    }


def _decode(encoder: Encoder, paths: list[Path]) -> None:
    for path in paths:
        medium = encoder.decode(path.read_bytes())
        encoder.preprocess(medium)
        encoder.describe(medium)


def _most(work: Callable[[], object]) -> dict[str, float]:
    measured = cProfile.Profile(time.process_time)
    measured.runcall(work)
    each = pstats.Stats(measured).get_stats_profile().func_profiles
    first = sorted(each.items(), key=lambda one: -one[1].tottime)[:PROFILED]
    return {f"{Path(one.file_name).name}: {name}": round(1000 * one.tottime / ALONE, 4) for name, one in first}


def main() -> int:
    """Measure, write the result, print it, judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    space = workload.space(asked.folder, "instant")
    tries = sorted((_measured(asked.folder, space) for _ in range(TRIES)), key=lambda one: one["overhead_ms"])
    document = {
        "what": "CPU milliseconds a picture; overhead: all processes less decoding and forward done alone; median of tries",
        "tries_ms": [one["overhead_ms"] for one in tries],
        **tries[len(tries) // 2],
        "profile_ms": profile_ms(workload.jpegs(asked.folder, MANY), space),
        **machine(),
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))
    return int(asked.check and bool(missed(RESULT.name, document)))


if __name__ == "__main__":
    sys.exit(main())
