"""How much of a GPU goes into the tower? In: a machine with one. Out: benchmarks/results/gpu.json, and its numbers.

    .venv/bin/python -m benchmarks.gpu --folder DIR [--check]

ViT-H/14 with random weights, the size of ImageBind's image tower. Images a second of `jobs.embed` from files to committed rows,
without its start and end as in benchmarks/efficiency.py, over those of the tower alone: as many rows at once, on the device
already, and nothing else, before and after. Beside them what decision 15 leaves open: the tower alone compiled, and with
bfloat16 weights. Where towers are not busy, decoding is the limit: `decode_ms` of a core an image.
--check: exit 1 below the thresholds. Without a GPU: exit 2. Files in DIR are used again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import workload
from benchmarks.synthetic import machine
from benchmarks.thresholds import missed
from encoders.embedder import Embedder
from encoders.space import load_space
from pipelines.bottleneck import busy_share
from pipelines.pools import GPU_ROWS

RESULT = Path(__file__).parent / "results" / "gpu.json"
TOWER = "ViT-H-14"
COUNTS = (GPU_ROWS, 20_000)
BARE_S = 20.0


def bare_rates(space_uri: str, others: bool) -> dict[str, float]:
    """Images a second of the tower alone; `others`: compiled, and with bfloat16 weights, too. For a process of its own."""
    encoder = load_space(space_uri).encoder("image")
    noise = np.random.default_rng(0)
    features = {n: noise.integers(0, 255, (GPU_ROWS, *f.shape)).astype(f.dtype) for n, f in encoder.features.items()}
    embedder = Embedder(encoder, GPU_ROWS)
    embedder(features)  # finds how many go at once
    rows = embedder.rows_at_once(features)
    batch = {name: torch.from_numpy(values[:rows]).to(embedder.device) for name, values in features.items()}
    rates = {"rows_at_once": float(rows), "bare_per_s": _rate(embedder.tower, batch)}
    if others:
        rates["bare_compiled_per_s"] = _rate(torch.compile(embedder.tower), batch)
        rates["bare_bfloat16_weights_per_s"] = _rate(embedder.tower.bfloat16(), batch, autocast=False)
    return rates


def _rate(tower: Any, batch: dict[str, torch.Tensor], autocast: bool = True) -> float:
    rows, passes = len(next(iter(batch.values()))), 0
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        for _ in range(3):
            tower(**batch)
        torch.cuda.synchronize()
        began = time.perf_counter()
        while time.perf_counter() - began < BARE_S:
            tower(**batch)
            torch.cuda.synchronize()
            passes += 1
    return rows * passes / (time.perf_counter() - began)


def measure(folder: Path) -> dict[str, Any]:
    """The tower alone, the whole command over few and over many sources, the tower alone again."""
    space = workload.space(folder, TOWER)
    corpora = {count: workload.jpegs(folder, count) for count in COUNTS}
    shutil.rmtree(folder / "db", ignore_errors=True)
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:  # a process each, so that the device is free in between
        before = pool.apply(bare_rates, (space, True))
        walls, seconds = {}, {}
        for count, corpus in corpora.items():
            walls[count], report = workload.embed_s(corpus, folder / "db" / str(count), space)
            seconds = report["seconds_by_stage"]
            assert report["embedded"] == count, report
        after = pool.apply(bare_rates, (space, False))
    few, many = COUNTS
    per_s = (many - few) / (walls[many] - walls[few])
    bare = (before["bare_per_s"] + after["bare_per_s"]) / 2
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "sources": many,
        **{name: round(rate, 1) for name, rate in before.items()},
        "bare_again_per_s": round(after["bare_per_s"], 1),
        "per_s": round(per_s, 1),
        "efficiency": round(per_s / bare, 3),
        "start_and_end_s": round(walls[few], 1),
        "towers_busy": round(busy_share(seconds) or 0.0, 3),
        "decode_ms": round(1000 * seconds["decode"] / many, 3),
        "decoders_per_s": round((os.cpu_count() or 1) * many / (seconds["read"] + seconds["decode"]), 1),
        "seconds_by_stage": seconds,
        **machine(),
    }


def main() -> int:
    """Measure, write the result, print it, judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu: torch finds no CUDA device here; run it on a machine with a GPU", file=sys.stderr)
        return 2
    asked.folder.mkdir(parents=True, exist_ok=True)
    run = measure(asked.folder)
    what = "files to committed rows, over the tower alone on the same GPU"
    document = {"what": what, "run": run}
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(run))
    return int(asked.check and bool(missed(RESULT.name, document)))


if __name__ == "__main__":
    sys.exit(main())
