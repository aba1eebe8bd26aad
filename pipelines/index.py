"""A table to search. In: words, media, an item id or a vector, and a filter. Out: hits, labels, counts; never a change.

N rows, L labels. Each search reads one version of the table from beginning to end, whatever is committed meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from encoders.algebra import label_vectors
from encoders.errors import SpaceError
from encoders.media.types import Media
from encoders.space import Space, load_space
from pipelines.background import Background
from pipelines.candidates import Ranked, Wish, ranked
from pipelines.damage import batches_where, despite_damage
from pipelines.filters import conjunction, explained, is_in
from pipelines.hits import Hits
from pipelines.nearest import rows_by_id
from pipelines.query import Asked, Query, understand
from pipelines.rejects import valid_rejects
from pipelines.snapshot import Snapshot, Stats
from pipelines.table import VECTOR, check_space, existing_table, open_table, table_uri, vectors_of
from pipelines.zero_shot import best_labels

FRESHNESS_S = 1.0  # a long-lived index sees a commit at most this much later
BATCH_ROWS = 8192  # how many rows `zero_shot` holds at once


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
    dataset = existing_table(db, table)
    metadata = {k.decode(): v.decode() for k, v in (dataset.schema.metadata or {}).items()}
    if "bindery.space_uri" not in metadata:
        raise SpaceError(
            f"{uri} is a Lance table, but not one of Bindery's (no bindery.* metadata): open it with plain lancedb"
        )
    if not isinstance(space, Space):
        space = load_space(space if space is not None else metadata["bindery.space_uri"])
    check_space(dataset, space, uri)
    return Index(uri, space, dataset)


class Index:
    """One table, open for reading; made by `open_index`. Sees commits as they come. Threads may share it."""

    def __init__(self, uri: str, space: Space, dataset: Any) -> None:
        self.uri = uri
        self.space = space
        self._newest = Snapshot(dataset)
        self._looked = time.monotonic()
        self._turn = threading.Lock()

    def __repr__(self) -> str:
        return f"Index({self.uri!r}, space={self.space.name!r}, rows={self._snapshot().rows})"

    @property
    def columns(self) -> list[str]:
        """The table's columns."""
        return self._snapshot().columns

    def search(
        self,
        text: str | None = None,
        *,
        item_id: str | None = None,
        vector: Sequence[float] | np.ndarray | None = None,
        weights: Mapping[str, float] | None = None,
        modality: str | Sequence[str] | None = None,
        where: str | None = None,
        k: int = 10,
        offset: int = 0,
        columns: Sequence[str] | None = None,
        centred: bool = False,
        calibrated: bool = True,
        hybrid: bool = False,
        diversity: float = 0.0,
        collapse: float | None = None,
        exact: bool = False,
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
            where: an SQL condition on the table's columns, such as "duration_s < 5".
            k: how many hits at most; a smaller table gives all it has.
            offset: how many of the best to leave out, for the next page; with hybrid, diversity or collapse `k` and `offset`
                may come to 1,024 together.
            columns: which columns the hits carry beside `similarity`, `score` and `item_id`; all but the vector if left out.
            centred: take the mean vector of its modality off each part of the query before they are added up; better where
                parts of several modalities are to count alike.
            calibrated: where hits may be of several modalities, order them by `score`; else by the cosine, with which
                one modality may crowd out the others.
            hybrid: also look for the words of `text` in the column `text`, and fuse both rankings (reciprocal rank fusion).
            diversity: 0 to 1; above 0 hits are chosen by maximal marginal relevance, each unlike those before it.
            collapse: of near-duplicates, whose cosine is this or more, only the best is found; 0.98, say.
            exact: compare every vector, though there is an index.
            **media: image=, video=, audio=, depth=, thermal=, imu= or any other modality of the space: a pathlib.Path,
                encoders.URI, bytes, a PIL image or arrays, as `Space.embed` takes them.

        Returns:
            Hits with `similarity`, the cosine in [-1, 1], and `score`, how far that stands out among cosines of the query
            with items of the hit's modality, in standard deviations; of a hybrid search the score of the fusion.

        Raises:
            MediaError: a medium of the query cannot be used.
            ValueError: no query, an unknown modality, column or id, a `where` that is no condition, a bad vector or weight.
            TypeError: an argument that is no modality of the space, a first argument that is not text, or another wrong kind.
            OSError: the table cannot be read; or, for a hybrid search, its full-text index.
        """
        query = {"text": text, **media, "item_id": item_id, "vector": vector, "weights": weights}
        return self.search_many(
            [query],
            modality=modality,
            where=where,
            k=k,
            offset=offset,
            columns=columns,
            centred=centred,
            calibrated=calibrated,
            hybrid=hybrid,
            diversity=diversity,
            collapse=collapse,
            exact=exact,
        )[0]

    def search_many(
        self,
        queries: Sequence[Query],
        *,
        modality: str | Sequence[str] | None = None,
        where: str | None = None,
        k: int = 10,
        offset: int = 0,
        columns: Sequence[str] | None = None,
        centred: bool = False,
        calibrated: bool = True,
        hybrid: bool = False,
        diversity: float = 0.0,
        collapse: float | None = None,
        exact: bool = False,
    ) -> list[Hits]:
        """Several searches in one: queries of one modality are embedded in one batch, and the table is read once.

        Args:
            queries: each a str, which is text, or the query arguments of `search`: {"image": path, "weights": {...}}.
            modality, where, k, offset, columns, centred, calibrated, hybrid, diversity, collapse, exact: as in `search`.

        Returns:
            Hits for each query, in their order.
        """
        if isinstance(queries, str | Mapping):
            raise TypeError("search_many takes a list of queries; for one query there is `search`")
        snapshot = self._snapshot()
        wanted = _wanted(snapshot.columns, columns)
        wish = Wish(self._names(modality), where, k, offset, calibrated, hybrid, diversity, collapse, wanted)
        background = snapshot.background(self.space)
        asked = understand(queries, self.space, snapshot.rings, background if centred else None)
        if not asked:
            return []
        found = self._ranked(snapshot, asked, wish, background, exact)
        return [
            Hits(_with_scores(rows, hits), one.words)
            for rows, hits, one in zip(_columns(snapshot.rings, found, wanted), found, asked, strict=True)
        ]

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
        columns = {"item_id": str, "uri": str, "modality": str, "label": str, "probability": float, "similarity": np.float32}
        found = [pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})]
        for rows in self._scan(["item_id", "uri", "modality", VECTOR], where, modality):
            best = best_labels(self.space, rows["modality"].to_pylist(), vectors_of(rows), labels, text_LD)
            found.append(pd.concat([rows.drop_columns([VECTOR]).to_pandas(), best], axis=1))
        return pd.concat(found[1:] or found, ignore_index=True)

    def rejects(self) -> pd.DataFrame:
        """Sources that have no vector, and why: the rows of `<table>__rejects`, but for stale ones (docs/schema.md)."""
        beside = open_table(self.uri.removesuffix(".lance") + "__rejects.lance")
        frame: pd.DataFrame = valid_rejects(beside, open_table(self.uri)).to_pandas()
        return frame

    def stats(self) -> Stats:
        """What the table holds now; reads one column."""
        return self._snapshot().stats(self.space)

    def _ranked(self, snapshot: Snapshot, asked: list[Asked], wish: Wish, background: Background, exact: bool) -> list[Ranked]:
        """With the indices, or without where they cannot be read."""
        if not exact:
            snapshot.tell_if_slow()
        settings = snapshot.settings if not exact else None

        def search(indexed: bool) -> list[Ranked]:
            return ranked(snapshot.rings, asked, wish, settings if indexed else None, background, indexed)

        return despite_damage(self.uri, search) if snapshot.indexed else search(False)

    def _snapshot(self) -> Snapshot:
        """The newest version of the table, looked for once in `FRESHNESS_S`."""
        with self._turn:
            if time.monotonic() - self._looked >= FRESHNESS_S:
                self._newest = self._newest.refreshed(self.space)
                self._looked = time.monotonic()
            return self._newest

    def _names(self, modality: str | Sequence[str] | None) -> list[str] | None:
        if modality is None:
            return None
        names = [modality] if isinstance(modality, str) else list(modality) if isinstance(modality, Iterable) else []
        if not names or any(name not in self.space.modalities for name in names):
            raise ValueError(f"modality={modality!r}: this space has {', '.join(self.space.modalities)}")
        return list(dict.fromkeys(names))

    def _scan(self, columns: list[str], where: str | None, modality: str | Sequence[str] | None) -> Iterator[pa.Table]:
        snapshot, names = self._snapshot(), self._names(modality)
        condition = conjunction(where, *([is_in("modality", names)] if names is not None else []))
        with explained(where, snapshot.columns):
            for batch in batches_where(snapshot.dataset, condition, columns=columns, batch_size=BATCH_ROWS):
                yield pa.Table.from_batches([batch])


def _wanted(present: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    if columns is None:
        return [name for name in present if name != VECTOR]
    unknown = [name for name in columns if name not in present]
    if isinstance(columns, str) or unknown:
        raise ValueError(f"columns={columns!r}: give a list of {', '.join(present)}")
    return list(dict.fromkeys(["item_id", *columns]))


def _columns(dataset: Any, found: Sequence[Ranked], wanted: Sequence[str]) -> list[pa.Table]:
    """The hits' columns, by query; those that were not read along with the search are read at once."""
    known = [hits.columns for hits in found if hits.columns is not None]
    if len(known) == len(found):
        return known
    rows = rows_by_id(dataset, np.concatenate([hits.rows for hits in found]), wanted)
    ends = np.cumsum([len(hits.rows) for hits in found]).tolist()
    return [rows.slice(end - len(hits.rows), len(hits.rows)) for end, hits in zip(ends, found, strict=True)]


def _with_scores(rows: pa.Table, hits: Ranked) -> pa.Table:
    rows = rows.add_column(0, "similarity", pa.array(hits.similarity)).add_column(1, "score", pa.array(hits.score))
    return rows.replace_schema_metadata(None)
