"""`bindery delete` and `bindery optimize` from a shell: one JSON line, exit codes for schedulers."""

from __future__ import annotations

import json
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from jobs.delete import main as delete
from jobs.optimize import main as optimize
from pipelines.lease import Lease
from pipelines.table import ITEM_COLUMNS, create_table, open_table, table_uri


@pytest.fixture
def db(tmp_path: Path) -> str:
    """Two fragments of one item each."""
    uri = table_uri(str(tmp_path), "media")
    create_table(uri, ITEM_COLUMNS)
    for number in range(2):
        row = {"item_id": f"{number:032x}", "source_id": f"{number:032x}", "uri": f"/c/{number}.jpg", "modality": "image"}
        row |= {"corpus": "/c", "version": "1", "recipe": "r", "segment_count": 1}
        lance.write_dataset(pa.Table.from_pylist([row], schema=ITEM_COLUMNS), uri, mode="append")
    return str(tmp_path)


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """The one line on stdout, read."""
    (line,) = capsys.readouterr().out.splitlines()
    found: dict[str, object] = json.loads(line)
    return found


def test_delete_reports_and_says_done(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert delete(["--db", db, "--uri", "/c/0.jpg", "/c/9.jpg", "--reason", "asked for"]) == 0
    found = report(capsys)
    assert (found["job"], found["sources"], found["items"], found["failures"]) == ("delete", 1, 1, [])
    assert "/c/0.jpg" not in json.dumps(found)


def test_optimize_reports_and_says_done(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert optimize(["--db", db, "--keep-versions-for", "0s"]) == 0
    found = report(capsys)
    assert (found["job"], found["rows"], found["failures"]) == ("optimize", 2, [])
    assert found["tables"]["media"]["fragments_added"] == 1  # type: ignore[index]


@pytest.mark.parametrize("flags", [[], ["--where", "no sql"], ["--table", "nobody", "--corpus", "/c"]], ids=str)
def test_a_delete_that_names_nothing_clear_is_bad_input(db: str, flags: list[str]) -> None:
    assert delete(["--db", db, *flags]) == 2


def test_a_table_in_use_is_a_reason_to_come_back(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Lease(db, "media", "writer"):
        assert optimize(["--db", db, "--wait", "0"]) == 3
        assert delete(["--db", db, "--corpus", "/c", "--wait", "0"]) == 3
    assert "being written" in capsys.readouterr().err
    assert open_table(table_uri(db, "media")).count_rows() == 2  # type: ignore[union-attr]
