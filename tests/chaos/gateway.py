"""A real S3 server that can be killed. In: nothing. Out: its endpoint and credentials, a kill, a restart."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

AWAY_S = 3.0
PACKAGES_MISSING = 69  # the exit code of start.sh
SCRIPTS = Path(__file__).parents[2] / "infra" / "s3"


class Gateway:
    """Ceph's gateway on this machine, by infra/s3/start.sh; a context manager.

    Raises, when entered:
        FileNotFoundError: its packages are missing; the message names them.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="bindery-s3-"))  # short: Ceph puts Unix sockets in it
        ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        numbers = [str(port.getsockname()[1]) for port in ports]
        for port in ports:
            port.close()
        self._places = {"DATA_DIR": str(self._folder), "PORT": numbers[0], "MON_PORT": numbers[1]}
        self._places["WATCH_PID"] = str(os.getpid())
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Gateway:
        self.start()
        exports = [line for line in (self._folder / "env.sh").read_text().splitlines() if line.startswith("export ")]
        self.environment = dict(word.split("=", 1) for line in exports for word in line.split()[1:])
        return self

    def __exit__(self, *_: object) -> None:
        self._script("stop.sh", WIPE="1")
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start whatever of it does not run."""
        self._script("start.sh")

    def restart(self) -> None:
        """SIGKILL to the gateway; after a while it is back. What it has confirmed is on the disk of its store."""
        os.kill(int((self._folder / "run" / "rgw.pid").read_text()), signal.SIGKILL)
        time.sleep(AWAY_S)
        self.start()

    def _script(self, name: str, **more: str) -> None:
        environment = {**os.environ, **self._places, **more}
        done = subprocess.run([SCRIPTS / name], env=environment, capture_output=True, text=True, timeout=300)
        if done.returncode == PACKAGES_MISSING:
            raise FileNotFoundError(done.stderr.strip())
        if done.returncode:
            raise RuntimeError(f"infra/s3/{name} ended with {done.returncode}: {done.stderr.strip()}")
