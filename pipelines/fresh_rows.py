"""Rows of a table whose vectors compare with one another. In: a table, a space, a condition. Out: columns, and vectors of some.

Rows that an older encoder of a space has embedded do not compare with those of its present one: they are left out, counted
and said.
Columns of all rows are held, vectors only of those that are asked for.  N rows, D dimension.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.errors import SpaceError
from encoders.space import Space
from pipelines.filters import explained
from pipelines.log import say
from pipelines.table import VECTOR, check_space, existing_table, table_uri, vectors_of

TAKE = 1000  # rows that one condition names
_ADDRESS = "_rowaddr"


@dataclass(frozen=True)
class FreshRows:
    """Rows that a space's own encoders have embedded, of one version of a table.

    Attributes:
        uri: of the table.
        rows: `modality`, and the columns that were asked for.
        stale: modality -> how many rows another encoder has embedded.
        dataset: that version.
        addresses: of the rows.
    """

    uri: str
    rows: pa.Table
    stale: Mapping[str, int]
    dataset: Any
    addresses: np.ndarray

    def read(self, chosen: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """More columns of some rows, by their places in `rows`, in that order."""
        wanted = self.addresses[chosen]
        order = np.sort(wanted)
        found = []
        for start in range(0, max(1, len(order)), TAKE):
            some = ", ".join(map(str, order[start : start + TAKE])) or "0"
            found.append(self.dataset.to_table(columns=list(columns), filter=f"{_ADDRESS} IN ({some})", with_row_address=True))
        rows = pa.concat_tables(found)
        places = np.argsort(rows[_ADDRESS].to_numpy())  # the rising order that `order` has
        return rows.drop_columns([_ADDRESS]).take(places[np.searchsorted(order, wanted)])

    def vectors(self, chosen: np.ndarray) -> np.ndarray:
        """float32 (N, D) of some rows, by their places in `rows`, in that order."""
        return vectors_of(self.read(chosen, [VECTOR]))


def fresh_rows(db: str, table: str, space: Space, columns: Sequence[str], where: str) -> FreshRows:
    """Look through a table.

    Args:
        db, table: where.
        space: whose vectors they must be.
        columns: beside `modality`.
        where: an SQL condition.

    Raises:
        ValueError: no such table or column, a condition that is none, or (SpaceError) vectors of another space.
    """
    uri = table_uri(db, table)
    dataset = existing_table(db, table)
    check_space(dataset, space, uri)
    if missing := [name for name in columns if name not in dataset.schema.names]:
        raise SpaceError(f"{uri} has no column {missing[0]!r}; it has {', '.join(dataset.schema.names)}")
    wanted = list(dict.fromkeys([*columns, "modality"]))
    current = {modality: encoder.fingerprint for modality, encoder in space.encoders.items()}
    stale: Counter[str] = Counter()
    parts, addresses = [], [np.empty(0, np.uint64)]
    scanner = dataset.scanner(columns=list(dict.fromkeys([*wanted, "encoder"])), filter=where, with_row_address=True)
    with explained(where, dataset.schema.names):
        for batch in scanner.to_reader():
            pairs = zip(batch["modality"].to_pylist(), batch["encoder"].to_pylist(), strict=True)
            fresh = pa.array([current.get(modality) == encoder for modality, encoder in pairs], pa.bool_())
            stale.update(batch["modality"].filter(pc.invert(fresh)).to_pylist())
            kept = batch.filter(fresh)
            parts.append(kept.select(wanted))
            addresses.append(kept[_ADDRESS].to_numpy())
    for modality, count in stale.items():
        rows = f"{count:,} row{'s' * (count > 1)} of {modality}"
        say(f"left out: {rows} that another encoder has embedded; embed or reindex their corpora again")
    schema = pa.schema([dataset.schema.field(name) for name in wanted])
    return FreshRows(uri, pa.Table.from_batches(parts, schema), dict(stale), dataset, np.concatenate(addresses))
