"""What does a run cost that changes nothing? In: a number of items. Out: benchmarks/results/plan_scale.json.

    .venv/bin/python -m benchmarks.plan_scale [ITEMS [FOLDER]]

Makes a table of 1,000,000 synthetic items (512-d vectors) and listings of the same: a manifest with uri, modality, size and
mtime, and one with uri and etag alone, whose modalities the table must remember. Then runs `jobs.embed` over each, which must
find nothing to do: no media (the bucket does not exist), no Ray, no actor. FOLDER keeps the table for the next time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from lance.fragment import FragmentMetadata

from benchmarks.synthetic import MODALITY, block, machine, manifest, space_of
from benchmarks.thresholds import missed
from encoders.space import Space
from pipelines.corpus import open_corpus
from pipelines.holdings import read_holdings
from pipelines.identity import recipe
from pipelines.lease import Lease
from pipelines.ledger import Ledger
from pipelines.plan import Planner
from pipelines.rejects import Rejects
from pipelines.report import Tally
from pipelines.segments import WHOLE
from pipelines.table import item_schema, open_table
from pipelines.tombstones import Tombstones
from pipelines.writer import stage

DIM = 512
ITEMS = 1_000_000
STAGED_ROWS = 50_000
RESULT = Path(__file__).parent / "results" / "plan_scale.json"


def make_table(space: Space, db: Path, items: int) -> None:
    """Stage and commit so many items, as an embed run does."""
    uri = str(db / "media.lance")
    with Lease(str(db), "media", "synthetic") as lease:
        ledger = Ledger(uri, lease, "synthetic")
        ledger.prepare(schema := item_schema(space, pa.schema([])))
        for first in range(0, items, STAGED_ROWS):
            staged = stage(uri, schema, block(space, first, min(STAGED_ROWS, items - first)))
            ledger.commit([FragmentMetadata.from_json(f) for f in staged.fragments], [])


def write_listings(folder: Path, items: int) -> dict[str, Path]:
    """The listings, by name."""
    rows = manifest(0, items)
    versions = pa.array([f"{s}-{t}" for s, t in zip(rows["size"].to_pylist(), rows["mtime"].to_pylist(), strict=True)])
    tables = {"modality, size, mtime": rows, "version alone": pa.table({"uri": rows["uri"], "version": versions})}
    found = {}
    for k, (name, table) in enumerate(tables.items()):
        found[name] = folder / f"listing-{k}.parquet"
        pq.write_table(table, found[name])
    return found


def run(space: Space, db: Path, listing: Path) -> dict[str, Any]:
    """One no-change run in a process of its own: its report, seconds, peak memory, and the processes that it started."""
    command = [sys.executable, "-m", "jobs.embed", str(listing), "--db", str(db), "--space", space.uri]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=err)
        started: set[str] = set()
        peak = 0
        while (ended := os.wait4(child.pid, os.WNOHANG))[0] == 0:
            started |= _children(child.pid)
            peak = max(peak, _peak_bytes(child.pid))
            time.sleep(0.05)
        seconds, usage = time.monotonic() - began, ended[2]
        child.returncode = os.waitstatus_to_exitcode(ended[1])
        out.seek(0)
        err.seek(0)
        assert child.returncode == 0, err.read()
        report = json.loads(out.read().splitlines()[-1])
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "job_seconds": report["seconds"],
        "peak_rss_bytes": peak,
        "processes_started": sorted(started),
        **{name: report[name] for name in ("listed", "unchanged", "embedded", "rejected", "commits")},
    }


def _children(pid: int) -> set[str]:
    try:
        return {p.name() for p in psutil.Process(pid).children(recursive=True)}
    except psutil.Error:  # it ended meanwhile
        return set()


def _peak_bytes(pid: int) -> int:
    """The most memory it has had since its program began; what rusage tells includes the process that it was forked from."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except ProcessLookupError:
        return 0
    return max((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), default=0)


def memory(space: Space, db: Path, listing: Path) -> dict[str, float]:
    """Bytes a source that numpy holds: what the table is compared by, what a listing's ids are told apart by, peaks of both."""
    dataset = open_table(str(db / "media.lance"))
    assert dataset is not None
    corpus = open_corpus(str(listing), modalities=space.modalities)
    rejects, tombstones = Rejects(str(db / "media__rejects.lance"), ""), Tombstones(str(db / "media__deleted.lance"))
    tracemalloc.start()
    holdings = read_holdings(dataset, rejects, tombstones, corpus.id, corpus.columns.names, retry_rejects=False)
    kept, peak = tracemalloc.get_traced_memory()
    items = len(holdings.items)
    tracemalloc.reset_peak()
    recipes = {m: recipe(e.fingerprint, WHOLE.mark) for m, e in space.encoders.items()}
    planner = Planner(corpus, recipes, holdings, Tally())
    for _ in planner.batches():
        pass
    both, planning = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "known": round(kept / items, 1),
        "known_while_built": round(peak / items, 1),
        "known_and_seen": round(both / items, 1),
        "while_planning": round(planning / items, 1),
    }


def main() -> None:
    """Make what is missing, run, write the result, print it."""
    items = int(sys.argv[1]) if len(sys.argv) > 1 else ITEMS
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else temporary)
        space = space_of(folder / "space", DIM)
        db = folder / f"db-{items}"
        if not (db / "media.lance").exists():
            make_table(space, db, items)
        listings = write_listings(folder, items)
        os.environ.setdefault("OMP_NUM_THREADS", "2")
        runs = {name: run(space, db, listing) for name, listing in listings.items()}
        bytes_a_source = memory(space, db, listings["modality, size, mtime"])
    for found in runs.values():
        assert found["unchanged"] == found["listed"] == items, found
        assert not found["processes_started"] and not found["commits"], found
    result = {
        "what": f"a run of jobs.embed over a table of {items:,} {MODALITY} items of {DIM} dimensions that changes nothing",
        **machine(),
        "items": items,
        "runs": runs,
        "bytes_a_source": bytes_a_source,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    sys.exit(bool(missed(RESULT.name, result)))


if __name__ == "__main__":
    main()
