"""Tables without media, for the benchmarks of scale. In: how many items. Out: rows as the pipeline makes them, and a manifest.

Names, ids, versions and recipes are made by the program's own functions; only the vectors are noise.
"""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from encoders.space import SHIPPED, Space, load_space
from pipelines.bottleneck import MEASURES
from pipelines.corpus.versions import size_and_mtime
from pipelines.identity import item_id, recipe, source_id
from pipelines.segments import WHOLE
from pipelines.table import VECTOR, item_schema

BUCKET = "s3://nothing-is-here"  # whoever reads a medium fails
MODALITY = "image"
_MTIME_NS = 1_750_000_000_000_000_000


def space_of(folder: Path, dim: int) -> Space:
    """The demo space under another dimension; its towers are not there, so nothing can be embedded with it."""
    card = json.loads((SHIPPED / "demo" / "space.json").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "space.json").write_text(json.dumps({**card, "name": f"synthetic-{dim}", "dim": dim}))
    return load_space(folder)


def uris(first: int, count: int) -> list[str]:
    """Addresses of items `first` to `first + count`, a thousand a folder."""
    return [f"{BUCKET}/crawl-2026/{k // 1000:07}/{k:010}.jpg" for k in range(first, first + count)]


def sizes_and_times(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """What a store tells of the items: bytes, and nanoseconds since 1970."""
    k = np.arange(first, first + count)
    return 50_000 + k % 9973, _MTIME_NS + k * 1_000_000_007


def manifest(first: int, count: int) -> pa.Table:
    """Rows of a manifest: uri, modality, size, mtime."""
    size, mtime = sizes_and_times(first, count)
    modality = pa.array([MODALITY] * count)
    return pa.table({"uri": uris(first, count), "modality": modality, "size": size, "mtime": mtime})


def block(space: Space, first: int, count: int, vectors: np.ndarray | None = None) -> pa.Table:
    """Rows as the embedding actors hand them to the writer: the table's columns, and those of the pipeline itself.

    Args:
        space: whose schema, encoders and fingerprints.
        first: number of the first item.
        count: how many.
        vectors: float32 (count, D) of norm 1; None: noise of their own.
    """
    names = uris(first, count)
    states = [size_and_mtime(int(s), int(t)) for s, t in zip(*sizes_and_times(first, count), strict=True)]
    encoder = space.encoder(MODALITY)
    if vectors is None:
        vectors = noise(np.random.default_rng(first), count, space.dim)
    constants = {
        "modality": MODALITY,
        "corpus": BUCKET,
        "recipe": recipe(encoder.fingerprint, WHOLE.mark),
        "mime": "image/jpeg",
        "encoder": encoder.fingerprint,
        "run_id": "0" * 32,
    }
    flat = pa.array(vectors.reshape(-1), pa.float32())
    now = pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC"))
    made: dict[str, Any] = {name: pa.repeat(pa.scalar(value), count) for name, value in constants.items()} | {
        "item_id": [item_id(uri, MODALITY) for uri in names],
        "source_id": [source_id(uri, MODALITY) for uri in names],
        "uri": names,
        "version": states,
        "size_bytes": sizes_and_times(first, count)[0],
        "width": pa.repeat(pa.scalar(640, pa.int32()), count),
        "height": pa.repeat(pa.scalar(480, pa.int32()), count),
        VECTOR: pa.FixedSizeListArray.from_arrays(flat, space.dim),
        "embedded_at": pa.repeat(now, count),
    }
    schema = item_schema(space, pa.schema([]))
    schema = schema.remove(schema.get_field_index("segment_count"))  # the writer's to add
    rows = pa.table([made.get(f.name, pa.nulls(count, f.type)) for f in schema], names=schema.names).cast(schema)
    for name in ("stage", "type", "message"):
        rows = rows.append_column(f"_reject_{name}", pa.nulls(count, pa.string()))
    for name, value in {"_reject_expected": False, "_replaces": False, "_was_rejected": False, "_last": True}.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value), count))
    for name in MEASURES:
        rows = rows.append_column(name, pa.array(np.zeros(count), pa.float32()))
    for name, number in {"_part": 0, "_parts": 1, "_ordinal": 0}.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(number, pa.int32()), count))
    return rows


def noise(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """float32 (count, dim) of norm 1."""
    vectors = rng.random((count, dim), np.float32) - 0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "machine": f"{psutil.cpu_count()} CPUs, {psutil.virtual_memory().total >> 30} GiB, {platform.machine()}",
        "load_average_1min": round(psutil.getloadavg()[0], 1),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("pylance", "pyarrow", "numpy", "pandas", "ray", "torch")},
        },
    }
