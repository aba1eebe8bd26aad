"""WebDataset: tar shards whose members are sources. In: shards, as a file, a pattern or a folder of nothing else. Out: members.

`dir/*.tar`, `dir/shard-{000..012}.tar`. Only headers are read here; a member is a range of its shard: `size_bytes` at `offset`
of `container`. Its URI is `shard_uri#member`, its version the shard's and the offset. Its modality is the argument's; else that
of a part of its name between dots (`0001.depth.png`); else that of its innermost folder within the shard; else its bytes tell:
the shard's own folders do not count, for a sample is of files that differ by extension (`0001.jpg`, `0001.txt`).
Globs are matched against the member's name. What is no regular file, or has an absolute name or one with "..", is skipped.
"""

from __future__ import annotations

import tarfile
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from posixpath import normpath
from typing import NamedTuple

import pyarrow as pa

from pipelines.corpus.corpus import CorpusError, Opened, Wanted
from pipelines.corpus.globs import Filter, expand_braces
from pipelines.corpus.listing import list_files
from pipelines.corpus.modality import NOT_MEDIA, FolderNames, extension, never_media
from pipelines.corpus.place import Place, reading
from pipelines.corpus.rows import Row, tables
from pipelines.corpus.versions import look_up
from pipelines.identity import canonical_uri, is_local
from pipelines.reach import Reach

SHARDS_AT_ONCE = 8  # remote ones, whose headers are read ahead
BLOCK_BYTES = 1024**2  # of one read: about twenty headers of small members, or one of large ones
FIRST_SHARDS = 100  # of a pattern: if none of them is there, it is misspelt
FIRST_FILES = 100  # of a folder, that tell whether it is one of shards
_WILD = "*?["


class Shard(NamedTuple):
    """One tar file; `problem` says why it cannot be read."""

    uri: str
    read_uri: str
    version: str
    problem: str | None


def certainty(place: Place) -> int:
    """By its name, or because the first files of the folder are tar files, or at least no media."""
    if place.suffix == ".tar" and place.kind != "folder":
        return 3
    return 2 if place.kind == "folder" and _only_shards(place) else 0


def open_format(place: Place, wanted: Wanted) -> Opened:
    """The members of all shards.

    Raises:
        CorpusError: no shard is there.
    """
    beside: Counter[str] = Counter()
    with reading(place.read_uri):
        uris = _shard_uris(place, beside)
        missing = all(state.problem == "not found" for state in look_up(uris[:FIRST_SHARDS], wanted.reach))  # none at all, too
    if missing:
        raise CorpusError(f"no tar shard is at {place.uri}; check the spelling (dir/*.tar, dir/shard-{{000..012}}.tar)")

    def rows(skipped: Counter[str]) -> Iterator[pa.Table]:
        skipped.update(beside)
        with reading(place.read_uri):
            yield from tables(_members(uris, wanted, skipped), wanted.batch_rows, wanted.reach)

    return Opened(pa.schema([]), rows)


def _only_shards(place: Place) -> bool:
    try:
        first = {extension(file.path) for file in islice(list_files(place, Filter(), Counter()), FIRST_FILES)}
    except CorpusError:  # a folder that may not be read, and perhaps need not be: the listing proper will tell
        return False
    return ".tar" in first and first <= NOT_MEDIA  # an index beside them does no harm


def _shard_uris(place: Place, beside: Counter[str]) -> list[str]:
    """The shards; `beside` counts what else lies in their folder."""
    if place.kind == "file":
        return [place.read_uri]
    found: list[str] = []
    if place.kind == "folder":
        for file in list_files(place, Filter(), beside):
            if extension(file.path) == ".tar":
                found.append(f"{place.uri}/{file.path}")
            else:
                beside[extension(file.path)] += 1
        return found
    patterns = expand_braces(place.read_uri)
    for pattern in patterns:
        if not any(mark in pattern for mark in _WILD) or place.scheme == "http":
            found += [pattern] if len(patterns) > 1 else []
            continue
        protocol = "" if is_local(pattern) else f"{place.scheme}://"
        found += [protocol + path for path in sorted(place.fs.glob(place.fs._strip_protocol(pattern)))]
    return found


def _members(uris: list[str], wanted: Wanted, skipped: Counter[str]) -> Iterator[Row]:
    shards = _shards(uris, wanted.reach)
    if is_local(uris[0]) or len(uris) == 1:
        for shard in shards:
            yield from _shard_members(shard, wanted, skipped)
        return
    waiting: deque[Future[tuple[list[Row], Counter[str]]]] = deque()
    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        for shard in shards:
            waiting.append(pool.submit(_whole_shard, shard, wanted))
            if len(waiting) > SHARDS_AT_ONCE:
                yield from _counted(waiting.popleft(), skipped)
        while waiting:
            yield from _counted(waiting.popleft(), skipped)


def _shards(uris: list[str], reach: Reach) -> Iterator[Shard]:
    for start in range(0, len(uris), 1000):
        some = uris[start : start + 1000]
        for uri, state in zip(some, look_up(some, reach), strict=True):
            yield Shard(canonical_uri(uri), uri, state.version or "", state.problem)


def _whole_shard(shard: Shard, wanted: Wanted) -> tuple[list[Row], Counter[str]]:
    skipped: Counter[str] = Counter()
    return list(_shard_members(shard, wanted, skipped)), skipped


def _counted(future: Future[tuple[list[Row], Counter[str]]], skipped: Counter[str]) -> list[Row]:
    rows, passed_over = future.result()
    skipped.update(passed_over)
    return rows


def _shard_members(shard: Shard, wanted: Wanted, skipped: Counter[str]) -> Iterator[Row]:
    if shard.problem:
        yield Row(shard.uri, problem=shard.problem)
        return
    names = FolderNames(wanted.modalities)
    fs = wanted.reach.store(shard.read_uri)
    count = 0
    try:
        with (
            fs.open(fs._strip_protocol(shard.read_uri), "rb", block_size=BLOCK_BYTES) as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all
                count += 1
                row = _row(shard, member, names, wanted, skipped)
                if row is not None:
                    yield row
    except (tarfile.TarError, EOFError) as error:
        reason = f"a damaged tar file, or a compressed one, after {count} members ({error}); write it again, uncompressed"
        yield Row(shard.uri, version=shard.version, problem=reason)


def _row(shard: Shard, member: tarfile.TarInfo, names: FolderNames, wanted: Wanted, skipped: Counter[str]) -> Row | None:
    if member.isdir():
        return None
    reason = _reason_to_skip(member, wanted)
    if reason:
        skipped[reason] += 1
        return None
    name = normpath(member.name)
    uri = f"{shard.uri}#{name}"
    if name.encode("utf-8", "backslashreplace").decode() != name:
        shown = uri.encode("utf-8", "backslashreplace").decode()
        return Row(shown, wanted.modality, problem="its name is not valid UTF-8; write the shard again")
    folders, _, file = name.rpartition("/")
    modality = wanted.modality or names.modality("/".join([folders, *reversed(file.split(".")[1:-1])]))
    version = f"{shard.version}:{member.offset_data}"
    return Row(uri, modality, version, member.size, container=shard.read_uri, offset=member.offset_data)


def _reason_to_skip(member: tarfile.TarInfo, wanted: Wanted) -> str | None:
    parts = member.name.split("/")
    if not member.isreg() or member.issparse():
        return "not a regular file"
    if member.name.startswith("/") or ".." in parts:
        return "unsafe name"
    if any(part[:1] in (".", "_") and part != "." for part in parts if part):
        return "hidden"
    kind = extension(member.name)
    if never_media(kind):
        return kind
    return None if wanted.filter.wants(normpath(member.name)) else "excluded"
