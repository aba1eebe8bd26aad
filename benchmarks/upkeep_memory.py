"""Does compaction keep its bound of memory? In: nothing. Out: benchmarks/results/upkeep_memory.json, and the worst excess.

    .venv/bin/python -m benchmarks.upkeep_memory

Makes tables of small fragments (512-d vectors, previews of 3 or 60 KB) of several sizes, compacts a copy of each as
`jobs.optimize` does, with several bounds, each in a process of its own, and takes the peak of its resident memory, less
that of a dry run of the job, which is the program itself with its libraries. Indices are not built: they are outside the bound.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lance
import numpy as np
import psutil
import pyarrow as pa

from pipelines.table import create_table, table_uri

DIM = 512
COMPACT = """
import json, sys, jobs.optimize
from pipelines.compaction import Tidied, compact
tidied = Tidied()
compact(sys.argv[1], int(sys.argv[2]), lambda: None, tidied)
print(json.dumps(vars(tidied)))
"""
TABLES = ((50_000, 3_000), (200_000, 3_000), (10_000, 60_000))  # rows, bytes of a preview
FRAGMENTS = 40
BOUNDS_MB = (512, 2048)
RESULT = Path(__file__).parent / "results" / "upkeep_memory.json"
SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("uri", pa.string()),
        pa.field("preview", pa.binary()),
        pa.field("vector", pa.list_(pa.float32(), DIM), nullable=False),
    ]
)


def make_table(db: Path, rows: int, preview_bytes: int) -> int:
    """A table of so many rows in small fragments; its size in bytes."""
    rng = np.random.default_rng(0)
    uri = table_uri(str(db), "media")
    create_table(uri, SCHEMA)
    each = rows // FRAGMENTS
    for k in range(FRAGMENTS):
        ids = [f"{n:032x}" for n in range(k * each, (k + 1) * each)]
        noise = rng.integers(0, 256, each * preview_bytes, np.uint8).tobytes()
        previews = pa.array([noise[n * preview_bytes : (n + 1) * preview_bytes] for n in range(each)], pa.binary())
        values = pa.array(rng.normal(size=each * DIM).astype(np.float32))
        vectors = pa.FixedSizeListArray.from_arrays(values, DIM)
        uris = [f"s3://bucket/media/{one}.jpg" for one in ids]
        lance.write_dataset(pa.table([ids, ids, uris, previews, vectors], schema=SCHEMA), uri, mode="append")
    return sum(path.stat().st_size for path in Path(uri).rglob("*.lance"))


def run(*arguments: str) -> tuple[dict[str, Any], int]:
    """What a program prints last, and its peak of resident memory in MiB."""
    command = [sys.executable, *arguments]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak_kb = 0
    while child.poll() is None:  # not by rusage, which counts what this process had when it forked
        status = Path(f"/proc/{child.pid}/status").read_text()
        peak_kb = max([peak_kb, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.02)
    assert child.returncode == 0 and child.stdout is not None
    return json.loads(child.stdout.read().splitlines()[-1]), peak_kb // 1024


def measure(db: Path, bound_mb: int, program_mb: int) -> dict[str, float]:
    """Compact the table in a process of its own."""
    began = time.monotonic()
    done, peak_mb = run("-c", COMPACT, table_uri(str(db), "media"), str(bound_mb))
    assert done["fragments_removed"] == FRAGMENTS, done
    return {
        "bound_mb": bound_mb,
        "taken_mb": peak_mb - program_mb,
        "program_mb": program_mb,
        "fragments": done["fragments_added"],
        "seconds": round(time.monotonic() - began, 3),
    }


def main() -> None:
    """Measure, write the result, print it."""
    runs = []
    for rows, preview_bytes in TABLES:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "made"
            size = make_table(made, rows, preview_bytes)
            _, program_mb = run("-m", "jobs.optimize", "--db", str(made), "--dry-run")
            for bound_mb in BOUNDS_MB:
                copy = Path(folder) / f"copy-{bound_mb}"
                shutil.copytree(made, copy)
                runs.append(
                    {
                        "rows": rows,
                        "preview_bytes": preview_bytes,
                        "table_mb": size >> 20,
                        **measure(copy, bound_mb, program_mb),
                    }
                )
                shutil.rmtree(copy)
                print(json.dumps(runs[-1]), file=sys.stderr)
    result = {
        "what": "peak resident memory of jobs.optimize less that of its dry run, by size of table and bound",
        "machine": f"{psutil.cpu_count()} CPUs, {psutil.virtual_memory().total >> 30} GiB, {platform.machine()}",
        "versions": {"python": platform.python_version(), "lance": lance.__version__},
        "runs": runs,
        "worst_share_of_bound": round(max(one["taken_mb"] / one["bound_mb"] for one in runs), 3),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({"worst_share_of_bound": result["worst_share_of_bound"]}))


if __name__ == "__main__":
    main()
