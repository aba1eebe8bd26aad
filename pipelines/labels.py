"""Labels: a manifest's own columns. In: rows of a corpus or a table. Out: hashes that tell changes; old rows, new labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

_NULL = "\x00"
_SEPARATOR = "\x1f"


def label_hash(rows: pa.Table | pa.RecordBatch, names: Sequence[str]) -> np.ndarray:
    """64-bit hashes of these columns, row by row; a column that is not there counts as null."""
    texts = [_text(rows[name]) if name in rows.schema.names else pa.nulls(rows.num_rows, pa.string()) for name in names]
    joined = pc.binary_join_element_wise(*texts, _SEPARATOR, null_handling="replace", null_replacement=_NULL)
    return pd.util.hash_array(joined.to_numpy(zero_copy_only=False).astype(object), categorize=False)


def _text(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    kind = column.type
    if pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_floating(kind) or pt.is_string(kind) or pt.is_large_string(kind):
        return pc.cast(column, pa.string())
    return pa.array([None if value is None else repr(value) for value in column.to_pylist()], pa.string())


def relabelled_rows(dataset: Any, labels: pa.Table, corpus: str, at_once: int) -> Iterator[pa.Table]:
    """The table's rows of some sources, all as they are but for the labels; found by one pass over the table's ids.

    Args:
        dataset: the table.
        labels: `source_id`, then the columns that change.
        corpus: only rows of this corpus are taken: another one has its own labels for a source they share.
        at_once: how many rows to hold at a time.

    Yields:
        Rows of the table's schema.
    """
    ids = labels["source_id"].combine_chunks()
    places = _places(dataset, ids, corpus)
    for start in range(0, len(places), at_once):
        rows = dataset.take(places[start : start + at_once]).combine_chunks()
        label = pc.index_in(rows["source_id"], ids)
        for name in labels.column_names[1:]:
            index, kind = rows.schema.get_field_index(name), rows.schema.field(name)
            rows = rows.set_column(index, kind, labels[name].take(label).cast(kind.type))
        yield rows


def _places(dataset: Any, source_ids: pa.Array, corpus: str) -> np.ndarray:
    """Where the rows of these sources of a corpus are, counted from the table's first row."""
    found, before = [np.empty(0, np.int64)], 0
    for batch in dataset.to_batches(columns=["source_id", "corpus"]):
        chosen = pc.and_(pc.is_in(batch["source_id"], value_set=source_ids), pc.equal(batch["corpus"], corpus))
        found.append(before + np.flatnonzero(chosen.to_numpy(zero_copy_only=False)))
        before += batch.num_rows
    return np.concatenate(found)
