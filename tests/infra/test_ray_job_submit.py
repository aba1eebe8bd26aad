"""`ray job submit` as README shows it, against a real head with token authentication."""

from __future__ import annotations

import json
import re
import shlex
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import pytest
from held_pictures import HeldPictures, picture, write_manifest
from ray_head import ROOT, TOKEN, Head, ray_head

SECRET = "an-aws-secret-that-nobody-may-read-42"
PICTURES, HELD_BACK = 300, 100


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """The head; its nodes have credentials."""
    with ray_head(AWS_ACCESS_KEY_ID="AKIAOFTHETESTS", AWS_SECRET_ACCESS_KEY=SECRET) as started:
        yield started


def shown(page: str, verb: str) -> list[str]:
    """The words of the `ray job submit` command that a page shows for a verb."""
    (found,) = re.findall(rf"^(ray job submit .*python -m jobs\.{verb} .*)$", (ROOT / page).read_text(), re.MULTILINE)
    return shlex.split(found)


def submit(head: Head, submission_id: str, *command: str, wait: bool = True) -> Any:
    """Submit as README shows, with another command behind the dashes."""
    words = shown("README.md", "embed")
    before = words[1 : words.index("--")]
    return head.cli(*before, "--submission-id", submission_id, *([] if wait else ["--no-wait"]), "--", *command)


def media(folder: Path, count: int) -> str:
    folder.mkdir()
    for k in range(count):
        (folder / f"{k}.jpg").write_bytes(picture(k))
    return str(folder)


def rows(db: Path) -> list[str]:
    return sorted(lance.dataset(f"{db}/media.lance").to_table(columns=["uri"])["uri"].to_pylist())


@pytest.mark.slow
def test_readmes_command_works_with_its_log_its_report_and_its_name(head: Head, tmp_path: Path) -> None:
    words = shown("README.md", "embed")
    corpus, db = media(tmp_path / "media", 3), str(tmp_path / "db")
    places = {"s3://bucket/media": corpus, "s3://bucket/index": db}
    done = head.cli(*words[1:3], "--submission-id", "nightly-1", *[places.get(word, word) for word in words[3:]])
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"job"')))
    assert (report["run_id"], report["embedded"], report["failures"]) == ("nightly-1", 3, [])
    assert "is the limit" in report["bottleneck"] or "are the limit" in report["bottleneck"]
    assert "3 to embed" in head.logs("nightly-1")  # progress, in the job's log
    (run,) = lance.dataset(f"{db}/media__runs.lance").to_table().to_pylist()
    assert run["run_id"] == "nightly-1"
    assert head.job("nightly-1")["status"] == "SUCCEEDED"
    (working_dir,) = [path for path in head.folder.glob("session_2*/runtime_resources/working_dir_files/*") if path.is_dir()]
    assert {path.name for path in working_dir.iterdir()} >= {"encoders", "pipelines", "jobs"}
    assert not {"tests", "docs", ".git", ".venv"} & {path.name for path in working_dir.iterdir()}
    assert sum(path.stat().st_size for path in working_dir.rglob("*") if path.is_file()) < 10e6


@pytest.mark.slow
def test_without_the_token_nothing_is_submitted_and_probes_still_answer(head: Head, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(TOKEN[::-1])
    refused = head.cli("job", "submit", "--", "true", RAY_AUTH_TOKEN_PATH=str(tmp_path / "other"))
    assert refused.returncode != 0 and "token" in (refused.stdout + refused.stderr).lower()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        head.get("/api/jobs/", token="")
    (probe,) = set(re.findall(r"path: (/api/\S+),", (ROOT / "infra" / "kuberay" / "base" / "cluster.yaml").read_text()))
    assert head.probe(probe) == b"success"


@pytest.mark.slow
def test_failure_is_carried_and_final_failures_stop_a_rayjob(head: Head, tmp_path: Path) -> None:
    done = submit(head, "failed", "python", "-m", "jobs.embed", "/nowhere", "--db", str(tmp_path / "db"))
    assert done.returncode == 1
    job = head.job("failed")
    assert (job["status"], job["driver_exit_code"]) == ("FAILED", 2) and "nothing is at /nowhere" in job["message"]
    wrapped = ["python", str(ROOT / "infra" / "kuberay" / "rayjob.py"), "sh", "-c"]
    for submission_id, code in (("stopped-by-infrastructure", 3), ("gate-failed", 1), ("done", 0)):
        submit(head, submission_id, *wrapped, f"exit {code}", wait=False)
    assert head.ended("stopped-by-infrastructure") == "FAILED"  # RayJob tries these again,
    assert head.ended("gate-failed") == "STOPPED"  # and these not
    assert head.ended("done") == "SUCCEEDED"
    assert "exit code 1: the same command" in head.logs("gate-failed")


@pytest.mark.slow
def test_stop_commits_what_is_embedded_and_resubmitting_goes_on(head: Head, tmp_path: Path) -> None:
    slow, db = HeldPictures(PICTURES), tmp_path / "db"
    sources = slow.sources(PICTURES + HELD_BACK)
    manifest = write_manifest(tmp_path / "list.jsonl", sources)
    command = ["python", "-m", "jobs.embed", manifest, "--db", str(db), "--allow-hosts", "127.0.0.1"]
    submit(head, "first", *command, wait=False)
    deadline = time.monotonic() + 200
    while slow.served < 2 * PICTURES // 3:
        assert head.job("first")["status"] in ("PENDING", "RUNNING") and time.monotonic() < deadline, head.logs("first")
        time.sleep(0.5)
    time.sleep(5)  # the towers embed what has been served
    stopped = head.cli("job", "stop", "first")
    assert stopped.returncode == 0 and head.ended("first") == "STOPPED"
    assert "stopped on request" in head.logs("first")
    kept = rows(db)
    assert 0 < len(kept) <= PICTURES
    assert list((db / "_bindery" / "media").glob("epoch-*/released"))
    slow.let_go.set()
    again = submit(head, "second", *command)
    assert again.returncode == 0, again.stdout
    assert rows(db) == sorted(source["uri"] for source in sources)
    report = json.loads(next(line for line in again.stdout.splitlines() if line.startswith('{"job"')))
    assert report["unchanged"] == len(kept)
    slow.server.shutdown()


@pytest.mark.slow
def test_credentials_of_the_nodes_are_in_no_log_and_no_answer(head: Head) -> None:
    """After all jobs of this file: everything that Ray has written or tells of them."""
    assert SECRET not in json.dumps(head.get("/api/jobs/"))
    written = [path for path in head.folder.rglob("*") if path.is_file()]
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
