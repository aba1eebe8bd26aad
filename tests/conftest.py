"""What the tests share: one Ray, one real S3 server, a folder served over HTTP. In: pytest's requests. Out: fixtures.

Ray's workers inherit the environment that Ray is started in, so the S3 server starts before Ray as soon as one selected test
needs it. Both start at first use: a run of pure functions starts neither.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from aiohttp import web
from http_folder import HttpFolder
from not_run import not_run
from ports import free_ports

# Nothing above imports numpy, torch or Ray: this holds for them and for every process they start. Tests share two cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
os.environ.pop("RAY_ADDRESS", None)  # the tests never join somebody's cluster
os.environ.pop("CI", None)  # which keeps jobs from telling how far they are; tests read that

S3_SCRIPTS = Path(__file__).parents[1] / "infra" / "s3"
S3_MISSING = 69  # exit code of start.sh: packages to install
S3_NOT_RUN = "install ceph-mon ceph-osd radosgw ceph-common (see infra/s3/README.md)"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that uses the fixture `s3` carries the marker, so that `-m "not s3"` leaves it out."""
    for item in items:
        if "s3" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.s3)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Endpoint of a gateway in a temporary folder, with AWS_* in the environment; "" where its packages are missing."""
    folder = Path(tempfile.mkdtemp(prefix="bindery-s3-"))  # short: Ceph puts Unix sockets in it
    ports = free_ports(2)
    places = {"DATA_DIR": str(folder), "PORT": str(ports[0]), "MON_PORT": str(ports[1]), "WATCH_PID": str(os.getpid())}
    try:
        if _script("start.sh", places) == S3_MISSING:
            yield ""
            return
        with pytest.MonkeyPatch.context() as environment:
            for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
                environment.delenv(name, raising=False)
            for name, value in _exports(folder / "env.sh").items():
                environment.setenv(name, value)
            yield os.environ["AWS_ENDPOINT_URL"]
            _script("stop.sh", {**places, "WIPE": "1"})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def s3(s3_server: str) -> Iterator[str]:
    """URI of an empty bucket of the test's own on a real S3 server; AWS_* say how to reach it."""
    if not s3_server:
        not_run(S3_NOT_RUN)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    store = fsspec.filesystem("s3")
    store.mkdir(bucket)
    yield f"s3://{bucket}"
    store.invalidate_cache()
    store.rm(bucket, recursive=True)


@pytest.fixture(scope="session")
def ray_local(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ray with two CPUs in this process, for the whole session."""
    if any(item.get_closest_marker("s3") for item in request.session.items):
        request.getfixturevalue("s3_server")
    import ray

    from pipelines.cluster import start_ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=1 << 30, logging_level=logging.WARNING)
    start_ray()
    yield
    ray.shutdown()


@pytest.fixture
def http_folder(tmp_path: Path) -> Iterator[HttpFolder]:
    """A folder served over HTTP: ranges, ETag, Last-Modified, HEAD, 404."""
    folder = tmp_path / "http"
    folder.mkdir()
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_static("/", folder, show_index=True)
    runner = web.AppRunner(app)
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield HttpFolder(folder, f"http://127.0.0.1:{runner.addresses[0][1]}")
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(timeout=10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)
    loop.close()


def _script(name: str, environment: dict[str, str]) -> int:
    done = subprocess.run(
        [S3_SCRIPTS / name], env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True, timeout=180
    )
    if done.returncode not in (0, S3_MISSING):
        raise RuntimeError(f"infra/s3/{name} ended with {done.returncode}: {done.stderr.strip()}")
    return done.returncode


def _exports(env_sh: Path) -> dict[str, str]:
    """The variables that a file of `export NAME=value ...` lines sets."""
    lines = [line.split()[1:] for line in env_sh.read_text().splitlines() if line.startswith("export ")]
    return dict(word.split("=", 1) for line in lines for word in line)
