"""What modality a source is, by where it lies or by its first bytes. In: paths; sources. Out: a modality, a guess, or a skip.

DESIGN's order: the manifest's column, the argument, a folder named like a modality, magic bytes, extension. The first three
cost nothing and are settled while listing; `find_modalities` reads the first bytes of those that are left.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from aiohttp import ClientError
from botocore.exceptions import BotoCoreError

from encoders.media.sniff import HEAD_BYTES, Guess, is_recognised, sniff
from pipelines.identity import is_local, without_signatures
from pipelines.reach import Reach

READS = 64  # concurrent reads of first bytes

# Files of these kinds are never media, whatever folder they lie in: skipped by name, their bytes are not looked at.
_NOT_MEDIA = """
    json jsonl ndjson geojson xml yaml yml toml ini cfg conf html htm css svg svgz tex bib rtf cls py pyc pyi ipynb js mjs
    jsx tsx c h cc cpp hpp cu java go rs rb sh bat ps1 sql so dll dylib exe jar whl o a md5 sha1 sha256 sha512 crc sfv sig
    asc pem key db sqlite sqlite3 mdb ldb lock log pid bak swp tmp part crdownload zip gz tgz bz2 xz zst lz4 7z rar tar iso
    dmg pdf doc docx xls xlsx ppt pptx odt ods epub pt pth ckpt safetensors onnx gguf pkl pickle joblib npz h5 hdf5 mat
    tfrecord arrow feather orc avro lance idx index tfevents srt vtt ass torrent url lnk ds_store
"""
NOT_MEDIA = frozenset(f".{name}" for name in _NOT_MEDIA.split())
_KIND = re.compile(r"\.[a-z][a-z0-9]{0,9}")
_UNREADABLE = (OSError, ValueError, ImportError, ClientError, BotoCoreError)  # ClientError: a request that was refused


def never_media(kind: str) -> bool:
    """Whether files with this extension are skipped by name: unless an installed modality has said that they are its own."""
    return kind in NOT_MEDIA and not is_recognised(kind)


class FolderNames:
    """The modality that a folder's name tells: `image` or `images`, in any case; of several on a path the innermost."""

    def __init__(self, modalities: Collection[str]) -> None:
        self._names = {name: m for m in modalities for name in (m.lower(), f"{m.lower()}s")}
        self._known: dict[str, str | None] = {}

    def modality(self, folders: str) -> str | None:
        """The modality of what lies in `folders`, a path with slashes."""
        if folders not in self._known:
            if len(self._known) > 100_000:
                self._known.clear()
            named = (self._names.get(name) for name in reversed(folders.lower().split("/")))
            self._known[folders] = next(filter(None, named), None)
        return self._known[folders]


def extension(uri: str) -> str:
    """The kind of file that a path or URI names, so that there are few: `.jpg`, "other" or "no extension".

    The extension has its dot and is in lower case; what does not look like one (a date, a version, a hash) is "other".
    """
    if uri.startswith(("http://", "https://")):
        uri = re.sub(r"\?[^#]*", "", uri)
    name = uri[uri.rfind("/") + 1 :]
    dot = name.rfind(".")
    kind = name[dot:].lower() if dot > 0 else ""
    if not kind:
        return "no extension"
    return kind if kind in NOT_MEDIA or _KIND.fullmatch(kind) else "other"


def find_modalities(batch: pa.Table, reach: Reach) -> list[Guess]:
    """A guess for each source, by its first bytes and its name; the reads are concurrent.

    A source whose bytes cannot be read is a Guess without modality, `why` "ambiguous", and the reason in `detail`, without
    the query of its URL; that goes for a store that does not answer too.

    Args:
        batch: columns of a corpus's batch: uri, size_bytes, media, container, offset, read_uri.
        reach: where the sources of the corpus may lie.
    """
    rows = batch.select(["uri", "size_bytes", "container", "offset", "read_uri"]).to_pylist()
    inline = pc.binary_slice(batch["media"], 0, HEAD_BYTES).to_pylist()
    heads: list[bytes | BaseException | None] = list(inline)
    by_store: dict[str, list[int]] = defaultdict(list)
    for k, row in enumerate(rows):
        if heads[k] is None:
            by_store[_store_of(_where(row))].append(k)
    for group in by_store.values():
        for k, head in zip(group, _read_heads([rows[k] for k in group], reach), strict=True):
            heads[k] = head
    return [_guess(head, row) for head, row in zip(heads, rows, strict=True)]


def _guess(head: bytes | BaseException | None, row: dict[str, Any]) -> Guess:
    if isinstance(head, bytes):
        return sniff(head, _name(row))
    reason = " ".join(without_signatures(str(head)).split())[:200] or type(head).__name__
    return Guess(None, None, "ambiguous", f"its first bytes cannot be read: {reason}")


def _name(row: dict[str, Any]) -> str:
    """The name that a source's extension is taken from; `#` and `?` are no marks in it."""
    uri: str = row["uri"]
    if row["container"] is None and uri.startswith(("http://", "https://")):
        uri = uri.partition("?")[0].partition("#")[0]
    return re.sub("[?#]", "_", uri.rpartition("/")[2])


def _where(row: dict[str, Any]) -> str:
    return row["container"] or row["read_uri"] or row["uri"]  # type: ignore[no-any-return]


def _store_of(uri: str) -> str:
    return "" if is_local(uri) else "/".join(uri.split("/", 3)[:3])


def _read_heads(rows: list[dict[str, Any]], reach: Reach) -> Iterator[bytes | BaseException]:
    """The first bytes of sources of one store; those of a shard are a range of it."""
    uris = [_where(row) for row in rows]
    starts = [row["offset"] or 0 for row in rows]
    ends = [
        s + min(HEAD_BYTES, HEAD_BYTES if r["size_bytes"] is None else r["size_bytes"])
        for s, r in zip(starts, rows, strict=True)
    ]
    if is_local(uris[0]):
        return (_read_local(*each) for each in zip(uris, starts, ends, strict=True))
    try:
        fs = reach.store(uris[0])
    except _UNREADABLE as error:
        return iter([error] * len(rows))
    paths = [str(fs._strip_protocol(uri)) for uri in uris]
    if uris[0].startswith("http") and not any(row["container"] for row in rows):
        with ThreadPoolExecutor(READS) as pool:
            return iter(list(pool.map(lambda path: _read_stream(fs, path), paths)))
    full = [k for k in range(len(rows)) if ends[k] > starts[k]]  # an empty range of an empty object is an error to S3
    heads = fs.cat_ranges([paths[k] for k in full], [starts[k] for k in full], [ends[k] for k in full], on_error="return")
    found = dict(zip(full, heads, strict=True))
    return (found.get(k, b"") for k in range(len(rows)))


def _read_local(path: str, start: int, end: int) -> bytes | BaseException:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            file.seek(start)
            return file.read(end - start)
    except (OSError, ValueError) as error:  # the latter: a NUL in its path
        return error


def _read_stream(fs: Any, url: str) -> bytes | BaseException:
    """The first bytes of a URL, from a server that may not know ranges: the rest is not read."""
    try:
        with fs.open(url, "rb", block_size=0, size=HEAD_BYTES) as file:
            return bytes(file.read(HEAD_BYTES))
    except _UNREADABLE as error:
        return error
