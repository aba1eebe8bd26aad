"""A real Ray head with token authentication, of the test's own. In: a folder. Out: its address, and `ray job` against it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ports import free_ports

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
TOKEN = "a-token-of-the-tests-and-of-nothing-else-0123456789"
START_S = 120


@dataclass(frozen=True)
class Head:
    """A running head: where its dashboard is, Ray's folder of sessions, the process that all others stem from."""

    url: str
    folder: Path
    environment: Mapping[str, str]
    pid: int
    agent_port: int

    def lose(self) -> None:
        """Kill all of its processes at once, as when its machine is gone."""
        root = psutil.Process(self.pid)
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def cli(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`ray ARGUMENTS` from the root of the repository, as a user with the token."""
        return subprocess.run(
            [RAY, *arguments],
            cwd=ROOT,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=400,
        )

    def get(self, path: str, token: str = TOKEN) -> Any:
        """What the dashboard's HTTP interface answers."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {token}"} if token else {})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def probe(self, path: str, within_s: float = 60) -> bytes:
        """What the agent of the head's node answers to one without a token; it starts after the head."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.agent_port}{path}", timeout=30) as answer:
                    return bytes(answer.read())
            except urllib.error.URLError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def job(self, submission_id: str) -> dict[str, Any]:
        """What Ray knows of a job."""
        found: dict[str, Any] = self.get(f"/api/jobs/{submission_id}")
        return found

    def logs(self, submission_id: str) -> str:
        """The job's log: stdout and stderr of its entrypoint."""
        return str(self.get(f"/api/jobs/{submission_id}/logs")["logs"])

    def ended(self, submission_id: str, within_s: float = 180) -> str:
        """Wait until a job is over; its status."""
        deadline = time.monotonic() + within_s
        while (status := self.job(submission_id)["status"]) in ("PENDING", "RUNNING"):
            assert time.monotonic() < deadline, f"{submission_id} is still {status}: {self.logs(submission_id)[-2000:]}"
            time.sleep(0.5)
        return str(status)


@contextmanager
def ray_head(**variables: str) -> Iterator[Head]:
    """Start a head with two CPUs, and end it by its process id; `ray stop` would end every Ray of the machine.

    Args:
        variables: environment of its nodes, as an operator gives them credentials.
    """
    folder = Path(tempfile.mkdtemp(prefix="bindery-ray-", dir="/tmp"))  # short: Ray puts Unix sockets in it
    (folder / "token").write_text(TOKEN)
    gcs, dashboard, agent, client = free_ports(4)
    url = f"http://127.0.0.1:{dashboard}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the entrypoint's `python` is the head's
    user = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_")) and k != "PYTHONPATH"}
    user |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "RAY_USAGE_STATS_ENABLED": "0"}
    command = ["start", "--head", "--block", "--num-cpus=2", f"--object-store-memory={1 << 29}", f"--temp-dir={folder}/ray"]
    command += [f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}", "--node-ip-address=127.0.0.1"]
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(
            [RAY, *command],
            env={**user, "PATH": path, "RAY_DASHBOARD": url, **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    head = Head(url, folder / "ray", {**user, "PATH": path, "RAY_ADDRESS": url}, process.pid, agent)
    try:
        _wait_for(head, process, folder / "head.log")
        yield head
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            head.get("/api/jobs/")
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.3)
    raise AssertionError(f"no head within {START_S} s: {log.read_text()[-3000:]}")
