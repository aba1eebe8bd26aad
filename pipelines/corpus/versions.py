"""What names a source's bytes. In: what a store tells of an object. Out: its version: an etag, else size and time of change."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from botocore.exceptions import ParamValidationError

from pipelines.corpus.s3_keys import list_keys
from pipelines.identity import is_local, without_signatures
from pipelines.reach import Reach, RefusedError
from pipelines.storage import store

LOOKUPS = 64  # concurrent HEAD requests
LIST_FROM = 200  # sources of one S3 folder in a batch, from which listing it is cheaper than asking for each
LISTED_PER_SOURCE = 4  # objects that are listed at most for each source that is looked for
_ETAGS = ("ETag", "etag", "md5Hash", "Content-MD5")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "Last-Modified", "modified", "created")


class State(NamedTuple):
    """What a store says of one object; `problem` says why there is no version."""

    version: str | None
    size_bytes: int | None
    problem: str | None = None


def size_and_mtime(size_bytes: int, mtime_ns: int) -> str:
    """The version of an object whose store keeps no etags; times are nanoseconds since 1970."""
    return f"{size_bytes}-{mtime_ns}"


def version_of(about: Mapping[str, Any]) -> str | None:
    """The version in what fsspec, S3 or HTTP tell of an object; None if they tell neither etag nor size and time."""
    for name in _ETAGS:
        if etag := about.get(name):
            return etag_version(str(etag))
    size = about.get("Size", about.get("size"))
    for name in _TIMES:
        if size is not None and about.get(name) is not None:
            return size_and_mtime(size, nanoseconds(about[name]))
    return None


def etag_version(etag: str) -> str:
    """An etag as it is stored: without its quotes."""
    return etag.replace('"', "")


def nanoseconds(time: Any) -> int:
    """Nanoseconds since 1970 of a date or datetime, an HTTP date, seconds as float, or an integer in s, ms, us or ns by size.

    Raises:
        ValueError: a text that is no time, or NaN.
        OverflowError, TypeError: no time at all.
    """
    if type(time) is int:  # first, as most manifests have integers
        return time * _unit(time)
    if isinstance(time, str):
        time = parsedate_to_datetime(time) if "," in time else datetime.fromisoformat(time)
    if isinstance(time, datetime):
        elapsed = (time if time.tzinfo else time.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
        return ((elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds) * 1000
    if isinstance(time, date):
        return nanoseconds(datetime(time.year, time.month, time.day, tzinfo=UTC))
    if isinstance(time, float):
        return int(time * 1e9)
    return int(time) * _unit(time)


def _unit(time: Any) -> int:
    """Nanoseconds of what an integer counts, told by its size."""
    if abs(time) < 10**11:
        return 10**9
    if abs(time) < 10**14:
        return 10**6
    return 1000 if abs(time) < 10**17 else 1  # until the year 5138


def look_up(uris: Sequence[str], reach: Reach) -> list[State]:
    """The state of each object, in order: local ones from the disk, the rest asked for concurrently.

    Where many lie in one folder of S3, the part of it between the first and the last is listed instead, unless most of what
    lies there is not looked for.
    """
    states: list[State | None] = [_local_state(uri) if is_local(uri) else None for uri in uris]
    missing = [k for k, state in enumerate(states) if state is None]
    listed = _listed([uris[k] for k in missing])
    ask = [k for k in missing if uris[k] not in listed]
    with ThreadPoolExecutor(LOOKUPS) as pool:
        asked = dict(zip(ask, pool.map(lambda uri: _remote_state(uri, reach), [uris[k] for k in ask]), strict=True))
    return [state or asked.get(k) or listed[uris[k]] for k, state in enumerate(states)]


def _local_state(path: str) -> State:
    try:
        about = os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return State(None, None, "not found")
    except (OSError, ValueError) as error:  # no permission, or no path at all
        return State(None, None, str(error))
    if not stat.S_ISREG(about.st_mode):
        return State(None, None, "not a regular file")
    return State(size_and_mtime(about.st_size, about.st_mtime_ns), about.st_size)


def _remote_state(uri: str, reach: Reach) -> State:
    try:
        fs = reach.store(uri)
    except (ImportError, OSError, ValueError) as error:  # a store that this machine cannot speak to; others it may
        return State(None, None, _said(error))
    try:
        about = fs.info(fs._strip_protocol(uri))
    except FileNotFoundError as error:  # fsspec's word for whatever an HTTP server answers; its text may hold a signature
        return State(None, None, _why_not(error.__cause__))
    except (PermissionError, ValueError, ParamValidationError) as error:  # the last: no name for a bucket
        return State(None, None, _said(error) or "no permission")
    if about["type"] != "file":
        return State(None, None, "not found: a folder is there")
    size = about.get("size")
    # A server that tells neither etag nor time leaves the size, if anything, to go by.
    return State(version_of(about) or f"size-{size}", size)


def _said(error: BaseException) -> str:
    return " ".join(without_signatures(str(error)).split())[:200]


def _why_not(cause: BaseException | None) -> str:
    if isinstance(cause, RefusedError):
        return str(cause)
    status = getattr(cause, "status", None)
    if status not in (None, 404):
        return f"the server answered with status {status}"
    return "not found" if status == 404 or cause is None else f"the server does not answer ({type(cause).__name__})"


def _listed(uris: Sequence[str]) -> dict[str, State]:
    """The states of those S3 objects that are cheaper to list."""
    folders: dict[str, list[str]] = defaultdict(list)
    for uri in uris:
        if uri.startswith("s3://"):
            folders[uri.rpartition("/")[0]].append(uri)
    found: dict[str, State] = {}
    for folder, inside in folders.items():
        if len(inside) >= LIST_FROM:
            found.update(_range(folder, sorted(set(inside))))
    return found


def _range(folder: str, uris: list[str]) -> Iterator[tuple[str, State]]:
    """List a folder from the first of these objects to the last; those that are not there are known to be missing."""
    wanted = dict.fromkeys(uris, State(None, None, "not found"))
    bucket, _, prefix = folder.removeprefix("s3://").partition("/")
    before = uris[0].removeprefix(f"s3://{bucket}/")[:-1]
    try:
        for k, answer in enumerate(list_keys(store(folder), bucket, f"{prefix}/" if prefix else "", before)):
            uri = f"s3://{bucket}/{answer['Key']}"
            if wanted.pop(uri, None):
                yield uri, State(version_of(answer), answer["Size"])
            if uri >= uris[-1]:
                break
            if k >= LISTED_PER_SOURCE * len(uris):
                return
    except (FileNotFoundError, PermissionError, ParamValidationError):  # no such bucket, or it may be read but not listed
        return
    yield from wanted.items()
