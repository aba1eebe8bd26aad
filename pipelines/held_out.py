"""Things to evaluate a space on, as vectors. In: a pairs manifest, or a table. Out: a `Sample`, and what had to be left out.

A pairs manifest is embedded on all the cluster's processors, by the space at hand. A table's vectors are taken as they are
stored; a column says which of its rows are of the same thing.  N things, D dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import torch

from encoders.embedder import Embedder
from encoders.evaluation import LEAST_ITEMS, Sample
from encoders.space import Space, load_space
from pipelines.cluster import Resources, await_free, check_workers, start_ray
from pipelines.embed import run_errors
from pipelines.fresh_rows import FreshRows, fresh_rows
from pipelines.pairs import READS_AT_ONCE, Dropped, Member, PairsError, column_of, read_manifest
from pipelines.table import VECTOR, vectors_of

BLOCK_ROWS = 32  # of a manifest: whose media one actor holds at a time
_ROW, _PROBLEMS = "row", "problems"


@dataclass(frozen=True)
class HeldOut:
    """A sample and where it came from.

    Attributes:
        sample: the things.
        source: the manifest or table.
        things: N.
        dropped: media that could not be used; their things lack that modality.
        stale: modality -> rows of the table that an older encoder has embedded: left out.
        repeated: modality -> rows of the table beside the first of their thing: left out.
    """

    sample: Sample
    source: str
    things: int
    dropped: Sequence[Dropped] = ()
    stale: Mapping[str, int] = field(default_factory=dict)
    repeated: Mapping[str, int] = field(default_factory=dict)


def modalities_of(manifest: str, space: Space, labels: Sequence[str]) -> list[str]:
    """The modalities of a space that a pairs manifest has columns for.

    Raises:
        PairsError: fewer than two, or a label is no column of its.
    """
    there = read_manifest(manifest, labels, space.modalities).column_names
    found = [modality for modality in space.modalities if column_of(modality) in there and modality not in labels]
    if len(found) < 2:
        raise PairsError(
            f"{manifest} has columns for {', '.join(found) or 'none'} of {', '.join(space.modalities)}; give it two to compare"
        )
    return found


@dataclass(frozen=True)
class Picked:
    """The rows of a pairs manifest that a space is scored on: their numbers, their columns, the modalities among these."""

    modalities: Sequence[str]
    table: pa.Table
    rows: np.ndarray


def pick_pairs(
    space: Space, manifest: str, labels: Sequence[str] = (), rows: Sequence[int] | None = None, limit: int | None = None
) -> Picked:
    """What `embed_pairs` would embed of the same arguments.

    Raises:
        PairsError: no such file or column, or too few rows.
    """
    modalities = modalities_of(manifest, space, labels)
    table = read_manifest(manifest, [*modalities, *labels])
    chosen = np.arange(len(table)) if rows is None else np.asarray(rows, np.int64)
    chosen = _drawn(chosen, limit)
    if len(chosen) < LEAST_ITEMS:
        raise PairsError(f"{manifest} has {len(chosen)} rows to compare; give it at least {LEAST_ITEMS} things")
    return Picked(modalities, table.take(chosen), chosen)


def embed_pairs(
    space: Space, manifest: str, labels: Sequence[str] = (), rows: Sequence[int] | None = None, limit: int | None = None
) -> HeldOut:
    """Embed the media of a pairs manifest.

    Args:
        space: as it was loaded from where all workers can load it.
        manifest: URI of the Parquet file; a column a modality, `caption` for text; null where a thing lacks one.
        labels: further columns whose values are classes.
        rows: which of its rows; all if left out.
        limit: so many things at most, drawn at random, always the same.

    Raises:
        PairsError: the manifest cannot be used, or names too few things.
        OSError: the cluster stopped the work; run it again.
    """
    picked = pick_pairs(space, manifest, labels, rows, limit)
    modalities, table = picked.modalities, picked.table
    media = table.select([column_of(m) for m in modalities]).append_column(_ROW, pa.array(np.arange(len(table))))
    with run_errors():
        found = _embedded(space, modalities, media, manifest.rpartition("/")[0] or ".")
    dropped = [Dropped(int(picked.rows[row]), member, why) for row, member, why in found.pop(_PROBLEMS)]
    values = {name: _texts(table[name]) for name in labels}
    codes = {m: pd.factorize(table[column_of(m)].to_pandas())[0] for m in modalities}
    return HeldOut(Sample(found, codes, values), manifest, len(table), dropped)


def read_items(db: str, table: str, space: Space, same: str, labels: Sequence[str] = (), limit: int | None = None) -> HeldOut:
    """Take the vectors that a table holds.

    Args:
        db, table: where.
        space: whose vectors they must be.
        same: the column that has one value for all rows of a thing, such as a scene's number.
        labels: columns whose values are classes; a thing has the value that the first of its rows has.
        limit: so many things at most, drawn at random, always the same.

    Raises:
        ValueError: no such table or column, or (SpaceError) vectors of another space.
    """
    found = fresh_rows(db, table, space, [same, *labels], f"`{same}` IS NOT NULL")
    thing, count = draw_things(found, same, limit)
    return _sample_of_rows(found, thing, count, space.dim, labels)


def draw_things(found: FreshRows, same: str, limit: int | None) -> tuple[np.ndarray, int]:
    """Of each row the number of its thing, -1 where that is not drawn; and how many things are.

    Raises:
        PairsError: a limit that leaves nothing to compare.
    """
    code, names = pd.factorize(found.rows[same].to_pandas())
    drawn = _drawn(np.arange(len(names)), limit)
    place = np.full(len(names), -1)  # of a thing among those that were drawn
    place[drawn] = np.arange(len(drawn))
    return place[code], len(drawn)


def _sample_of_rows(found: FreshRows, thing: np.ndarray, count: int, dim: int, labels: Sequence[str]) -> HeldOut:
    """Rows of a table, each of the thing of that number, or of none (-1); of each thing the first one of a modality."""
    of = np.array(found.rows["modality"].to_pylist(), object)
    vectors: dict[str, np.ndarray] = {}
    codes: dict[str, np.ndarray] = {}
    repeated: dict[str, int] = {}
    for modality in sorted(set(of)):
        mine = np.flatnonzero((of == modality) & (thing >= 0))
        things, first = np.unique(thing[mine], return_index=True)
        repeated[modality] = len(mine) - len(things)
        stored = found.read(mine[first], ["uri", "text", VECTOR])
        vectors[modality] = np.full((count, dim), np.nan, np.float32)
        vectors[modality][things] = vectors_of(stored)
        codes[modality] = -1 - np.arange(count)  # nothing is the same as what is not there
        codes[modality][things] = pd.factorize(stored["text" if modality == "text" else "uri"].to_pandas())[0]
    known, first = np.unique(thing, return_index=True)
    values: dict[str, Sequence[str | None]] = {}
    for label in labels:
        texts = _texts(found.rows[label])
        values[label] = [texts[row] for row, one in zip(first, known, strict=True) if one >= 0]
    several = {modality: number for modality, number in repeated.items() if number}
    return HeldOut(Sample(vectors, codes, values), found.uri, count, (), found.stale, several)


def _drawn(chosen: np.ndarray, limit: int | None) -> np.ndarray:
    if limit is None or limit >= len(chosen):
        return chosen
    if limit < LEAST_ITEMS:
        raise PairsError(f"limit {limit} leaves nothing to compare; it must be at least {LEAST_ITEMS}")
    return np.sort(np.random.default_rng(0).permutation(chosen)[:limit])


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    return [None if value is None else str(value) for value in column.to_pylist()]


def _embedded(space: Space, modalities: Sequence[str], media: pa.Table, base: str) -> dict[str, Any]:
    """modality -> float32 (N, D), NaN where there is none; and the problems, as (row, modality, message)."""
    start_ray()
    check_workers(space.encoders[modality] for modality in modalities)
    await_free(Resources.of_cluster().gpus)
    resources = Resources.of_cluster()  # an autoscaler may have added some
    parts = [media.slice(start, BLOCK_ROWS).combine_chunks() for start in range(0, len(media), BLOCK_ROWS)]
    dataset = ray.data.from_arrow(parts).map_batches(
        _EmbedPairs,
        fn_constructor_args=(space.uri, tuple(modalities), base),
        batch_size=BLOCK_ROWS,  # each a block; with GPUs Ray wants to be told
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(len(parts), resources.gpus or resources.cpus)),
        num_gpus=1 if resources.gpus else None,
        num_cpus=None if resources.gpus else 1,
    )
    found: dict[str, Any] = {m: np.full((len(media), space.dim), np.nan, np.float32) for m in modalities}
    found[_PROBLEMS] = []
    vectors: Any = dataset.iter_batches(batch_size=None, batch_format="pyarrow")
    for block in vectors:
        rows = block[_ROW].to_numpy()
        for modality in modalities:
            data = b"".join(block[modality].to_pylist())
            found[modality][rows] = np.frombuffer(data, np.float32).reshape(len(rows), space.dim)
        found[_PROBLEMS] += [(p["row"], p["member"], p["message"]) for row in block[_PROBLEMS].to_pylist() for p in row]
    found[_PROBLEMS].sort()
    return found


class _EmbedPairs:
    """Actor, on a GPU where there is one: a block of a manifest -> the vectors of its media, NaN where there is none."""

    def __init__(self, space: str, modalities: Sequence[str], base: str) -> None:
        if not torch.cuda.is_available():
            torch.set_num_threads(1)
        encoders = load_space(space).encoders
        self._members = [Member(m, encoders[m], base) for m in modalities]
        self._embedders = {m: Embedder(encoders[m], BLOCK_ROWS) for m in modalities}

    def __call__(self, block: pa.Table) -> pa.Table:
        """`row`, a column of vectors as bytes for each modality, and the problems that its media had."""
        problems: list[list[dict[str, Any]]] = [[] for _ in range(len(block))]
        columns: dict[str, Any] = {_ROW: block[_ROW]}
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            for member in self._members:
                values = block[column_of(member.modality)].to_pylist()
                made = list(pool.map(member, values))
                features = {n: np.stack([one[n] for one, _ in made]) for n in member.encoder.features}
                vectors_ND = self._embedders[member.modality](features)
                for k, (value, (_, problem)) in enumerate(zip(values, made, strict=True)):
                    if problem:
                        vectors_ND[k] = np.nan
                    if problem and value is not None:
                        row = int(block[_ROW][k].as_py())
                        problems[k].append({"row": row, "member": member.modality, "message": problem})
                columns[member.modality] = pa.array([row.tobytes() for row in vectors_ND], pa.binary())
        kind = pa.list_(pa.struct([("row", pa.int64()), ("member", pa.string()), ("message", pa.string())]))
        return pa.table({**columns, _PROBLEMS: pa.array(problems, kind)})


def count_dropped(dropped: Sequence[Dropped]) -> dict[str, int]:
    """How many media of each modality could not be used."""
    in_order = sorted(one.member for one in dropped)
    return {member: len(list(same)) for member, same in groupby(in_order)}
