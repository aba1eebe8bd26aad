"""A driver that is paused past its lease loses nothing and doubles nothing: another run finishes, then it wakes."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lance
import numpy as np
import pytest
from PIL import Image

from jobs.config import STOPPED
from pipelines.lease import TIME_TO_LIVE_S
from pipelines.storage import lance_options

SOURCES = 200
# The job, which sends itself SIGSTOP at the worst moment: its lease is checked, its first commit is about to be made.
STOPS_ITSELF = """
import os, signal, sys
import lance
from jobs.embed import main

commit = lance.LanceDataset.commit

def paused(*arguments, **options):
    lance.LanceDataset.commit = commit
    os.kill(os.getpid(), signal.SIGSTOP)
    return commit(*arguments, **options)

lance.LanceDataset.commit = paused
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", [pytest.param("local", marks=pytest.mark.long), pytest.param("s3", marks=pytest.mark.s3)])
def test_a_driver_stopped_past_its_lease_neither_loses_nor_doubles(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for k in range(SOURCES):
        buffer = io.BytesIO()
        Image.fromarray(np.full((48, 64, 3), k, np.uint8)).save(buffer, "JPEG")
        (media / f"{k:03}.jpg").write_bytes(buffer.getvalue())
    db = str(tmp_path / "db") if where == "local" else request.getfixturevalue("s3") + "/db"
    arguments = [str(media), "--db", db]
    command = [sys.executable, "-m", "jobs.embed", *arguments]

    stopping = [sys.executable, "-c", STOPS_ITSELF, *arguments]
    paused = subprocess.Popen(stopping, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _until_stopped(paused)
    try:
        time.sleep(TIME_TO_LIVE_S + 5)
        other = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert other.returncode == 0, other.stderr
        report = json.loads(other.stdout.splitlines()[-1])
        before = _ids(db)
    finally:
        os.kill(paused.pid, signal.SIGCONT)
    _, said = paused.communicate(timeout=300)

    assert report["embedded"] + report["unchanged"] == SOURCES
    assert len(before) == len(set(before)) == SOURCES
    assert _ids(db) == before
    assert paused.returncode == STOPPED and "run the same command again" in said


def _until_stopped(driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 400
    while Path(f"/proc/{driver.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        if driver.poll() is not None or time.monotonic() > deadline:
            driver.kill()
            pytest.fail(f"it never came to its first commit: {driver.communicate()[1]}")
        time.sleep(0.1)


def _ids(db: str) -> list[str]:
    uri = f"{db}/media.lance"
    return sorted(lance.dataset(uri, storage_options=lance_options(uri)).to_table(columns=["item_id"])["item_id"].to_pylist())
