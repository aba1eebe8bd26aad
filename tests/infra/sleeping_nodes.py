"""An embed run on simulated nodes whose towers sleep. In: what becomes of the nodes meanwhile. Out: what the run came to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]

# A process of its own: the tower that sleeps is a package that only a new process finds.
_RUN = """
import sys, time
from pathlib import Path
from benchmarks.scale_out import *

folder, batches, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
space = sleeping_space(folder)
corpus = texts(folder / "media", batches * BATCH)
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES})
workers = [nodes.add_node(num_cpus=1, object_store_memory=STORE_BYTES) for _ in range(count)]
command = [sys.executable, "-m", "jobs.embed", str(corpus), "--db", str(folder / "db"), "--space", space.uri]
run = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": nodes.address})


def await_batches(count):
    while not any(len(log.read_text().splitlines()) >= count for log in (folder / "log").iterdir()):
        assert run.poll() is None
        time.sleep(0.2)


MEANWHILE
code = run.wait()
nodes.shutdown()
sys.exit(code)
"""


class Embedded(NamedTuple):
    """What a run came to: its report, its stderr, and the items of each tower that was at work."""

    report: dict[str, Any]
    told: str
    items: list[int]


def embed_meanwhile(folder: Path, batches: int, nodes: int, meanwhile: str) -> Embedded:
    """Run to a good end.

    Args:
        folder: an empty one.
        batches: of the corpus.
        nodes: of one CPU each, at first.
        meanwhile: Python that waits by `await_batches(count)` for a tower's work, then changes `nodes` and `workers`.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CI"))}
    command = [sys.executable, "-c", _RUN.replace("MEANWHILE", meanwhile), str(folder), str(batches), str(nodes)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    logs = [log.read_text().splitlines() for log in (folder / "log").iterdir()]
    return Embedded(
        json.loads(done.stdout.splitlines()[-1]), done.stderr, [sum(int(line.split()[2]) for line in log) for log in logs]
    )
