"""Does memory grow with the corpus? In: nothing. Out: benchmarks/results/embed_memory.json, and the ratio of two peaks.

    .venv/bin/python -m benchmarks.embed_memory

Embeds 1,000 and then 20,000 small pictures with the demo space, each in a process of its own, and samples the whole process
tree (driver, Ray, actors, decoding children): private memory plus what lies in Ray's shared object store.
"""

from __future__ import annotations

import io
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import ray
from PIL import Image

COUNTS = (1_000, 20_000)
RESULT = Path(__file__).parent / "results" / "embed_memory.json"


def write_pictures(folder: Path, count: int) -> None:
    """So many JPEGs of 320 x 240 smooth noise, 64 different ones."""
    kinds = []
    for seed in range(64):
        coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC).save(buffer, "JPEG")
        kinds.append(buffer.getvalue())
    for k in range(count):
        path = folder / f"{k // 1000:03}" / f"{k:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kinds[k % 64])


def tree_bytes(root: psutil.Process) -> int:
    """Private memory of a process and all below it; shared memory (torch's files, the object store) not counted."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().uss
        except psutil.Error:  # it ended meanwhile
            continue
    return total


def shared_bytes() -> int:
    """What lies in shared memory on this machine: Ray's object store."""
    return psutil.disk_usage("/dev/shm").used


def measure(count: int, folder: Path) -> dict[str, float]:
    """Embed so many pictures; peaks in bytes."""
    media = folder / f"media-{count}"
    write_pictures(media, count)
    command = [sys.executable, "-m", "jobs.embed", str(media), "--db", str(folder / f"db-{count}")]
    before = shared_bytes()
    began = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    root = psutil.Process(child.pid)
    private = shared = 0
    while child.poll() is None:
        private = max(private, tree_bytes(root))
        shared = max(shared, shared_bytes() - before)
        time.sleep(0.5)
    assert child.stdout is not None
    report = json.loads(child.stdout.read().splitlines()[-1])
    assert report["embedded"] == count, report
    return {
        "items": count,
        "peak_private_bytes": private,
        "peak_shared_bytes": shared,
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    """Measure, write the result, print it."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [measure(count, Path(folder)) for count in COUNTS]
    result = {
        "what": "peak memory of an embed run, by number of pictures",
        "machine": f"{psutil.cpu_count()} CPUs, {psutil.virtual_memory().total >> 30} GiB, {platform.machine()}",
        "versions": {"python": platform.python_version(), "ray": ray.__version__},
        "runs": runs,
        "ratio_private": round(runs[-1]["peak_private_bytes"] / runs[0]["peak_private_bytes"], 3),
        "ratio_total": round(
            sum(runs[-1][k] for k in ("peak_private_bytes", "peak_shared_bytes"))
            / sum(runs[0][k] for k in ("peak_private_bytes", "peak_shared_bytes")),
            3,
        ),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
