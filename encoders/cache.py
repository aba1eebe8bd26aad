"""What took long, kept here. In: a URI. Out: a local path, read once however many processes ask; what was found in a file.

The folder is `BINDERY_CACHE`, by default `~/.cache/bindery`; everything in it may be deleted at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from urllib.error import HTTPError

import fsspec
from fsspec.implementations.local import LocalFileSystem

from encoders.errors import SpaceError

CHUNK = 1 << 20  # bytes
TIMEOUT_S = 60.0  # without a byte
ATTEMPTS = 5  # in a row that bring nothing
TELL_EVERY = 256 << 20  # bytes
SETTLED_S = 2.0  # a file that is younger may change again without its times telling
RANGE_NOT_SATISFIABLE, PARTIAL_CONTENT = 416, 206


def cache_folder() -> Path:
    """Where this machine keeps what it fetched.

    Raises:
        SpaceError: nothing says where.
    """
    try:
        return Path(os.environ.get("BINDERY_CACHE") or Path.home() / ".cache" / "bindery")
    except RuntimeError as error:  # a container's user whom nobody knows
        raise SpaceError(f"there is no folder for copies ({error}); set BINDERY_CACHE to one that can be written to") from error


def local_copy(uri: str) -> Path:
    """The path of a local file, or of this machine's copy of a remote one, fetched anew when the remote one has changed.

    Raises:
        FileNotFoundError: there is none.
        SpaceError: the cache folder cannot be written to.
    """
    filesystem, name = fsspec.core.url_to_fs(uri)
    if isinstance(filesystem, LocalFileSystem):
        return Path(name)
    filesystem.invalidate_cache()
    info = filesystem.info(name)
    version = [info.get(key) for key in ("size", "ETag", "etag", "LastModified", "mtime") if info.get(key) is not None]
    key = hashlib.sha256(f"{uri}\n{version}".encode()).hexdigest()[:32]
    path = cache_folder() / "copies" / f"{key}{PurePosixPath(name.partition('?')[0]).suffix}"
    if path.exists():
        return path
    with _locked(path):
        if not path.exists():  # another process may have been at it
            if uri.startswith(("http://", "https://")):
                download(uri, path)
            else:
                part = _beside(path, ".part")
                filesystem.get_file(name, str(part))
                part.replace(path)
    return path


def remembered(path: Path, question: str, answer: Callable[[], str]) -> str:
    """What was found in a local file, asked for once as long as the file stays as it is: its size, times and place on the disk.

    Args:
        path: of the file.
        question: what else the answer depends on.
        answer: a line of ASCII, never empty; looks into the file.
    """
    at = path.stat()
    state = (at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino)  # ctime: what copies and archives cannot set
    key = hashlib.sha256(f"{path.absolute()}\n{state}\n{question}".encode()).hexdigest()[:32]
    with suppress(OSError, SpaceError, UnicodeDecodeError):
        if known := (cache_folder() / "found" / key).read_text("ascii"):  # empty where the machine went down meanwhile
            return known
    found = answer()
    if time.time() - max(at.st_mtime, at.st_ctime) > SETTLED_S:
        with suppress(OSError, SpaceError):  # no folder, or one that cannot be written to, costs time and no more
            kept = cache_folder() / "found" / key
            kept.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile("w", dir=kept.parent, delete=False) as part:
                part.write(found)
            Path(part.name).replace(kept)
    return found


def fetch(url: str, path: Path, size: int | None = None, sha256: str = "") -> Path:
    """`download`, by one process at a time; a file that is there already is taken as it is."""
    if path.exists():
        return path
    with _locked(path):
        return path if path.exists() else download(url, path, size, sha256)


def download(url: str, path: Path, size: int | None = None, sha256: str = "") -> Path:
    """A file from an HTTP server, which comes to lie at `path` only whole and checked.

    What an earlier call left in `path`.part is gone on with, if the server still has the same file (its ETag).

    Args:
        url: http or https.
        path: where it goes; its folder is made.
        size: bytes that it must have; None: what the server says.
        sha256: 64 hex digits that it must have; "": any.

    Raises:
        SpaceError: the server has another file than the one asked for, or none.
        ConnectionError: the connection kept breaking; call again to go on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, idle = _Part(_beside(path, ".part"), _beside(path, ".etag")), 0
    while True:
        before = part.size
        total = _go_on(url, part, size)
        if part.size == total:
            break
        idle = 0 if part.size > before else idle + 1
        if idle == ATTEMPTS:
            raise ConnectionError(f"{url} broke off at {part.size:,} of {total:,} bytes; run it again to go on from there")
        time.sleep(idle)
    if sha256 and (found := digest_of(part.path)) != sha256:
        part.drop()
        raise SpaceError(f"{url} came with SHA-256 {found}, not {sha256}: damaged or another file. It was removed; try again")
    part.path.replace(path)
    part.drop()
    return path


def digest_of(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Part:
    """The bytes that have come, and beside them the ETag of the file that they are of."""

    path: Path
    note: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def etag(self) -> str:
        return self.note.read_text() if self.note.exists() else ""

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _go_on(url: str, part: _Part, size: int | None) -> int:
    """Ask for what is missing and add it, until it is there or the connection breaks; returns the bytes of the whole file."""
    if not part.etag or part.etag.startswith("W/"):  # nothing says that the rest would be of the same file
        part.drop()
    have = part.size
    headers = {"Range": f"bytes={have}-", "If-Range": part.etag} if have else {}
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http or https, by the callers
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except HTTPError as error:
        if error.code == RANGE_NOT_SATISFIABLE and _total(error.headers) == have == (size or have):
            return have
        if error.code == RANGE_NOT_SATISFIABLE:
            part.drop()
            return -1
        if error.code < 500:
            raise SpaceError(f"{url} answers {error.code} {error.reason}; fetch the file by hand and pass its path") from error
        raise ConnectionError(f"{url} answers {error.code} {error.reason}; run it again to go on") from error
    with answer:
        if answer.status == PARTIAL_CONTENT and answer.headers["ETag"] != part.etag:
            part.drop()  # the server ignores If-Range, and the file has changed
            return -1
        total = _total(answer.headers)
        if size is not None and total != size:
            part.drop()
            raise SpaceError(f"{url} is {total:,} bytes, not {size:,}: another file than the one asked for")
        part.note.write_text(answer.headers["ETag"] or "")
        with part.path.open("ab" if answer.status == PARTIAL_CONTENT else "wb") as file:
            for chunk in _chunks(answer):
                file.write(chunk)
                if file.tell() // TELL_EVERY > (file.tell() - len(chunk)) // TELL_EVERY:
                    print(f"{part.path.stem}: {file.tell() / 1e9:.2f} of {total / 1e9:.2f} GB", file=sys.stderr)
    return total


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """What comes until the end, or until the connection breaks."""
    try:
        while chunk := answer.read(CHUNK):
            yield chunk
    except (ConnectionError, TimeoutError, http.client.HTTPException):
        return


def _total(headers: Message) -> int:
    """Bytes of the whole file: after the slash of Content-Range, else Content-Length."""
    total = (headers.get("Content-Range") or "").rpartition("/")[2] or headers.get("Content-Length") or ""
    if not total.isdecimal():
        raise SpaceError("the server does not say how long the file is; fetch it by hand and pass its path")
    return int(total)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process of this machine at a time; the operating system lets go when the process ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _beside(path, ".lock").open("w")
    except OSError as error:
        raise SpaceError(f"{path.parent} cannot be written to ({error}); set BINDERY_CACHE to a folder that can") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
