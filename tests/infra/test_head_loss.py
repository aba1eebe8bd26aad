"""A head that is lost with all that ran on it costs what was not committed; the same command on the next head goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lance
import pytest
from held_pictures import HeldPictures, write_manifest
from ray_head import Head, ray_head

FREE, HELD_BACK = 120, 40


def submit(head: Head, submission_id: str, command: list[str]) -> None:
    words = ["job", "submit", "--working-dir", ".", "--submission-id", submission_id, "--no-wait", "--"]
    assert head.cli(*words, *command).returncode == 0


def rows(db: Path) -> int:
    table: Any = lance.dataset(str(db / "media.lance")) if (db / "media.lance" / "_versions").exists() else None
    return 0 if table is None else int(table.count_rows())


@pytest.mark.slow
def test_a_head_that_is_lost_is_survived_by_submitting_again(tmp_path: Path) -> None:
    pictures, db = HeldPictures(FREE), tmp_path / "db"
    manifest = write_manifest(tmp_path / "list.jsonl", pictures.sources(FREE + HELD_BACK))
    command = ["python", "-m", "jobs.embed", manifest, "--db", str(db), "--allow-hosts", "127.0.0.1"]
    with ray_head() as head:
        submit(head, "first", command)
        while not (committed := rows(db)):
            assert head.job("first")["status"] in ("PENDING", "RUNNING"), head.logs("first")
            time.sleep(0.5)
        head.lose()
    pictures.let_go.set()
    with ray_head() as head:
        submit(head, "second", command)
        assert head.ended("second") == "SUCCEEDED", head.logs("second")
        assert f"{committed} unchanged, {FREE + HELD_BACK - committed} to embed" in head.logs("second")
    pictures.server.shutdown()
    uris = lance.dataset(str(db / "media.lance")).to_table(columns=["uri"])["uri"].to_pylist()
    assert len(uris) == len(set(uris)) == FREE + HELD_BACK
