"""The same few media as a corpus of every format. In: a folder of the test. Out: what to open, made of real parts."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines.corpus import Corpus


def picture(mode: str = "RGB", kind: str = "PNG") -> bytes:
    """A small picture's bytes."""
    out = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint16 if mode == "I;16" else np.uint8).reshape(8, 8)).convert(mode).save(out, kind)
    return out.getvalue()


MEDIA: Mapping[str, bytes] = {
    "a.jpg": picture(kind="JPEG"),
    "b b#1.png": picture(),
    "sub/c.jpg": picture("L", "JPEG"),
    "sub/ü.txt": b"words",
}


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def tar(members: Mapping[str, bytes]) -> bytes:
    """A tar file's bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def manifest_parquet(path: Path, columns: Mapping[str, Any]) -> Path:
    """A Parquet manifest."""
    pq.write_table(pa.table(dict(columns)), path)
    return path


def manifest_jsonl(path: Path, rows: list[Any]) -> Path:
    """A JSON Lines manifest; what is a str is a line as it is."""
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def rows_of(corpus: Corpus) -> list[dict[str, Any]]:
    """All rows of a corpus."""
    return [row for batch in corpus.batches() for row in batch.to_pylist()]


def uris_of(corpus: Corpus) -> list[str]:
    """All URIs of a corpus."""
    return [row["uri"] for row in rows_of(corpus)]


def as_prefix(folder: Path, url: str) -> str:
    """A folder."""
    return str(write(folder / "media", MEDIA))


def as_manifest(folder: Path, url: str) -> str:
    """A manifest beside its media."""
    write(folder, MEDIA)
    return str(manifest_parquet(folder / "list.parquet", {"uri": list(MEDIA), "n": range(len(MEDIA))}))


def as_urls(folder: Path, url: str) -> str:
    """A text file of URLs."""
    write(folder, MEDIA)
    lines = [f"{url}/{name.replace('#', '%23')}" for name in MEDIA]
    (folder / "urls.txt").write_text("# media\n\n" + "\n".join(lines))
    return str(folder / "urls.txt")


def as_lance_table(folder: Path, url: str) -> str:
    """A Lance table that holds the bytes."""
    table = pa.table({"id": list(MEDIA), "media": pa.array(MEDIA.values(), pa.large_binary()), "n": range(len(MEDIA))})
    lance.write_dataset(table, str(folder / "media.lance"))
    return str(folder / "media.lance")


def as_webdataset(folder: Path, url: str) -> str:
    """Two tar shards."""
    names = list(MEDIA)
    shards = {f"s-{k}.tar": tar({name: MEDIA[name] for name in names[2 * k : 2 * k + 2]}) for k in range(2)}
    return str(write(folder / "shards", shards) / "s-{0..1}.tar")


FORMATS: dict[str, Callable[[Path, str], str]] = {
    "prefix": as_prefix,
    "manifest": as_manifest,
    "urls": as_urls,
    "lance_table": as_lance_table,
    "webdataset": as_webdataset,
}
