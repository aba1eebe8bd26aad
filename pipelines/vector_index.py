"""The indices of a table. In: a table, the recall that is wanted. Out: indices over its rows, tuned to reach it.

A table so small that every vector is compared in a tenth of a second gets no vector index. A larger one gets IVF_RQ: partitions
around centroids (IVF; Jegou et al., 2011), in each one bit a dimension (RaBitQ; Gao and Long, 2024), and the best candidates
compared again by their exact vectors. Where that does not reach the recall, the vectors themselves (IVF_FLAT). Scalar
indices go on what is filtered by, and a full-text index on `text`.

Each step is one commit by Lance: killed between two, the table is whole and the next run goes on. A commit of rows by somebody
else is no conflict: rows that an index does not hold are compared one by one (docs/decisions/0010-index-commits.md).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from math import ceil, isqrt
from typing import Any

import numpy as np
from lance.query import MatchQuery

from pipelines.compaction import Tidied
from pipelines.damage import UNREADABLE
from pipelines.filters import is_in
from pipelines.lease import LeaseLostError
from pipelines.nearest import ANY, EXACT_VALUES, SEARCH_KEY, K, SearchSettings, Way, nearest, vector_index_of
from pipelines.recall import REFINE, RULE, tune
from pipelines.table import VECTOR, open_table, vectors_of

TARGET_RECALL = 0.95  # at 10
SCALARS = {"item_id": "BTREE", "source_id": "BTREE", "uri": "BTREE", "modality": "BITMAP", "corpus": "BITMAP"}
STALE_SHARE = 0.01  # of the rows; an index that lacks more is brought up to date even where time is short
COARSE, WHOLE = "IVF_RQ", "IVF_FLAT"  # a bit a dimension; the vectors, where a bit is not enough or the dimension is odd
GROWTH = 4  # the index is trained anew when the table has so many times as many rows, or as few
_NAME = f"{VECTOR}_idx"
# From a million values of centroids on Lance finds a vector's partition through a graph of the centroids (HNSW), which falls
# apart where each modality lies in a cone of its own: a third of a million vectors went to partitions of another modality.
os.environ.setdefault("LANCE_USE_HNSW_SPEEDUP_INDEXING", "disabled")
_OURS = {VECTOR, "text", *SCALARS}


def keep_indices(uri: str, check: Callable[[], None], tidied: Tidied, target: float | None = None) -> None:
    """Build what is missing, mend what is damaged, bring all up to date, and tune the vector index until the recall is reached.

    Args:
        uri: of the table.
        check: raises when the lease is lost; asked before each commit.
        tidied: is told.
        target: recall at 10, of the worst pair of modalities; None for the one that was asked for last, else `TARGET_RECALL`.
    """
    if not _OURS.issubset(_open(uri).schema.names):  # a table of another program
        refresh(uri, check, tidied)
        return
    _drop_damaged(uri, check)
    _build_others(uri, check, tidied)
    refresh(uri, check, tidied)
    dataset = _open(uri)
    if not large(dataset) and SearchSettings.of(dataset) is None:
        tidied.search = {
            "index": None,
            "why": f"{dataset.count_rows():,} vectors are compared one by one, in a tenth of a second at most",
        }
    else:
        known = SearchSettings.of(dataset)
        tidied.search = _tuned(uri, check, tidied, target or (known.target if known is not None else TARGET_RECALL))


def keep_up(uri: str, check: Callable[[], None]) -> None:
    """What the end of a run can afford: indices that lack many rows take them in, a large table gets its first."""
    dataset = _open(uri)
    if large(dataset) and vector_index_of(dataset) is None:
        keep_indices(uri, check, Tidied())
        return
    try:
        refresh(uri, check, Tidied(), STALE_SHARE)
    except LeaseLostError:
        raise
    except UNREADABLE as error:
        what = f"an index of {uri} cannot take in new rows; `bindery optimize` mends it"
        warnings.warn(f"{what} ({error!s:.200})", stacklevel=2)


def refresh(uri: str, check: Callable[[], None], tidied: Tidied, share: float = 0.0) -> None:
    """Bring indices up to the newest rows, those that lack more than a share of them."""
    for name in stale_indices(_open(uri), share):
        check()
        _open(uri).optimize.optimize_indices(index_names=[name])
        tidied.indices_refreshed.append(name)


def stale_indices(dataset: Any, share: float = 0.0) -> list[str]:
    """Names of the indices that lack more than a share of the rows."""
    held = (1 - share) * dataset.count_rows()
    return [i.name for i in dataset.describe_indices() if not i.name.startswith("__") and i.num_rows_indexed < held]


def large(dataset: Any) -> bool:
    """Whether comparing every vector takes long."""
    return bool(dataset.count_rows() * dataset.schema.field(VECTOR).type.list_size >= EXACT_VALUES)


def _tuned(uri: str, check: Callable[[], None], tidied: Tidied, target: float) -> dict[str, Any]:
    """Settings that reach the target, of the index there is or of one trained anew; they are stored."""
    known, rows = SearchSettings.of(_open(uri)), _open(uri).count_rows()
    tuned = known is not None and (known.target, known.rule) == (target, RULE) and (known.worst or 0) >= target
    if known is not None and tuned and _NAME not in tidied.indices_refreshed:
        return _told(known)
    if known is None or known.rule != RULE or not known.rows / GROWTH < rows < known.rows * GROWTH:
        known = _train(uri, check, tidied, target, known, known.kind if known is not None else COARSE)
    found = tune(_open(uri), replace(known, target=target))
    if _NAME not in tidied.indices_built and (found.worst or 0) < target:
        known = _train(uri, check, tidied, target, found, found.kind)
        found = tune(_open(uri), known)
    if found.kind == COARSE and (found.worst or 0) < target:
        known = _train(uri, check, tidied, target, found, WHOLE)
        found = tune(_open(uri), known)
    _store(uri, check, found)
    return _told(found)


def _told(settings: SearchSettings) -> dict[str, Any]:
    about = {"index": settings.kind, "recall": settings.worst, "target": settings.target, "partitions": settings.partitions}
    return {**about, "by_pair": {pair: asdict(way) for pair, way in settings.ways.items()}}


def _train(
    uri: str, check: Callable[[], None], tidied: Tidied, target: float, known: SearchSettings | None, kind: str
) -> SearchSettings:
    """Train the vector index on the rows there are, in place of the one before.

    Until it is tuned, readers probe twice the share of partitions that was right before; if there was none, all partitions.
    """
    dataset = _open(uri)
    rows, dim = dataset.count_rows(), dataset.schema.field(VECTOR).type.list_size
    kind = kind if dim % 8 == 0 else WHOLE
    options = {"num_bits": 1} if kind == COARSE else {}
    partitions = _partitions(dataset, rows)
    interim = new = SearchSettings(kind, partitions, target, 0, {f"{ANY} > {ANY}": Way(partitions, REFINE[-1])})
    if known is not None:
        share = max(1.0, 2 * partitions / known.partitions) if known.worst is not None else 1.0  # else this was broken off once
        ways = {n: replace(w, probes=min(partitions, ceil(share * w.probes)), recall=None) for n, w in known.ways.items()}
        interim = replace(known, target=target, ways=ways)  # of the index that is there still: it is not taken for the new one
    _store(uri, check, interim)
    for other in (i.name for i in dataset.describe_indices() if list(i.field_names) == [VECTOR] and i.name != _NAME):
        check()
        _open(uri).drop_index(other)  # of another program: Lance would choose between the two by itself
    check()
    _open(uri).create_index(VECTOR, kind, name=_NAME, metric="cosine", replace=True, num_partitions=partitions, **options)
    tidied.indices_built.append(_NAME)
    settings = replace(new, rows=rows, ways=interim.ways, rule=RULE)
    _store(uri, check, settings)
    return settings


def _partitions(dataset: Any, rows: int) -> int:
    """The square root of the rows, or a quarter of the different vectors where these are few: others would be empty."""
    wanted = isqrt(rows)
    sample = np.linspace(0, rows - 1, min(rows, 4 * wanted)).astype(np.int64)
    vectors = vectors_of(dataset.take(sample.tolist(), columns=[VECTOR]))
    return max(1, min(wanted, len({vector.tobytes() for vector in vectors}) // 4))


def _drop_damaged(uri: str, check: Callable[[], None]) -> None:
    """Drop the vector index if it cannot be read: it can neither take in rows nor find any."""
    dataset = _open(uri)
    settings, index = SearchSettings.of(dataset), vector_index_of(dataset)
    if index is not None and settings is not None:
        try:
            some = vectors_of(dataset.take([0], columns=[VECTOR]))
            nearest(dataset, some, K, Way(settings.partitions, 1), None)
        except UNREADABLE:
            dataset.take([0], columns=[VECTOR])  # raises if it is the store that does not answer
            check()
            dataset.drop_index(index.name)


def _build_others(uri: str, check: Callable[[], None], tidied: Tidied) -> None:
    """Full text wherever there are texts; scalars where the table is large, or has them already."""
    dataset = _open(uri)
    missing = missing_indices(dataset)
    for column, kind in _wanted(dataset).items():
        if f"{column}_idx" in missing or not _readable(dataset, column, kind):
            check()
            _open(uri).create_scalar_index(column, kind, name=f"{column}_idx", replace=True)
            tidied.indices_built.append(f"{column}_idx")


def missing_indices(dataset: Any) -> list[str]:
    """Names of the indices that the table should have and has not."""
    if not _OURS.issubset(dataset.schema.names):
        return []
    present = {name for index in dataset.describe_indices() for name in index.field_names}
    wanted = [*_wanted(dataset), *([VECTOR] if large(dataset) else [])]
    return [f"{column}_idx" for column in wanted if column not in present]


def _wanted(dataset: Any) -> dict[str, str]:
    """The columns to index beside the vector, and how."""
    texts = {"text": "INVERTED"} if dataset.count_rows(filter="text IS NOT NULL") else {}
    return {**(SCALARS if large(dataset) else {}), **texts}


def _readable(dataset: Any, column: str, kind: str) -> bool:
    """Whether the index over a column answers."""
    try:
        if kind == "INVERTED":
            dataset.to_table(columns=["_rowid", "_score"], full_text_query=MatchQuery("a", column), limit=1)
        else:
            some = dataset.take([0], columns=[column])[column].to_pylist()  # of a value that is not there no page would be read
            dataset.count_rows(filter=is_in(column, [str(value) for value in some]))
    except UNREADABLE:
        return False
    return True


def _store(uri: str, check: Callable[[], None], settings: SearchSettings) -> None:
    """Put the settings into the table's metadata, where every reader finds them."""
    dataset = _open(uri)
    if SearchSettings.of(dataset) != settings:
        check()
        dataset.update_schema_metadata({SEARCH_KEY: settings.to_json()})


def _open(uri: str) -> Any:
    dataset = open_table(uri)
    if dataset is None:
        raise OSError(f"{uri} was dropped by someone else meanwhile; run the same command again")
    return dataset
