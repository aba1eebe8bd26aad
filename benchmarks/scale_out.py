"""What do more nodes give, and where does one driver end? In: numbers of nodes. Out: benchmarks/results/scale_out.json.

    .venv/bin/python -m benchmarks.scale_out [--nodes 1 2 4 8 16] [--batches 60] [--check]

**Nodes.** `jobs.embed` on a simulated cluster (`ray.cluster_utils.Cluster`) of nodes of one CPU each, with a tower that sleeps
a second a batch, over tiny texts: what is missing is what the program and Ray take, as long as this machine is not the limit,
which its busy share tells. Efficiency: items a second over those of so many sleeping towers alone, from when the last actor has
begun to when the first has nothing left to do, by the towers' own notes. Nodes that would not fit into memory are left out.

**Driver and committer.** Blocks of 128 ready rows of 512 dimensions, which cost their actor next to nothing, go through Ray
Data, the writer and commits into a table on a local disk. Items by the clock, with all of it on this machine, and for each CPU
second of the driver, which is one process, and of the actor that writes fragments. --check: exit 1 below the thresholds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import ray
import torch
from ray.cluster_utils import Cluster

from benchmarks.synthetic import BUCKET, block, machine, space_of
from benchmarks.thresholds import missed
from encoders.embedder import Embedder
from encoders.encoder import build_encoder, seeded_tower
from encoders.space import Space, load_space, space_fingerprint, trained
from pipelines.cluster import start_ray
from pipelines.lease import Lease
from pipelines.ledger import Ledger
from pipelines.rejects import Rejects
from pipelines.report import Tally
from pipelines.table import item_schema, table_uri
from pipelines.todo import entries
from pipelines.writer import Writer

RESULT = Path(__file__).parent / "results" / "scale_out.json"
BATCH, ITEM_S = 32, 1 / 32  # items of a batch, as on CPUs; seconds that a tower sleeps for each
STORE_BYTES = 100 << 20  # Ray's, of a node
SPARE_BYTES = 2 << 30  # of memory, that must be left
BLOCK_ROWS, BLOCKS, DIM = 128, 4000, 512


def sleeping_space(folder: Path) -> Space:
    """A space of one encoder, and the package that brings it, which every process that starts now finds."""
    packages, log = folder / "packages", folder / "log"
    info = packages / "bindery_sleeping-1.dist-info"
    for place in (info, log):
        place.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bindery-sleeping\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[bindery.encoders]\nsleeping = benchmarks.sleeping_tower\n")
    root = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, str(packages), os.environ.get("PYTHONPATH", "")])
    sys.path.append(str(packages))
    encoder = build_encoder("benchmarks/sleeping", {"item_s": ITEM_S, "log": str(log)})
    made = trained(encoder, seeded_tower(encoder, 0), 10.0, {}, torch.float32)
    return Space("sleeping", made.dim, space_fingerprint(made.fingerprint, made.dim), "", {"text": made}).save(folder / "space")


def alone(space: Space) -> float:
    """Items a second of one sleeping tower and nothing else."""
    embedder, features = Embedder(space.encoder("text"), BATCH), {"byte": np.zeros((BATCH, 1), np.int64)}
    embedder(features)
    began = time.perf_counter()
    for _ in range(5):
        embedder(features)
    return 5 * BATCH / (time.perf_counter() - began)


def texts(folder: Path, count: int) -> Path:
    """So many files of one text; other names of the same file."""
    folder.mkdir()
    (folder / "text").write_text("text")
    for k in range(count):
        path = folder / "texts" / f"{k // 1000:03}" / f"{k:06}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(folder / "text")
    return folder / "texts"


def embed_on(nodes: int, batches: int, space: Space, folder: Path) -> dict[str, Any]:
    """`jobs.embed` on so many nodes, so many batches each; rates, and what it took of this machine."""
    corpus = texts(folder / f"media-{nodes}", nodes * batches * BATCH)
    log = folder / "log"
    for file in log.iterdir():
        file.unlink()
    free = psutil.virtual_memory().available
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        command = [sys.executable, "-m", "jobs.embed", str(corpus), "--db", str(folder / f"db-{nodes}"), "--space", space.uri]
        driver = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "RAY_ADDRESS": cluster.address, "CI": "1"}
        )
        samples, peak = [], 0  # of the machine's CPUs and the driver's: time, share, seconds
        process = psutil.Process(driver.pid)
        while driver.poll() is None:
            times = process.cpu_times()
            samples.append((time.time(), psutil.cpu_percent(), times.user + times.system))
            peak = max(peak, free - psutil.virtual_memory().available)
            time.sleep(0.5)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]
    assert driver.stdout is not None
    report = json.loads(driver.stdout.read().splitlines()[-1])
    assert driver.returncode == 0 and report["embedded"] == nodes * batches * BATCH, report
    towers = [[tuple(map(float, line.split())) for line in file.read_text().splitlines()] for file in log.iterdir()]
    assert len(towers) == nodes, "an actor a node"
    first, last = max(tower[0][0] for tower in towers), min(tower[-1][1] for tower in towers)
    during = [(share, cpu) for at, share, cpu in samples if first <= at <= last]
    rate = sum(_items_within(first, last, tower) for tower in towers) / (last - first)
    return {
        "nodes": nodes,
        "per_s": round(rate, 1),
        "window_s": round(last - first, 1),
        "start_s": round(first - samples[0][0], 1),
        "machine_busy_share": round(float(np.mean([share for share, _ in during])) / 100, 3),
        "driver_cpu_ms_per_item": round(1000 * (during[-1][1] - during[0][1]) / (rate * (last - first)), 3),
        "peak_memory_gib": round(peak / 2**30, 1),
    }


def _items_within(first: float, last: float, tower: list[tuple[float, ...]]) -> float:
    """How many items a tower embedded between two times; of batches that reach beyond, a part."""
    return sum(items * max(0.0, min(end, last) - max(began, first)) / (end - began) for began, end, items in tower)


class Ready:
    """An actor whose rows cost nothing: those of one block under other names."""

    def __init__(self, folder: str) -> None:
        self._rows = block(space_of(Path(folder), DIM), 0, BLOCK_ROWS)

    def __call__(self, numbers: pa.Table) -> pa.Table:
        """A block of numbers -> a block of rows of the table."""
        rows = self._rows
        for name in ("item_id", "source_id"):
            ids = pa.array([f"{n:032x}" for n in numbers["number"].to_pylist()])
            rows = rows.set_column(rows.schema.get_field_index(name), name, ids)
        return rows


def ceiling(blocks: int, folder: Path) -> dict[str, Any]:
    """Ready rows through the driver into a table: items by the clock and by the CPU."""
    start_ray()
    space, db, tally = space_of(folder / "space", DIM), str(folder / "db"), Tally()
    numbers = [pa.table({"number": range(k * BLOCK_ROWS, (k + 1) * BLOCK_ROWS)}) for k in range(blocks)]
    ready = ray.data.from_blocks(numbers).map_batches(
        Ready,
        fn_constructor_args=(str(folder / "space"),),
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=1,
    )
    with Lease(db, "media", "ceiling") as lease:
        ledger = Ledger(table_uri(db, "media"), lease, "ceiling")
        ledger.prepare(item_schema(space, pa.schema([])))
        writer = Writer(ledger, Rejects(table_uri(db, "media__rejects"), "ceiling"), BUCKET, tally)
        writer.start(1, in_parts=False)
        before: list[float] = []
        for entry in entries(ready):
            if entry is not None:
                before = before or clocks()  # from the first block on all has started
                writer.add(entry.ref, entry.metadata.size_bytes, entry.metadata.num_rows)
            writer.tick()
        writer.finish()
        seconds, driver_s, stager_s = (end - begin for begin, end in zip(before, clocks(), strict=True))
        assert tally.embedded == ledger.rows() == blocks * BLOCK_ROWS
    ray.shutdown()
    return {
        "items": tally.embedded,
        "dimensions": DIM,
        "commits": tally.commits,
        "items_per_s": round(tally.embedded / seconds),
        "items_per_driver_cpu_s": round(tally.embedded / driver_s),
        "items_per_writing_actor_cpu_s": round(tally.embedded / stager_s),
        "commit_s": round(tally.seconds["commit"], 2),
    }


def clocks() -> list[float]:
    """Seconds by the clock, of this process' CPU time, and of that of the actors that write fragments."""
    found = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            if "Stager" in " ".join(process.cmdline()):
                times = process.cpu_times()
                found += times.user + times.system
        except (psutil.Error, ProcessLookupError):  # it has ended
            continue
    return [time.perf_counter(), time.process_time(), found]


def fits(nodes: int, runs: list[dict[str, Any]]) -> bool:
    """Whether so many nodes find room, by what fewer of them took."""
    if not runs:
        return True
    each = runs[-1]["peak_memory_gib"] / runs[-1]["nodes"] * 2**30
    return bool(psutil.virtual_memory().available > nodes * each + SPARE_BYTES)


def main() -> int:
    """Measure, write the result, print it, judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--batches", type=int, default=60, help="of each node")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="of the driver's ceiling")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        space = sleeping_space(folder)
        bare = alone(load_space(space.uri))
        for nodes in asked.nodes:
            if not fits(nodes, runs):
                print(f"{nodes} nodes would not fit into memory", file=sys.stderr)
                break
            run = embed_on(nodes, asked.batches, space, folder)
            runs.append({**run, "efficiency": round(run["per_s"] / (nodes * bare), 3)})
            print(json.dumps(runs[-1]), file=sys.stderr)
        driver = ceiling(asked.blocks, folder / "ceiling")
    document = {
        "what": "jobs.embed on simulated nodes of one CPU with a sleeping tower; ready rows through one driver into a table",
        **machine(),
        "tower_alone_per_s": round(bare, 2),
        "runs": {str(run["nodes"]): run for run in runs},
        "one_driver": driver,
    }
    asked.result.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))
    return int(asked.check and bool(missed(RESULT.name, document)))


if __name__ == "__main__":
    sys.exit(main())
