"""The sample behind the scores is of the whole table, and tells what it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from searchable import make_space, many_rows, write_table

from encoders.algebra import units
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


def test_a_vector_passes_for_an_item_of_the_modality_in_whose_cone_it_lies_and_a_stranger_for_none() -> None:
    cones = np.eye(8, dtype=np.float32)[:2]
    rng = np.random.default_rng(0)

    def items(cone: np.ndarray, count: int) -> np.ndarray:
        return np.asarray(units((cone + 0.3 * rng.normal(size=(count, 8))).astype(np.float64), "items"), np.float32)

    background = Background(500, {"audio": items(cones[0], 250), "image": items(cones[1], 250)})
    for name, cone in zip(("audio", "image"), cones, strict=True):
        assert np.mean([background.like(vector) == [name] for vector in items(cone, 200)]) > 0.9
    assert background.like(np.eye(8, dtype=np.float32)[5]) == []
    scattered = {"audio": items(0.2 * cones[0], 250), "image": items(cones[1], 250)}
    assert Background(500, scattered).like(cones[0]) == [], "a cone that nearly everything lies in tells nothing"
    alike = Background(500, {"audio": background.vectors["audio"], "text": background.vectors["audio"]})
    assert alike.like(alike.means["text"]) == ["audio", "text"]
    assert Background(0, {}).like(cones[0]) == []


def test_a_query_is_moved_into_the_cone_it_looks_into_and_ranks_what_is_there_much_as_before() -> None:
    rng, dim = np.random.default_rng(0), 256
    axes = np.linalg.qr(rng.normal(size=(dim, 13)))[0].T
    cones, meanings = axes[:3], axes[3:]

    def items(cone: np.ndarray, count: int) -> np.ndarray:
        own = rng.normal(size=(count, len(meanings))) @ meanings / 4 + 0.02 * rng.normal(size=(count, dim))
        return np.asarray(units(0.6 * cone + own, "items"), np.float32)

    names = ("audio", "image", "text")
    background = Background(3000, {name: items(cone, 256) for name, cone in zip(names, cones, strict=True)})
    there = items(cones[1], 2000)
    for asker in (cones[0], cones[2], cones[0] + cones[2]):  # the last as a sum of a sound and words is
        query = items(asker / np.linalg.norm(asker), 1)[0]
        moved = background.among(query, "image")
        assert moved.dtype == np.float32 and np.isclose(np.linalg.norm(moved), 1)
        assert background.like(query) != ["image"] and background.like(moved) == ["image"]
        best, found = np.argsort(-there @ query)[:10], np.argsort(-there @ moved)[:100]
        assert np.isin(best, found).mean() >= 0.9
    np.testing.assert_array_equal(background.among(query, "smell"), query)


def test_means_that_depend_on_one_another_move_a_query_as_one_of_them_does_and_what_has_no_place_stays() -> None:
    rng = np.random.default_rng(0)
    items = (np.eye(64)[0] + 0.05 * rng.normal(size=(256, 64))).astype(np.float32)
    query = np.asarray(units(rng.normal(size=(1, 64)), "query"), np.float32)[0]
    twice = Background(512, {"image": items, "thermal": items[::-1].copy()})
    np.testing.assert_allclose(twice.among(query, "image"), Background(256, {"image": items}).among(query, "image"), atol=1e-5)
    still = np.zeros((8, 64), np.float32)
    mean = items.mean(axis=0) / np.linalg.norm(items.mean(axis=0))
    np.testing.assert_array_equal(Background(264, {"image": items, "depth": still}).among(mean, "depth"), mean)
