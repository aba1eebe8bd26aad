"""The frozen image tower, run once. In: a column of images, a space, a LanceDB table. Out: a vector for each image.

Images that the table holds as the tower and the file are now are taken from it; the others are embedded by the ordinary
pipeline (pipelines/embed.py), which keeps them there for the next training, and for search.  N images, D dimension.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from encoders.space import Space
from pipelines.embed import EmbedSettings, embed
from pipelines.identity import canonical_uri, item_id
from pipelines.report import EmbedReport
from pipelines.storage import filesystem
from pipelines.table import VECTOR, open_table, table_uri, vectors_of

TABLE = "media"


@dataclass(frozen=True)
class ImageVectors:
    """The frozen side of pairs.

    Attributes:
        vectors: float32 (N, D) unit vectors, row by row; NaN where an image has none.
        problems: why, by the row's number.
        table: URI of the table that holds them.
        found: images that it held before.
        embedded: those that it lacked.
    """

    vectors: np.ndarray
    problems: dict[int, str] = field(default_factory=dict)
    table: str = ""
    found: int = 0
    embedded: int = 0


def image_vectors(images: Sequence[str | bytes | None], manifest: str, space: Space, db: str) -> ImageVectors:
    """The vectors of images in the space, from the table `media` of `db`, completed where it lacks some.

    Args:
        images: for each row a URI, relative to the manifest's folder or not, the bytes themselves, or None.
        manifest: URI of the pairs manifest.
        space: as it was loaded from where all workers can load it.
        db: a LanceDB folder or URI; made if it is not there.

    Raises:
        ValueError: the table is of another space.
        OSError: another writer holds it, or the infrastructure stopped; run it again.
    """
    named, wanted = _wanted(images, manifest)
    listing = f"{db.rstrip('/')}/pairs/{hashlib.sha256(manifest.encode()).hexdigest()[:16]}.parquet"
    _write_listing(listing, list(wanted.values()))
    report = embed(_settings(listing, db, space))
    if report.exit_code:
        raise OSError(f"embedding the images of {manifest} did not end well: {'; '.join(report.failures)}")
    uri = table_uri(canonical_uri(db), TABLE)
    vectors_UD, place = _read(uri, [item_id(name, "image") for name in wanted], space)
    rejected = _rejected(f"{uri.removesuffix('.lance')}__rejects.lance")
    rows, problems = [], dict[int, str]()
    positions = {name: k for k, name in enumerate(wanted)}
    for number, row in enumerate(named):
        k = -1 if row is None else positions[row["uri"]]
        rows.append(place[k] if k >= 0 else -1)
        if rows[-1] < 0:
            absent = "nothing there: the manifest's value is null"
            problems[number] = absent if row is None else rejected.get(row["uri"], "the table has no vector of it")
    padded = np.concatenate([vectors_UD, np.full((1, space.dim), np.nan, np.float32)])  # row -1
    return ImageVectors(padded[rows], problems, uri, report.tally.unchanged, report.tally.embedded)


def foresee_image_vectors(images: Sequence[str | bytes | None], manifest: str, space: Space, db: str) -> EmbedReport:
    """What `image_vectors` of the same arguments would embed, and what that takes: the report of a dry run of embedding.

    Raises:
        ValueError: as `image_vectors`.
    """
    with tempfile.TemporaryDirectory(prefix="bindery-") as folder:
        _write_listing(f"{folder}/images.parquet", list(_wanted(images, manifest)[1].values()))
        return embed(replace(_settings(f"{folder}/images.parquet", db, space), dry_run=True))


def _settings(listing: str, db: str, space: Space) -> EmbedSettings:
    return EmbedSettings(corpus=listing, db=db, table=TABLE, space=space.uri, modality="image", max_reject_rate=1.0)


def _wanted(
    images: Sequence[str | bytes | None], manifest: str
) -> tuple[list[dict[str, Any] | None], dict[str, dict[str, Any]]]:
    """The images as rows of a corpus, one by one; and each once, by its name."""
    named = [None if image is None else _named(image, manifest) for image in images]
    return named, {row["uri"]: row for row in named if row is not None}


def _named(image: str | bytes, manifest: str) -> dict[str, Any]:
    """An image as a row of a corpus: its name in the table, where it is read from, or its bytes."""
    if isinstance(image, bytes):
        name = f"{canonical_uri(manifest)}#image-{hashlib.sha256(image).hexdigest()[:32]}"
        return {"uri": canonical_uri(name), "read": name, "media": image}
    name = canonical_uri(image, canonical_uri(manifest).rpartition("/")[0])
    return {"uri": name, "read": image if image.startswith(("http://", "https://")) else name, "media": None}


def _write_listing(uri: str, rows: list[dict[str, Any]]) -> None:
    """A corpus manifest of these images."""
    media = [row["media"] for row in rows]
    columns = {"uri": pa.array([row["read"] for row in rows], pa.string())}
    if any(one is not None for one in media):
        columns["media"] = pa.array(media, pa.binary())
    store, path = filesystem(uri)
    with store.open(path, "wb") as file:
        pq.write_table(pa.table(columns), file)


def _read(uri: str, ids: list[str], space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (U, D) of those ids that the table has, and for each id its row among them, or -1."""
    place, found = np.full(len(ids), -1), list[np.ndarray]()
    index = {one: k for k, one in enumerate(ids)}
    current, count = space.encoder("image").fingerprint, 0
    dataset: Any = open_table(uri)
    columns = ["item_id", "encoder", VECTOR]
    for batch in dataset.to_batches(columns=columns, filter="modality = 'image'") if dataset is not None else ():
        mine = [
            (k, index[one])
            for k, (one, encoder) in enumerate(zip(batch["item_id"].to_pylist(), batch["encoder"].to_pylist(), strict=True))
            if one in index and encoder == current
        ]
        if mine:
            found.append(vectors_of(batch)[[k for k, _ in mine]])
            place[[k for _, k in mine]] = range(count, count + len(mine))
            count += len(mine)
    return np.concatenate([np.empty((0, space.dim), np.float32), *found]), place


def _rejected(uri: str) -> dict[str, str]:
    """URI -> why it has no vector."""
    dataset = open_table(uri)
    if dataset is None:
        return {}
    rows = dataset.to_table(columns=["uri", "error_type", "message"], filter="modality = 'image'").to_pylist()
    return {row["uri"]: f"{row['error_type']}: {row['message']}" for row in rows}
