"""Labels: a manifest's own columns. In: rows of a corpus or a table. Out: hashes that tell changes; old rows, new labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from pipelines.ledger import any_of, in_slices

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


def relabelled_rows(dataset: Any, labels: pa.Table, corpus: str) -> pa.Table:
    """The table's rows of some sources, all as they are but for the labels.

    Args:
        dataset: the table.
        labels: `source_id`, then the columns that change.
        corpus: only rows of this corpus are taken: another one has its own labels for a source they share.

    Returns:
        Rows of the table's schema.
    """
    found = [dataset.to_table(filter=any_of(ids)) for ids in in_slices(labels["source_id"].to_pylist())]
    rows = pa.concat_tables(found)
    rows = rows.filter(pc.equal(rows["corpus"], corpus)).combine_chunks()
    place = pc.index_in(rows["source_id"], labels["source_id"].combine_chunks())
    for name in labels.column_names[1:]:
        index, kind = rows.schema.get_field_index(name), rows.schema.field(name)
        rows = rows.set_column(index, kind, labels[name].take(place).cast(kind.type))
    return rows
