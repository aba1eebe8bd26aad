"""A small table to search, made by the real parts with untrained towers. In: a folder. Out: a space, media files, a table."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import soundfile
import torch
from PIL import Image

from encoders.encoder import build_encoder, seeded_tower
from encoders.space import Space, space_fingerprint, trained
from pipelines.identity import item_id, source_id
from pipelines.storage import lance_options
from pipelines.table import VECTOR, create_table, item_schema, open_table, table_uri

WORDS = ("a", "photo", "of", "dog", "cat", "bell", "barking", "sea", "rain")
OWN = pa.schema([pa.field("thing", pa.string()), pa.field("rating", pa.float64())])
MODALITIES = ("image", "text", "audio", "imu")


def make_space(folder: Path, seed: int = 0) -> Space:
    """The demo towers with random weights, saved and loaded; another seed is another space."""
    encoders = {}
    for modality in MODALITIES:
        encoder = build_encoder(f"demo/{modality}", {"vocabulary": list(WORDS)} if modality == "text" else {})
        encoders[modality] = trained(encoder, seeded_tower(encoder, seed), 10.0, {}, torch.float32)
    space = Space("toy", 128, space_fingerprint(encoders["image"].fingerprint, 128), "CC0-1.0", encoders)
    return space.save(folder / f"space-{seed}")


def make_media(folder: Path, count: int) -> list[tuple[str, Path]]:
    """`count` pictures, texts, sounds and traces as files: (modality, path)."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    made: list[tuple[str, Path]] = []
    for n in range(count):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(folder / f"{n}.png")
        (folder / f"{n}.txt").write_text(" ".join(rng.choice(WORDS, 4)))
        soundfile.write(folder / f"{n}.wav", rng.uniform(-0.5, 0.5, 8000), 16_000)
        np.save(folder / f"{n}.npy", rng.normal(size=(300, 6)).astype(np.float32))
        made += list(zip(MODALITIES, (folder / f"{n}.{kind}" for kind in ("png", "txt", "wav", "npy")), strict=True))
    return made


def rows_of(space: Space, media: list[tuple[str, Path]]) -> pa.Table:
    """The table's rows of these media."""
    rows = [_row(space, modality, path, n) for n, (modality, path) in enumerate(media)]
    return pa.Table.from_pylist(rows, schema=item_schema(space, OWN))


def write_table(db: Path | str, rows: pa.Table, table: str = "media") -> None:
    """Make the table, or append to it."""
    uri = table_uri(str(db), table)
    if open_table(uri) is None:
        create_table(uri, rows.schema)
    if rows.num_rows:
        lance.write_dataset(rows, uri, mode="append", storage_options=lance_options(uri))


def _row(space: Space, modality: str, path: Path, number: int) -> dict[str, Any]:
    encoder = space.encoder(modality)
    facts = encoder.describe(encoder.decode(path))
    own = {"thing": WORDS[number % len(WORDS)], "rating": number / 10}
    return {
        "item_id": item_id(str(path), modality),
        "source_id": source_id(str(path), modality),
        "uri": str(path),
        "modality": modality,
        "corpus": str(path.parent),
        "version": "1",
        "recipe": "0" * 32,
        "segment_count": 1,
        "size_bytes": path.stat().st_size,
        **vars(facts),
        VECTOR: space.embed(modality, [path])[0],
        "encoder": encoder.fingerprint,
        "embedded_at": datetime(2026, 1, 1, tzinfo=UTC),
        "run_id": "test",
        **own,
    }


def many_rows(space: Space, first: int, count: int, version: str = "1") -> pa.Table:
    """Rows with vectors in clusters, each modality in a cone of its own; two items a source, and words in the texts."""
    numbers = np.arange(first, first + count)
    modalities = np.array(MODALITIES)[numbers // 2 % len(MODALITIES)]
    ids = [f"{n:032x}" for n in numbers]
    given: dict[str, Any] = {
        "item_id": ids,
        "source_id": [f"{n // 2:032x}" for n in numbers],
        "uri": [f"/media/{n // 2}" for n in numbers],
        "modality": modalities,
        "corpus": ["/media"] * count,
        "version": [version] * count,
        "recipe": ["0" * 32] * count,
        "segment_count": np.full(count, 2),
        "text": [f"{WORDS[n % len(WORDS)]} {n}" if m == "text" else None for n, m in zip(numbers, modalities, strict=True)],
        VECTOR: list(clustered(numbers, modalities, space.dim, int(version))),
        "encoder": [space.encoder("image").fingerprint] * count,
        "embedded_at": [datetime(2026, 1, 1, tzinfo=UTC)] * count,
        "run_id": ["test"] * count,
        "thing": [WORDS[n % len(WORDS)] for n in numbers],
        "rating": numbers / 10,
    }
    schema = item_schema(space, OWN)
    columns = [pa.array(given[f.name], f.type) if f.name in given else pa.nulls(count, f.type) for f in schema]
    return pa.table(columns, schema=schema)


def clustered(numbers: np.ndarray, modalities: np.ndarray, dim: int, seed: int = 1) -> np.ndarray:
    """Unit vectors: a cluster's centre in a few dimensions, what is the item's own, and what its modality adds."""
    cones = dict(zip(MODALITIES, np.random.default_rng(99).normal(size=(len(MODALITIES), dim)), strict=True))
    centres = np.random.default_rng(98).normal(size=(200, 16)) @ np.random.default_rng(97).normal(size=(16, dim)) / 4
    own = np.random.default_rng([seed, int(numbers[0])]).normal(size=(len(numbers), dim))
    vectors = centres[numbers // len(MODALITIES) % 200] + 0.6 * own + 0.7 * np.stack([cones[m] for m in modalities])
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
