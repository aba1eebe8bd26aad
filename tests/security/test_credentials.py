"""Credentials are in no log, no report, no table and no traceback, whatever goes wrong."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import pytest

from jobs import embed
from jobs.config import BAD_INPUT, GATE_FAILED, INTERNAL, STOPPED, run_job
from pipelines.identity import without_signatures

SECRETS = ("pa55word", "s1gn4ture", "t0ken")


def urls() -> list[str]:
    """URLs with secrets of all kinds, which nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return [
        f"http://me:pa55word@127.0.0.1:{port}/a.jpg",
        f"http://127.0.0.1:{port}/b.jpg?X-Amz-Signature=s1gn4ture&X-Amz-Security-Token=t0ken",
        f"http://127.0.0.1:{port}/c.jpg?sv=2024&sig=s1gn4ture",
        "http://me:pa55word@169.254.169.254/d.jpg?X-Goog-Signature=s1gn4ture",
        "s3://me:pa55word@!/e.jpg",
        "gopher://me:pa55word@host/f.jpg",
    ]


def test_a_run_tells_no_password_and_no_signature_of_what_it_cannot_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)  # so that progress speaks
    (tmp_path / "list.csv").write_text("\n".join(["uri,modality", *(f"{url},image" for url in urls())]))
    db = tmp_path / "db"
    command = [str(tmp_path / "list.csv"), "--db", str(db), "--allow-hosts", "127.0.0.1", "--report", str(tmp_path / "r.json")]
    assert embed.main(command) == GATE_FAILED  # all are rejected, so that no worker starts
    said = capfd.readouterr()
    assert "6 of 6 sources rejected" in said.out
    tables = {name: lance.dataset(f"{db}/{name}.lance").to_table().to_pylist() for name in ("media__rejects", "media__runs")}
    assert len(tables["media__rejects"]) == 6
    written = said.out + said.err + (tmp_path / "r.json").read_text() + repr(tables)
    assert [secret for secret in SECRETS if secret in written] == []
    raw = b"".join(path.read_bytes() for path in db.rglob("*") if path.is_file())
    assert [secret for secret in SECRETS if secret.encode() in raw] == []


@pytest.mark.parametrize(
    "space",
    [
        "http://me:pa55word@127.0.0.1:9/space",
        "s3://me:pa55word@bucket/space",
        "https://127.0.0.1:9/space?X-Amz-Signature=s1gn4ture",
        "imagebind-huge?checkpoint=https://me:pa55word@127.0.0.1:9/imagebind.pth",
        "imagebind-huge?checkpoint=https%3A//127.0.0.1:9/imagebind.pth%3Fsig%3Ds1gn4ture",
    ],
)
def test_a_space_whose_uri_holds_a_secret_is_refused_as_tables_keep_it(
    space: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("a dog")
    assert embed.main([str(tmp_path / "a.txt"), "--db", str(tmp_path / "db"), "--space", space]) == BAD_INPUT
    told = capfd.readouterr()
    assert "was given with a password or a query" in told.err and not (tmp_path / "db").exists()
    assert [secret for secret in SECRETS if secret in told.out + told.err] == []


@dataclass(frozen=True, kw_only=True)
class NoConfig:
    """Nothing to say.

    Args:
        kind: of the error.
    """

    kind: str = ""


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError, BAD_INPUT), (OSError, STOPPED), (RuntimeError, INTERNAL)], ids=lambda x: str(x)
)
def test_no_error_and_no_traceback_tells_them(error: type[Exception], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def job(_: NoConfig) -> Any:
        try:
            raise KeyError("https://me:pa55word@host/a?X-Amz-Signature=s1gn4ture")
        except KeyError as cause:
            raise error("GET s3://me:pa55word@bucket/x and https://host/a?token=t0ken failed") from cause

    assert run_job(NoConfig, job, []) == code
    told = capsys.readouterr().err
    assert "failed" in told and [secret for secret in SECRETS if secret in told] == []


def test_what_is_no_secret_stays_in_messages() -> None:
    text = "cannot read s3://bucket/a b.jpg, /c:d@e.jpg, abfs://box@account/x and http://host:80/y: try 10:30@noon"
    assert without_signatures(text) == text
