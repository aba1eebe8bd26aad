"""A table to search. In: words, media, an item id or a vector, and a filter. Out: hits, labels, counts; never a change.

D dimension, N rows. Search is exact: every vector is compared, by the cosine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import lancedb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from encoders.algebra import fuse, label_vectors, probabilities, similarity, units
from encoders.errors import SpaceError
from encoders.media.types import Media
from encoders.space import Space, load_space
from pipelines.filters import conjunction, is_in, quoted
from pipelines.hits import Hits, describe_query
from pipelines.rejects import valid_rejects
from pipelines.storage import lance_options
from pipelines.table import VECTOR, check_space, open_table, table_uri

FRESHNESS = timedelta(seconds=1)  # a long-lived index sees a commit at most this much later
BATCH_ROWS = 8192  # how many rows `zero_shot` and `stats` hold at once


@dataclass(frozen=True)
class Stats:
    """What a table holds.

    Attributes:
        items: rows by modality, largest first.
        rows: all of them.
        unindexed_rows: rows that a search compares one by one, as there is no vector index over them.
        space: the name of the space; `space_fingerprint` says which exactly.
        dim: D, the length of every vector.
        version: of the table, as Lance counts commits.
        columns: names, in order.
    """

    items: Mapping[str, int]
    rows: int
    unindexed_rows: int
    space: str
    space_fingerprint: str
    dim: int
    version: int
    columns: Sequence[str]


def open_index(db: str, table: str = "media", space: Space | str | None = None) -> Index:
    """Open a table for search.

    Args:
        db: the LanceDB folder or URI.
        table: its table.
        space: what queries are embedded with: a space, its name or URI. Left out, the one that the table's metadata names.

    Raises:
        ValueError: no such table, one that is not Bindery's, or (SpaceError) one of another space, or the space is not found.
    """
    uri = table_uri(db, table)
    dataset = open_table(uri)  # first: lancedb.connect would make the folder
    if dataset is None:
        raise ValueError(f"there is no table {table!r} in {db}; `bindery embed CORPUS --db {db} --table {table}` makes it")
    metadata = {k.decode(): v.decode() for k, v in (dataset.schema.metadata or {}).items()}
    if "bindery.space_uri" not in metadata:
        raise SpaceError(
            f"{uri} is a Lance table, but not one of Bindery's (no bindery.* metadata): open it with plain lancedb"
        )
    if not isinstance(space, Space):
        space = load_space(space if space is not None else metadata["bindery.space_uri"])
    check_space(dataset, space, uri)
    return Index(db, table, space)


class Index:
    """One table, open for reading; made by `open_index`. Sees commits as they come. Threads may share it."""

    def __init__(self, db: str, table: str, space: Space) -> None:
        connection = lancedb.connect(db, read_consistency_interval=FRESHNESS, storage_options=lance_options(db))
        self.uri = table_uri(db, table)
        self.space = space
        self._table: Any = connection.open_table(table)

    def __repr__(self) -> str:
        return f"Index({self.uri!r}, space={self.space.name!r}, rows={self._table.count_rows()})"

    @property
    def columns(self) -> list[str]:
        """The table's columns."""
        return list(self._table.schema.names)

    def search(
        self,
        text: str | None = None,
        *,
        item_id: str | None = None,
        vector: Sequence[float] | np.ndarray | None = None,
        weights: Mapping[str, float] | None = None,
        modality: str | Sequence[str] | None = None,
        k: int = 10,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        **media: Media,
    ) -> Hits:
        """The items nearest to the query, best first.

        Several query arguments at once are one query: the normalised sum of their unit vectors, each times its weight. That is
        arithmetic in the space: `image=crane, text="waves"` looks for a crane with waves, a negative weight for less of it.

        Args:
            text: words; a str is always text, never a path or URL.
            item_id: an item of this table, by id; it will itself be among the hits.
            vector: (D,), of this space, of any length but zero.
            weights: by the name of the query argument, {"image": 1.0, "text": 0.7}; 1.0 where not given.
            modality: only hits of this modality, or of these.
            k: how many hits at most; a smaller table gives all it has.
            where: an SQL condition on the table's columns, such as "duration_s < 5".
            columns: which columns the hits carry beside `similarity` and `item_id`; all but the vector if left out.
            **media: image=, video=, audio=, depth=, thermal=, imu= or any other modality of the space: a pathlib.Path,
                encoders.URI, bytes, a PIL image or arrays, as `Space.embed` takes them.

        Returns:
            Hits with `similarity`, the cosine in [-1, 1], best first. Cosines of different modality pairs do not compare.

        Raises:
            MediaError: a medium of the query cannot be used.
            ValueError: no query, an unknown modality, column or id, a `where` that is no condition, a bad vector or weight.
            TypeError: an argument that is no modality of the space, or a first argument that is not text.
        """
        if k < 1:
            raise ValueError(f"k={k}: ask for at least 1 hit")
        wanted, condition = self._wanted(columns), self._condition(where, modality)
        parts = self._parts(text, item_id, vector, media)
        query_D = self._query_vector(parts, weights or {})
        builder = self._table.search(query_D, vector_column_name=VECTOR, query_type="vector").distance_type("cosine")
        builder = builder.bypass_vector_index().limit(k).select([*wanted, "_distance"])
        with self._explained(where):
            rows = _filtered(builder, condition).to_arrow()
        cosine = np.clip(1 - rows["_distance"].to_numpy(), -1, 1).astype(np.float32)
        rows = rows.select(wanted).add_column(0, "similarity", pa.array(cosine))
        return Hits(rows, describe_query({name: one for name, (one, _) in parts.items()}, weights or {}))

    def zero_shot(
        self,
        labels: Sequence[str],
        *,
        template: str = "a photo of a {}",
        modality: str | Sequence[str] | None = None,
        where: str | None = None,
    ) -> pd.DataFrame:
        """Classify the table's items by words alone; nothing is written.

        Args:
            labels: the classes, in words.
            template: the sentence around a label.
            modality: only items of this modality, or of these.
            where: an SQL condition on the table's columns.

        Returns:
            A row an item: item_id, uri, modality, label (the best), probability (softmax over the labels of the cosine times
            the logit_scale of the item's encoder, 1/L at chance; a sigmoid with its logit_bias where it has one), similarity
            (the cosine with that label).

        Raises:
            ValueError: bad labels or template, an unknown modality, or a `where` that is no condition.
        """
        text_LD = label_vectors(self.space, labels, template)
        found = [pd.DataFrame({name: [] for name in ("item_id", "uri", "modality", "label", "probability", "similarity")})]
        for rows in self._scan(["item_id", "uri", "modality", VECTOR], where, modality):
            cosine_NL = similarity(_vectors(rows, self.space.dim), text_LD)
            encoders = [self.space.encoder(name) for name in rows["modality"].to_pylist()]
            scale_N = np.array([encoder.logit_scale for encoder in encoders])
            bias_N = np.array([encoder.logit_bias for encoder in encoders], np.float64)  # NaN where there is none
            best_N = cosine_NL.argmax(axis=1)
            each_N = np.arange(len(best_N))
            frame = rows.drop_columns([VECTOR]).to_pandas()
            frame["label"] = np.asarray(labels, object)[best_N]
            frame["probability"] = probabilities(cosine_NL, scale_N[:, None], bias_N[:, None])[each_N, best_N]
            frame["similarity"] = cosine_NL[each_N, best_N]
            found.append(frame)
        return pd.concat(found[1:] or found, ignore_index=True)

    def rejects(self) -> pd.DataFrame:
        """Sources that have no vector, and why: the rows of `<table>__rejects`, but for stale ones (docs/schema.md)."""
        beside = open_table(self.uri.removesuffix(".lance") + "__rejects.lance")
        frame: pd.DataFrame = valid_rejects(beside, open_table(self.uri)).to_pandas()
        return frame

    def stats(self) -> Stats:
        """What the table holds now; reads one column."""
        counts: dict[str, int] = {}
        for rows in self._scan(["modality"], None, None):
            for pair in pc.value_counts(rows["modality"]).to_pylist():
                counts[pair["values"]] = counts.get(pair["values"], 0) + pair["counts"]
        items = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
        rows_in_all = sum(items.values())
        space = self.space
        return Stats(
            items, rows_in_all, rows_in_all, space.name, space.fingerprint, space.dim, self._table.version, self.columns
        )

    def _parts(
        self, text: str | None, item_id: str | None, vector: Any, media: Mapping[str, Media]
    ) -> dict[str, tuple[Any, np.ndarray]]:
        """What was given and its unit vector, by the argument's name."""
        if text is not None and not isinstance(text, str):
            kind = type(text).__name__
            raise TypeError(f"the first argument is text, not a {kind}: name the modality, as in search(image={text!r:.60})")
        unknown = sorted(set(media) - set(self.space.modalities))
        if unknown:
            known = [*self.space.modalities, "item_id", "vector"]
            raise TypeError(f"search has no argument {unknown[0]!r}; this table can be asked by {', '.join(known)}")
        given = {"text": text, **media}
        parts = {name: (one, self.space.embed(name, [one])[0]) for name, one in given.items() if one is not None}
        if item_id is not None:
            parts["item_id"] = (item_id, self._vector_of(item_id))
        if vector is not None:
            parts["vector"] = (vector, self._checked(vector))
        if not parts:
            raise ValueError(f"nothing to search for: give text, {', '.join(self.space.modalities)}, item_id or vector")
        return parts

    def _query_vector(self, parts: Mapping[str, tuple[Any, np.ndarray]], weights: Mapping[str, float]) -> np.ndarray:
        stray = sorted(set(weights) - set(parts))
        if stray:
            raise ValueError(f"weights names {stray[0]!r}, but the query is made of {', '.join(parts)}")
        return fuse([one for _, one in parts.values()], "mean", [weights.get(name, 1.0) for name in parts])

    def _vector_of(self, item_id: str) -> np.ndarray:
        rows = self._table.search().where(f"item_id = {quoted(str(item_id))}").select([VECTOR]).limit(1).to_arrow()
        if not rows.num_rows:
            raise ValueError(f"{self.uri} has no item {item_id!r}; ids are in the column item_id of any search")
        found: np.ndarray = _vectors(rows, self.space.dim)[0]
        return found

    def _checked(self, vector: Any) -> np.ndarray:
        query = np.asarray(vector, np.float64)
        if query.shape != (self.space.dim,):
            raise ValueError(f"the vector has shape {query.shape}, those of space {self.space.name!r} have ({self.space.dim},)")
        return units(query, "the vector")

    def _wanted(self, columns: Sequence[str] | None) -> list[str]:
        present = self.columns
        if columns is None:
            return [name for name in present if name != VECTOR]
        unknown = [name for name in columns if name not in present]
        if isinstance(columns, str) or unknown:
            raise ValueError(f"columns={columns!r}: give a list of {', '.join(present)}")
        return list(dict.fromkeys(["item_id", *columns]))

    def _condition(self, where: str | None, modality: str | Sequence[str] | None) -> str | None:
        if modality is None:
            return conjunction(where)
        names = [modality] if isinstance(modality, str) else list(modality)
        unknown = [name for name in names if name not in self.space.modalities]
        if unknown or not names:
            raise ValueError(f"modality={modality!r}: this space has {', '.join(self.space.modalities)}")
        return conjunction(where, is_in("modality", names))

    def _scan(self, columns: list[str], where: str | None, modality: str | Sequence[str] | None) -> Iterator[pa.Table]:
        builder = _filtered(self._table.search().select(columns), self._condition(where, modality))
        with self._explained(where):
            for batch in builder.to_batches(BATCH_ROWS):
                yield pa.Table.from_batches([batch])

    @contextmanager
    def _explained(self, where: str | None) -> Iterator[None]:
        """Lance's complaint about a filter, made an error that says what could be written instead."""
        try:
            yield
        except (ValueError, RuntimeError) as error:
            about_filter = isinstance(error, ValueError) or any(mark in str(error) for mark in _FILTER_MARKS)
            if where is None or not about_filter:
                raise
            raise ValueError(f"where={where!r} cannot be used: {error}; the columns are {', '.join(self.columns)}") from error


_FILTER_MARKS = ("Not supported", "filter expression")  # in the RuntimeErrors that Lance raises for a filter it parses


def _filtered(builder: Any, condition: str | None) -> Any:
    return builder.where(condition, prefilter=True) if condition else builder


def _vectors(rows: pa.Table, dim: int) -> np.ndarray:
    """The vector column as float32 (N, D)."""
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in rows[VECTOR].chunks]
    flat: np.ndarray = np.concatenate([np.empty(0, np.float32), *values]).astype(np.float32)
    return flat.reshape(-1, dim)
