"""The sample behind the scores is of the whole table, and tells what it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from searchable import make_space, many_rows, write_table

from pipelines.background import Background, measure, sample_rows
from pipelines.table import open_table, table_uri


def test_a_sample_is_spread_evenly_over_the_table(tmp_path: Path) -> None:
    write_table(tmp_path, many_rows(make_space(tmp_path), 0, 4000))
    dataset = open_table(table_uri(str(tmp_path), "media"))
    for rows in sample_rows(dataset, 20).values():
        places = np.sort(rows["_rowid"].to_numpy())
        assert len(places) == 20 and places[0] < 200 and places[-1] >= 3800
        assert np.diff(places).max() < 2 * 4000 / 20
    assert {name: len(vectors) for name, vectors in measure(dataset, []).vectors.items()} == dict.fromkeys(
        ("audio", "image", "imu", "text"), 256
    )


def test_a_modality_without_a_sample_is_judged_by_the_mean_of_the_others() -> None:
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=(50, 8)).astype(np.float32) + shift for name, shift in (("image", 0), ("audio", 3))}
    query = rng.normal(size=8).astype(np.float32)
    told = Background(100, vectors).cosines(query, ["audio", "smell", "image"])
    for name, (mean, spread) in zip(("audio", "image"), told[[0, 2]], strict=True):
        np.testing.assert_allclose((mean, spread), ((vectors[name] @ query).mean(), (vectors[name] @ query).std()), rtol=1e-5)
    np.testing.assert_allclose(told[1], (told[0] + told[2]) / 2, rtol=1e-6)
    assert Background(0, {}).cosines(query, ["smell"]).tolist() == [[0, 1]]
