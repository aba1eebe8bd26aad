"""The service as a job: what it refuses to start with; and, on a real Ray Serve, that it answers, and stops when told to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from ports import free_ports
from searchable import make_media, make_space, rows_of, write_table

from jobs.serve import main

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("db")
    write_table(folder, rows_of(make_space(folder), make_media(folder / "media", 3)))
    return str(folder)


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BINDERY_TOKEN", raising=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "openssl rand"),
        (["--host", "::"], "openssl rand"),
        (["--host", "host.example"], "openssl rand"),
        (["--table", "nosuch"], "no table"),
        (["--space", "nosuch"], "no space"),
        (["--port", "70000"], "--port"),
        (["--replicas", "0"], "--replicas"),
        (["--max-body-mb", "0"], "above 0"),
        (["--timeout-s", "0"], "above 0"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_starts(
    db: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--db", db, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_weak_token_is_refused_and_never_printed(
    db: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BINDERY_TOKEN", "hunter2")
    assert main(["--db", db]) == 2
    printed = capsys.readouterr()
    assert "at least 16" in printed.err and "hunter2" not in printed.err + printed.out


def test_a_token_and_no_token_at_once_are_refused(
    db: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BINDERY_TOKEN", TOKEN)
    assert main(["--db", db, "--no-token"]) == 2
    assert "--no-token" in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["--db", db, "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another" in capsys.readouterr().err


@contextmanager
def served(db: str, log: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`python -m jobs.serve` in a process of its own, ready to answer: its URL."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "jobs.serve", "--db", db, "--port", str(port), "--replicas", "2"]
    with log.open("wb") as written:
        job = subprocess.Popen(command, env={**os.environ, **environment}, stdout=written, stderr=written)
    try:
        while b"answering requests" not in log.read_bytes():
            assert job.poll() is None, log.read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", job
    finally:
        if job.poll() is None:
            job.kill()
            job.wait()


@pytest.mark.slow
def test_it_answers_those_who_have_the_token_and_stops_when_told_to(db: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with served(db, log, BINDERY_TOKEN=TOKEN) as (url, job):
        for _ in range(8):  # both replicas
            assert requests.get(f"{url}/healthz", timeout=60).json() == {"status": "ok"}
            assert requests.post(f"{url}/search", json={"text": "dog"}, timeout=60).status_code == 401
            with requests.Session() as known:
                known.headers["Authorization"] = f"Bearer {TOKEN}"
                hits = known.post(f"{url}/search", json={"text": "dog", "k": 3}, timeout=60).json()["hits"]
                assert len(hits) == 3
                image = (Path(db) / "media" / "1.png").read_bytes()
                (hit,) = known.post(f"{url}/search/files", files={"image": image}, data={"k": 1}, timeout=60).json()["hits"]
                assert hit["uri"].endswith("1.png")
                assert known.post(f"{url}/search/files", files={"image": b"x"}, timeout=60).status_code == 422
                assert b"bindery_http_requests_total" in known.get(f"{url}/metrics", timeout=60).content
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=120) == 3
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{url}/healthz", timeout=5)
    assert TOKEN not in log.read_text() and "Traceback" not in log.read_text()
