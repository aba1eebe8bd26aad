"""Pairs of media, ready to train on. In: a pairs manifest and encoders. Out: small features in Ray's object store.

A pairs manifest is a Parquet file with a row for each pair and a column for each modality: relative or absolute URIs, or the
bytes themselves; text is the column `caption`, as it is. Media are read, decoded and preprocessed once, whatever the epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from encoders.encoder import Encoder
from encoders.errors import MediaError
from encoders.media.types import URI, Media
from pipelines.cluster import check_workers
from pipelines.copies import groups_of_copies
from pipelines.identity import canonical_uri
from pipelines.storage import filesystem

BLOCK_ROWS = 128
READS_AT_ONCE = 8  # of one task
_PROBLEM, _MEMBER, _ROW = "problem", "problem_member", "row"


class PairsError(ValueError):
    """The pairs manifest cannot be used; the message says why and what to change."""


@dataclass(frozen=True)
class Dropped:
    """A pair that cannot be used: its row in the manifest, which member is at fault, and why."""

    row: int
    member: str
    message: str


@dataclass(frozen=True)
class Pairs:
    """Whole pairs as features.

    Attributes:
        features: a materialised Dataset: `row` of the manifest, and a column `modality.feature` for each feature.
        dropped: rows with a member that is missing or cannot be decoded, each once.
        groups: int64, by row of the manifest; rows of one number share an image.
        names: by row of the manifest, what a message calls it.
    """

    features: ray.data.Dataset
    dropped: list[Dropped]
    groups: np.ndarray
    names: Sequence[str]

    @property
    def found(self) -> int:
        """Rows of the manifest."""
        return len(self.groups)

    @property
    def usable(self) -> np.ndarray:
        """Rows of the manifest that are whole, rising."""
        return np.setdiff1d(np.arange(self.found), [dropped.row for dropped in self.dropped])

    @property
    def count(self) -> int:
        """How many pairs can be used."""
        return self.found - len(self.dropped)

    def without(self, problems: Mapping[int, str], member: str) -> Pairs:
        """The pairs less those rows whose `member` cannot be used, each with its reason."""
        already = {dropped.row for dropped in self.dropped}
        more = [Dropped(row, member, problem) for row, problem in problems.items() if row not in already]
        return replace(self, dropped=sorted([*self.dropped, *more], key=lambda dropped: dropped.row))

    def alike(self, vectors_ND: np.ndarray) -> Pairs:
        """The pairs, where copies of an image under other names count as one image.

        Args:
            vectors_ND: float32, by row of the manifest, of the images of all usable rows.
        """
        groups = np.arange(self.found, dtype=np.int64) + self.found
        groups[self.usable] = groups_of_copies(vectors_ND[self.usable])
        return replace(self, groups=groups)


def column_of(modality: str) -> str:
    """The column of a pairs manifest that holds a modality."""
    return "caption" if modality == "text" else modality


def read_manifest(uri: str, modalities: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
    """The columns of these modalities.

    Args:
        uri: of a Parquet file.
        modalities: whose columns must be there.
        optional: whose columns are taken if they are there.

    Raises:
        PairsError: no such file, not Parquet, or a column is missing.
    """
    there = columns_of(uri)
    missing = [column_of(m) for m in modalities if column_of(m) not in there]
    if missing:
        raise PairsError(
            f"{uri} has no column {', '.join(map(repr, missing))}; it has {', '.join(there)}. A pairs manifest has one "
            "column of URIs for each modality, and `caption` for text"
        )
    wanted = dict.fromkeys(column_of(m) for m in (*modalities, *optional) if column_of(m) in there)
    store, path = filesystem(uri)
    with store.open(path, "rb") as file:
        return pq.read_table(file, columns=list(wanted))


def columns_of(uri: str) -> list[str]:
    """The columns of a Parquet file.

    Raises:
        PairsError: no such file, or not Parquet.
    """
    store, path = filesystem(uri)
    try:
        with store.open(path, "rb") as file:
            return list(pq.read_schema(file).names)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise PairsError(f"no pairs manifest at {uri}; give the Parquet file itself, e.g. .../pairs.parquet") from error
    except pa.ArrowInvalid as error:
        raise PairsError(f"{uri} cannot be read as Parquet: {error}; write the pairs manifest again") from error


def prepare_pairs(manifest: pa.Table, uri: str, encoders: Mapping[str, Encoder]) -> Pairs:
    """Read, decode and preprocess every pair on all the cluster's CPUs, and keep the features in the object store.

    Args:
        manifest: as read from `uri`, which relative URIs are relative to.
        uri: of the manifest.
        encoders: by modality; each has its column.

    Raises:
        SpaceError: a node lacks an installed package that an encoder comes from.
    """
    check_workers(encoders.values())
    manifest = manifest.append_column(_ROW, pa.array(range(len(manifest)), pa.int64()))
    blocks = [manifest.slice(start, BLOCK_ROWS).combine_chunks() for start in range(0, len(manifest), BLOCK_ROWS)]
    members = [Member(modality, encoder, uri.rpartition("/")[0] or ".") for modality, encoder in encoders.items()]
    features = ray.data.from_arrow(blocks).map_batches(
        partial(_features, members=members), batch_size=None, batch_format="pyarrow"
    )
    features = features.materialize()
    rows = features.select_columns([_ROW, _MEMBER, _PROBLEM]).to_pandas()
    bad = rows[rows[_PROBLEM] != ""].sort_values(_ROW)
    dropped = [Dropped(int(row), str(member), str(problem)) for row, member, problem in bad.itertuples(index=False)]
    if dropped:
        features = features.map_batches(_whole, batch_size=None, batch_format="numpy").materialize()
    return Pairs(features, dropped, groups_of(manifest, uri), _names(manifest, list(dict.fromkeys([*encoders, "image"]))))


def groups_of(manifest: pa.Table, uri: str) -> np.ndarray:
    """int64 by row: a number, the same where the image is, by its canonical URI or by its bytes."""
    base = uri.rpartition("/")[0] or "."
    images = manifest["image"].to_pylist()
    keys = [canonical_uri(image, base) if isinstance(image, str) else image for image in images]
    return np.asarray(pd.factorize(np.array([*keys, None], object))[0][:-1], np.int64)


def _names(manifest: pa.Table, modalities: Sequence[str]) -> list[str]:
    """What the members of each row are called, as far as that is words."""
    columns = [manifest[column_of(modality)].to_pylist() for modality in modalities]
    return [", ".join(value[:120] for value in row if isinstance(value, str)) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Member:
    """One modality of the pairs: value of its column -> features."""

    modality: str
    encoder: Encoder
    base: str

    def __call__(self, value: str | bytes | None) -> tuple[dict[str, np.ndarray], str]:
        """The features and "", or zeros and what is wrong."""
        try:
            if value is None:
                raise MediaError("nothing there: the manifest's value is null")
            return self.encoder.preprocess(self._media(value)), ""
        except (MediaError, OSError) as error:
            zeros = {name: np.zeros(f.shape, f.dtype) for name, f in self.encoder.features.items()}
            return zeros, f"{type(error).__name__}: {error}"

    def _media(self, value: str | bytes) -> Media:
        if isinstance(value, bytes) or self.modality == "text":
            return value
        return URI(canonical_uri(value, self.base))


def _features(block: pa.Table, members: Sequence[Member]) -> dict[str, Any]:
    columns: dict[str, Any] = {_ROW: block[_ROW].to_numpy()}
    problems, at_fault = [""] * len(block), [""] * len(block)
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        for member in members:
            made = list(pool.map(member, block[column_of(member.modality)].to_pylist()))
            for name in member.encoder.features:
                columns[f"{member.modality}.{name}"] = np.stack([features[name] for features, _ in made])
            for k, (_, problem) in enumerate(made):
                if problem and not problems[k]:
                    problems[k], at_fault[k] = problem, member.modality
    return {**columns, _PROBLEM: np.array(problems, object), _MEMBER: np.array(at_fault, object)}


def _whole(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    keep = batch[_PROBLEM] == ""
    return {name: values[keep] for name, values in batch.items()}
