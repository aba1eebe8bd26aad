"""A node that joins a cluster while a run is at work: the run embeds on it, too, and each source once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A process of its own: the tower that sleeps is a package that only a new process finds.
_GROWN = """
import sys, time
from pathlib import Path
from benchmarks.scale_out import *

folder = Path(sys.argv[1])
space = sleeping_space(folder)
corpus = texts(folder / "media", 70 * BATCH)
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES})
nodes.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
command = [sys.executable, "-m", "jobs.embed", str(corpus), "--db", str(folder / "db"), "--space", space.uri]
run = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": nodes.address})
while not list((folder / "log").iterdir()):  # until the first tower is at work
    assert run.poll() is None
    time.sleep(0.2)
nodes.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
code = run.wait()
nodes.shutdown()
sys.exit(code)
"""


@pytest.mark.slow
def test_a_node_that_joins_during_a_run_is_used_by_it(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CI"))}
    command = [sys.executable, "-c", _GROWN, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["embedded"] == 70 * 32 and report["audit"]["unique_ids"] and report["resources"] == {"cpus": 2, "gpus": 0}
    assert "the cluster has grown, and this run with it: embedding on 2 CPUs" in done.stderr
    towers = [sum(float(line.split()[2]) for line in log.read_text().splitlines()) for log in (tmp_path / "log").iterdir()]
    assert len(towers) == 2 and sum(towers) == 70 * 32 and min(towers) >= 10 * 32, towers
