"""A cluster that cannot start, or has no room, is the infrastructure's fault, and no job waits for it in silence."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import ray
from botocore.exceptions import HTTPClientError
from ports import free_ports

from pipelines.cluster import Starting, await_free
from pipelines.embed import run_errors


@ray.remote(num_cpus=2)
class _Busy:
    def pid(self) -> int:
        return os.getpid()


def _wait_until_ray_says(cpus: float) -> None:
    """Wait until so many CPUs are free by what nodes have told: they tell ten times a second."""
    while ray.available_resources().get("CPU", 0.0) != cpus:  # type: ignore[no-untyped-call]
        time.sleep(0.05)


@pytest.mark.usefixtures("ray_local")
def test_a_job_says_that_it_waits_for_room_and_stops_when_none_comes(capsys: pytest.CaptureFixture[str]) -> None:
    await_free(gpus=0)
    assert capsys.readouterr().err == "", "a free CPU is nothing to speak of"
    busy = _Busy.remote()  # type: ignore[attr-defined]
    ray.get(busy.pid.remote())
    _wait_until_ray_says(0.0)
    with pytest.raises(OSError, match=r"no node of the cluster had a free CPU within 0 s.*run the same command again"):
        await_free(gpus=0, wait_s=0.2)
    assert "waiting up to 0 s for a free CPU" in capsys.readouterr().err
    ray.kill(busy)
    await_free(gpus=0)


def test_what_ray_has_no_name_for_when_it_starts_is_an_infrastructure_error_and_the_rest_is_as_it_was() -> None:
    with pytest.raises(OSError, match=r"timed out during startup.*run the same command again"), Starting():
        raise Exception("The current node timed out during startup.")
    for named in (RuntimeError, ValueError, KeyboardInterrupt):
        with pytest.raises(named), Starting():
            raise named


def test_the_alarms_and_the_handler_of_others_are_as_they_were() -> None:
    before, left_s = signal.getsignal(signal.SIGTERM), signal.alarm(1000)
    try:
        with Starting():
            pass
        assert signal.alarm(0) > 900, "an alarm that somebody else had set"
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.alarm(left_s)


def test_a_sigterm_while_ray_starts_is_a_stop_and_leaves_time_for_it() -> None:
    stopped = """
import os, signal, sys, threading, time, ray
from jobs.config import StopRequestedError, _sigterm_raises
from pipelines.cluster import Starting

def stop():
    while ray._private.worker.global_worker.mode is None and not done:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)

done = False
try:
    with _sigterm_raises(), Starting():
        thread = threading.Thread(target=stop)
        thread.start()
        ray.init(address="local", include_dashboard=False)
        done = True
        thread.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
except StopRequestedError:
    assert ray.is_initialized()
    ends = time.monotonic() + 4
    while time.monotonic() < ends:
        time.sleep(0.1)
    sys.exit(3)
"""
    assert subprocess.run([sys.executable, "-c", stopped], timeout=120).returncode == 3


def test_a_job_that_is_done_ends_the_ray_it_has_started(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.txt").write_text("a red circle")
    command = [sys.executable, "-m", "jobs.embed", str(tmp_path / "media"), "--db", str(tmp_path / "db")]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    marked = {**environment, "STARTED_BY": str(tmp_path)}
    done = subprocess.run(command, env=marked, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    ends = time.monotonic() + 20
    while left := [process for process in psutil.process_iter() if _started_by(process, str(tmp_path))]:
        assert time.monotonic() < ends, left
        time.sleep(0.2)


def test_the_ray_that_a_job_starts_exports_by_what_does_not_leak() -> None:
    started = """
import psutil
from pipelines.cluster import end_ray, start_ray

start_ray()
ours = psutil.Process().children(recursive=True)
print({one.environ().get("RAY_enable_open_telemetry") for one in ours if "raylet" in one.name() or "gcs_server" in one.name()})
end_ray()
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", started], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout == "{'0'}\n", done.stderr


def test_a_run_is_told_that_its_cluster_has_grown_and_what_it_makes_of_that() -> None:
    grown = """
from ray.cluster_utils import Cluster
from pipelines import cluster
from pipelines.cluster import Growth, Resources

nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
nodes.connect()
cluster.LOOK_EVERY_S = 0.0
growth, with_gpu = Growth(Resources.of_cluster()), Growth(Resources(1, 1))
assert growth.news() is None and with_gpu.news() is None
nodes.add_node(num_cpus=1, num_gpus=2)
nodes.wait_for_nodes()
for one in (growth, growth, growth, with_gpu, with_gpu):
    print(one.news(), one.used)
cluster.end_ray()
nodes.shutdown()
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", grown], env=environment, capture_output=True, text=True, timeout=300)
    told = done.stdout.splitlines()
    assert told[0].startswith("the cluster now has 2 CPUs and 2 GPUs, but this run has begun without GPUs"), done.stderr
    grows = "the cluster has grown, and this run with it: embedding on"
    assert told[1:3] == [f"{grows} 2 CPUs and 0 GPUs 2 CPUs and 0 GPUs", "None 2 CPUs and 0 GPUs"]
    assert told[3:] == [f"{grows} 2 CPUs and 2 GPUs 2 CPUs and 2 GPUs", "None 2 CPUs and 2 GPUs"]


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_ends_the_job_with_3_soon(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a red circle")
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "jobs.embed", str(tmp_path), "--db", str(tmp_path / "db")]
    environment = {**os.environ, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)  # Ray alone takes 800 s
    assert done.returncode == 3 and f"no Ray cluster answers at RAY_ADDRESS=127.0.0.1:{port}" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def _started_by(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("STARTED_BY") == mark
    except psutil.Error:  # it has ended, or is another user's
        return False


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(
    ("met", "kind"),
    [(OSError("the store is away"), OSError), (HTTPClientError(error="away"), OSError), (ValueError("a bug"), RuntimeError)],
)
def test_what_a_worker_met_is_told_apart_from_what_it_does_wrong(met: Exception, kind: type[Exception]) -> None:
    class Stage:  # in here, so that Ray sends it along
        def __call__(self, rows: pa.Table) -> pa.Table:
            raise met

    rows: Any = ray.data.from_blocks([pa.table({"x": [1]})])
    with pytest.raises(kind, match="a worker"), run_errors():
        rows.map_batches(Stage, batch_format="pyarrow", compute=ray.data.ActorPoolStrategy(size=1)).materialize()
