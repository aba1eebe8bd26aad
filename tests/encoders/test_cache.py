"""Local copies: resumed, checked, made once. A server whose connection breaks where a test says."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.cache import cache_folder, digest_of, download, fetch, local_copy, remembered
from encoders.errors import SpaceError

MEGABYTE = 1 << 20
CONTENT = np.random.default_rng(0).bytes(5 * MEGABYTE)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class FlakyServer:
    """One file over HTTP. `sends` says of each answer to come how many bytes it brings before the connection breaks."""

    url: str = ""
    content: bytes = CONTENT
    etag: str = '"first"'
    sends: list[int] = field(default_factory=list)
    hangs: bool = False  # rather than breaks
    honours_if_range: bool = True
    asked: list[str] = field(default_factory=list)  # the Range of each request


@pytest.fixture
def server() -> Iterator[FlakyServer]:
    """A server of `CONTENT`."""
    state = FlakyServer()
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"] or ""
            state.asked.append(wanted)
            start = int(wanted[6:-1] or 0)
            if start and state.honours_if_range and self.headers["If-Range"] != state.etag:
                start = 0
            if start and start >= len(state.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.content)}")
                self.end_headers()
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            if state.etag:
                self.send_header("ETag", state.etag)
            self.end_headers()
            if state.sends:
                self.wfile.write(body[: state.sends.pop(0)])
                if state.hangs:
                    self.wfile.flush()
                    released.wait(30)
                self.connection.close()
            else:
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}/weights.pth"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield state
        released.set()
        http.shutdown()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path / "cache"))


def test_a_download_killed_half_way_goes_on_from_there(server: FlakyServer, tmp_path: Path) -> None:
    path, part = tmp_path / "w.pth", tmp_path / "w.pth.part"
    server.sends, server.hangs = [3 * MEGABYTE], True
    code = "import sys, pathlib; from encoders.cache import download; download(sys.argv[1], pathlib.Path(sys.argv[2]))"
    child = subprocess.Popen([sys.executable, "-c", code, server.url, str(path)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while (not part.exists() or part.stat().st_size < 2 * MEGABYTE) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    child.wait()
    assert not path.exists()
    kept = part.stat().st_size
    assert 2 * MEGABYTE <= kept <= 3 * MEGABYTE
    download(server.url, path, len(CONTENT), DIGEST)
    assert server.asked == ["", f"bytes={kept}-"]
    assert path.read_bytes() == CONTENT
    assert sorted(file.name for file in tmp_path.iterdir()) == ["w.pth"]


def test_a_connection_that_breaks_is_taken_up_again_at_once(server: FlakyServer, tmp_path: Path) -> None:
    server.sends = [2 * MEGABYTE + 7, MEGABYTE]
    download(server.url, tmp_path / "w.pth", sha256=DIGEST)
    assert server.asked == ["", f"bytes={2 * MEGABYTE + 7}-", f"bytes={3 * MEGABYTE + 7}-"]


def test_a_connection_that_brings_nothing_is_given_up_and_can_go_on_later(
    server: FlakyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoders.cache.ATTEMPTS", 1)
    server.sends = [MEGABYTE, 0]
    with pytest.raises(ConnectionError, match=r"1,048,576 of 5,242,880 bytes; run it again"):
        download(server.url, tmp_path / "w.pth")
    download(server.url, tmp_path / "w.pth", sha256=DIGEST)
    assert server.asked[-1] == f"bytes={MEGABYTE}-"


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_file_that_changed_meanwhile_is_started_anew(server: FlakyServer, tmp_path: Path, honours_if_range: bool) -> None:
    (tmp_path / "w.pth.part").write_bytes(b"of another file")
    (tmp_path / "w.pth.etag").write_text('"older"')
    server.honours_if_range = honours_if_range
    download(server.url, tmp_path / "w.pth", sha256=DIGEST)


def test_without_an_etag_nothing_is_gone_on_with(server: FlakyServer, tmp_path: Path) -> None:
    server.etag, server.sends = "", [MEGABYTE]
    download(server.url, tmp_path / "w.pth", sha256=DIGEST)
    assert server.asked == ["", ""]


def test_a_part_that_is_whole_already_is_only_checked(server: FlakyServer, tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").write_bytes(CONTENT)
    (tmp_path / "w.pth.etag").write_text('"first"')
    download(server.url, tmp_path / "w.pth", len(CONTENT), DIGEST)
    assert digest_of(tmp_path / "w.pth") == DIGEST


def test_a_corrupted_file_is_refused_and_removed(server: FlakyServer, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(SpaceError, match=f"not {DIGEST}: damaged or another file"):
        download(server.url, tmp_path / "w.pth", len(CONTENT), DIGEST)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_is_refused_before_it_is_fetched(server: FlakyServer, tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"is 5,242,880 bytes, not 5,242,881"):
        download(server.url, tmp_path / "w.pth", len(CONTENT) + 1)
    assert not (tmp_path / "w.pth.part").exists()


def test_what_is_not_there_is_a_named_error(http_folder: Any, tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="answers 404"):
        download(f"{http_folder.url}/nothing.pth", tmp_path / "w.pth")


def test_what_is_there_is_not_fetched(server: FlakyServer, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"x")
    fetch(server.url, tmp_path / "w.pth", len(CONTENT), DIGEST)
    assert server.asked == []


def test_a_remote_file_is_copied_once_and_again_when_it_changes(http_folder: Any) -> None:
    (http_folder.path / "a.safetensors").write_bytes(CONTENT)
    first = local_copy(f"{http_folder.url}/a.safetensors")
    assert first.suffix == ".safetensors"
    assert first.read_bytes() == CONTENT
    stamp = first.stat().st_mtime_ns
    assert local_copy(f"{http_folder.url}/a.safetensors") == first
    assert first.stat().st_mtime_ns == stamp
    (http_folder.path / "a.safetensors").write_bytes(CONTENT[:MEGABYTE])
    assert local_copy(f"{http_folder.url}/a.safetensors").read_bytes() == CONTENT[:MEGABYTE]


def test_a_local_file_is_used_where_it_lies(tmp_path: Path) -> None:
    assert local_copy(str(tmp_path / "w")) == tmp_path / "w"
    assert local_copy((tmp_path / "w").as_uri()) == tmp_path / "w"
    assert not cache_folder().exists()


def test_a_cache_that_cannot_be_written_to_is_a_named_error(
    http_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (http_folder.path / "a.safetensors").write_bytes(b"x")
    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path / "file"))
    with pytest.raises(SpaceError, match=re.escape("set BINDERY_CACHE to a folder that can")):
        local_copy(f"{http_folder.url}/a.safetensors")


def test_what_was_found_in_a_file_is_asked_for_again_once_the_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path / "cache"))
    file, asked = tmp_path / "weights", []

    def answer() -> str:
        asked.append(file.read_text())
        return asked[-1]

    file.write_text("one")
    assert [remembered(file, "?", answer) for _ in range(2)] == ["one"] * 2
    assert len(asked) == 2, "a file this young may change within one tick of its clock"
    monkeypatch.setattr("encoders.cache.SETTLED_S", -1.0)
    assert [remembered(file, "?", answer) for _ in range(2)] == ["one"] * 2
    assert remembered(file, "another question", answer) == "one"
    assert len(asked) == 4
    file.write_text("three")
    assert remembered(file, "?", answer) == "three"
    for copied in (shutil.copy2, lambda new, old: new.replace(old)):  # of the size and time of what was there
        (tmp_path / "other").write_text("other")
        for path in (file, tmp_path / "other"):
            os.utime(path, (1, 1))
        assert remembered(file, "?", answer) == "three"
        time.sleep(0.05)  # a tick of the clock
        copied(tmp_path / "other", file)
        assert remembered(file, "?", answer) == "other"
        file.write_text("three")


def test_what_was_kept_by_halves_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("encoders.cache.SETTLED_S", -1.0)
    file = tmp_path / "weights"
    file.touch()
    assert remembered(file, "?", lambda: "one") == "one"
    (kept,) = (tmp_path / "cache" / "found").iterdir()
    assert kept.read_text() == "one"
    for damaged in (b"", b"\xff\xfe"):
        kept.write_bytes(damaged)
        assert remembered(file, "?", lambda: "two") == "two"
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_many_who_ask_at_once_get_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("encoders.cache.SETTLED_S", -1.0)
    file = tmp_path / "weights"
    file.touch()
    answers = [number * 50_000 for number in map(str, range(300))]  # long: each takes several writes
    with ThreadPoolExecutor(6) as pool:
        for answer in answers:
            found = list(pool.map(remembered, [file] * 6, [answer] * 6, [lambda wanted=answer: wanted] * 6))
            assert found == [answer] * 6


def test_a_cache_that_cannot_be_written_to_costs_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("encoders.cache.SETTLED_S", -1.0)
    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path / "file"))
    assert remembered(tmp_path / "file", "?", lambda: "found") == "found"
    monkeypatch.delenv("BINDERY_CACHE")
    monkeypatch.setattr(Path, "home", lambda: Path("~nobody-knows").expanduser())
    assert remembered(tmp_path / "file", "?", lambda: "found") == "found"
    with pytest.raises(SpaceError, match="set BINDERY_CACHE"):
        cache_folder()
