"""Lines for people and lines of JSON: what they hold, and what they never hold."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest

from jobs import embed
from jobs.config import GATE_FAILED
from pipelines.log import in_json, log_lines, name_run, note, say
from pipelines.rejects import NOTED_AT_ONCE, Rejected, note_rejects

SECRET = "https://me:pa55word@host/a.jpg?X-Amz-Signature=s1gn4ture"


def lines(text: str) -> list[dict[str, Any]]:
    """Every line must be an object."""
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_with_json_logs_says_nothing_else_and_names_itself_its_stages_and_its_rejects(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text("uri,modality\ngopher://me:pa55word@host/f.jpg,image\n")
    db = str(tmp_path / "db")
    assert embed.main([str(tmp_path / "list.csv"), "--db", db, "--log-format", "json"]) == GATE_FAILED
    said = capfd.readouterr()
    report, told = json.loads(said.out), lines(said.err)
    assert {line["run_id"] for line in told} == {report["run_id"]}
    assert [line.get("stage") for line in told] == ["list", "plan", "list", "report"]
    _, plan, reject, gate = told
    assert plan["message"].endswith("0 duplicate, 1 rejected")
    assert gate["level"] == "error" and [gate["message"]] == report["failures"]
    assert reject["level"] == "warning" and reject["modality"] == "image" and len(reject["source_id"]) == 32
    assert reject["uri"].startswith("gopher://") and "pa55word" not in said.err
    assert not in_json()


def test_what_only_programs_read_is_not_told_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    note("committed", stage="commit")
    say("listing", stage="list")
    assert capsys.readouterr().err == "listing\n"


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_line_holds_a_password_or_a_signature(form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with log_lines(form):
        say(f"reading {SECRET}", uri=SECRET)
        try:
            raise OSError(SECRET)
        except OSError:
            say("failed", logging.ERROR, traceback=True)
        if form == "json":
            warnings.warn(SECRET, stacklevel=1)
    said = capsys.readouterr().err
    assert said.count("host/a.jpg") >= 2 and "Traceback" in said
    assert "pa55word" not in said and "s1gn4ture" not in said
    if form == "json":
        assert [line["level"] for line in lines(said)] == ["info", "error", "warning"]
        assert "OSError" in lines(said)[1]["traceback"]


def test_a_line_belongs_to_the_run_that_was_named_last_and_to_none_once_the_job_is_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for run in ("first", "second"):
        with log_lines("json"):
            say("before")
            name_run(run)
            say("after")
    assert [line.get("run_id") for line in lines(capsys.readouterr().err)] == [None, "first", None, "second"]


def test_of_very_many_rejects_the_first_are_told_and_all_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    many = [Rejected(str(k), f"{k}.jpg", "image", "1", "decode", "DecodeError", "no picture") for k in range(NOTED_AT_ONCE + 1)]
    with log_lines("json"):
        note_rejects(many)
    told = lines(capsys.readouterr().err)
    assert len(told) == NOTED_AT_ONCE + 1
    assert told[-1]["rejects"] == {"DecodeError": NOTED_AT_ONCE + 1}
