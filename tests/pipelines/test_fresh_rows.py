"""Rows whose vectors compare: those of the space's own encoders, in whatever order they are asked for."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pytest
from searchable import make_media, make_space, rows_of, write_table

from encoders import SpaceError
from pipelines.fresh_rows import fresh_rows
from pipelines.table import table_uri, vectors_of


def test_chosen_rows_come_in_the_order_they_are_asked_for_from_every_fragment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.fresh_rows.TAKE", 7)
    space = make_space(tmp_path)
    rows = rows_of(space, make_media(tmp_path / "media", 12))
    for start in (0, 20, 40):
        write_table(tmp_path / "db", rows.slice(start, 20))
    dataset = lance.dataset(table_uri(f"{tmp_path}/db", "media"))
    dataset.delete("rating < 0.5 OR rating = 3.0")
    found = fresh_rows(f"{tmp_path}/db", "media", space, ["uri"], "modality != 'text'")
    wanted = {(row["uri"], row["modality"]): row["vector"] for row in rows.to_pylist()}
    left = [row for row in rows.to_pylist() if row["rating"] >= 0.5 and row["rating"] != 3.0 and row["modality"] != "text"]
    assert len(found.rows) == len(left) and found.stale == {}
    chosen = np.random.default_rng(0).permutation(len(found.rows))[:20]
    asked = [(row["uri"], row["modality"]) for row in found.rows.take(chosen).to_pylist()]
    read = found.read(chosen, ["uri", "modality", "vector"])
    assert [(row["uri"], row["modality"]) for row in read.to_pylist()] == asked
    np.testing.assert_array_equal(vectors_of(read), np.array([wanted[one] for one in asked], np.float32))
    assert found.vectors(chosen[:0]).shape == (0, space.dim)


def test_rows_of_another_encoder_are_counted_and_left_out_and_of_another_space_refused(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    rows = rows_of(space, make_media(tmp_path / "media", 3))
    old = [("0" * 32 if k in (2, 3, 6) else one) for k, one in enumerate(rows["encoder"].to_pylist())]
    index = rows.schema.get_field_index("encoder")
    write_table(tmp_path / "db", rows.set_column(index, rows.schema.field("encoder"), [old]))
    found = fresh_rows(f"{tmp_path}/db", "media", space, [], "true")
    assert found.stale == {"audio": 2, "imu": 1} and len(found.rows) == 9
    with pytest.raises(SpaceError, match="holds vectors of space"):
        fresh_rows(f"{tmp_path}/db", "media", make_space(tmp_path / "other", seed=1), [], "true")
    with pytest.raises(SpaceError, match="no column 'smell'"):
        fresh_rows(f"{tmp_path}/db", "media", space, ["smell"], "true")
    with pytest.raises(
        ValueError, match=r"where='smell > 3' cannot be used: Schema error.*[^.]; the columns are item_id, .*rating"
    ):
        fresh_rows(f"{tmp_path}/db", "media", space, [], "smell > 3")
