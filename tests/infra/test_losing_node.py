"""A node that is lost while a run is at work costs what it had in hand, and no more: the same run goes on without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scale_out import BATCH
from pipelines.writer import COMMIT_INTERVAL_S

ROOT = Path(__file__).parents[2]
BATCHES, BEFORE = 110, 42  # of the run; of the node that is lost, so that some of its work was staged before
A_BATCH_S = 1.0  # benchmarks/sleeping_tower.py
IN_HAND = 6  # batches: a task's four, and what the tower does while the node is taken away

# A process of its own: the tower that sleeps is a package that only a new process finds.
_LOST = """
import sys, time
from pathlib import Path
from benchmarks.scale_out import *

folder, batches, before = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
space = sleeping_space(folder)
corpus = texts(folder / "media", batches * BATCH)
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES})
spot = [nodes.add_node(num_cpus=1, object_store_memory=STORE_BYTES) for _ in range(2)][0]
command = [sys.executable, "-m", "jobs.embed", str(corpus), "--db", str(folder / "db"), "--space", space.uri]
run = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": nodes.address})
while not any(len(log.read_text().splitlines()) >= before for log in (folder / "log").iterdir()):
    assert run.poll() is None
    time.sleep(0.2)
nodes.remove_node(spot, allow_graceful=False)
code = run.wait()
nodes.shutdown()
sys.exit(code)
"""


@pytest.mark.slow
def test_a_node_that_is_lost_costs_what_it_had_in_hand(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CI"))}
    command = [sys.executable, "-c", _LOST, str(tmp_path), str(BATCHES), str(BEFORE)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["embedded"] == BATCHES * BATCH and report["audit"] | {"rows": 0} == {
        "rows": 0,
        "unique_ids": True,
        "rows_as_expected": True,
    }
    embedded = sum(int(line.split()[2]) for log in (tmp_path / "log").iterdir() for line in log.read_text().splitlines())
    again = embedded - BATCHES * BATCH
    assert 0 < again <= (COMMIT_INTERVAL_S / A_BATCH_S + IN_HAND) * BATCH < BEFORE * BATCH, again
