"""Each pair of modalities is asked in the cheapest way that should reach the target; in doubt the costliest is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from pipelines.nearest import SEARCH_KEY, SearchSettings, Way
from pipelines.recall import LEAST_PROBES, REFINE, _cheapest

SETTINGS = SearchSettings("IVF_RQ", partitions=1000, target=0.95, rows=1_000_000, ways={})
WAYS = {
    "text > image": Way(16, 16, moved=True),
    "image > image": Way(256, 4),
    "text > all": Way(16, 8),
    "image > all": Way(32, 4),
}


def recalls(share: float, queries: int = 64) -> np.ndarray:
    """Of queries that find all or nothing, so that their mean is the share."""
    return (np.arange(queries) < round(share * queries)).astype(float)


@pytest.mark.parametrize(
    ("askers", "among", "way"),
    [
        (["text"], "image", WAYS["text > image"]),
        (["image"], "image", WAYS["image > image"]),
        (["image"], None, WAYS["image > all"]),
        (["text", "image"], "image", Way(256, 16, moved=True)),
        ([None], "image", Way(256, 16, moved=True)),
        ([None], None, Way(32, 8)),
        (["audio"], "image", Way(256, 16, moved=True)),
        (["text"], "audio", Way(256, 16, moved=True)),
    ],
)
def test_a_query_is_asked_in_the_way_of_its_pair_and_as_thoroughly_as_any_where_that_is_unknown(
    askers: list[str | None], among: str | None, way: Way
) -> None:
    settings = SearchSettings("IVF_RQ", 1000, 0.95, 1_000_000, WAYS)
    assert settings.way(askers, among) == way


def test_the_cheapest_way_that_reaches_the_target_is_found() -> None:
    def recall(way: Way) -> np.ndarray:
        return recalls(1.0 if way.probes >= 128 and way.refine >= 16 else 0.5)

    assert _cheapest(SETTINGS, recall) == Way(128, 16, 1.0)


def test_an_index_that_was_trained_on_all_who_ask_is_asked_twice_as_thoroughly() -> None:
    def recall(way: Way) -> np.ndarray:
        return recalls(1.0 if way.probes >= 128 and way.refine >= 16 else 0.5)

    assert _cheapest(replace(SETTINGS, rows=100_000), recall) == Way(256, 32, 1.0)
    assert _cheapest(replace(SETTINGS, rows=100_000), lambda _way: recalls(0.5)) == Way(1000, REFINE[-1], 0.5)


def test_more_partitions_are_probed_before_very_many_candidates_are_compared() -> None:
    def recall(way: Way) -> np.ndarray:
        return recalls(1.0 if way.probes >= 64 or (way.probes >= 16 and way.refine >= 32) else 0.5)

    assert _cheapest(SETTINGS, recall) == Way(64, REFINE[0], 1.0)


def test_very_many_are_compared_where_no_number_of_partitions_does_without() -> None:
    assert _cheapest(SETTINGS, lambda way: recalls(1.0 if way.refine >= 32 else 0.5)) == Way(LEAST_PROBES, 32, 1.0)


@pytest.mark.parametrize("mean", [0.955, 0.965, 0.97])
def test_a_mean_just_above_the_target_is_not_enough_for_queries_that_are_no_items(mean: float) -> None:
    def recall(way: Way) -> np.ndarray:
        return recalls(1.0 if way.probes >= 64 else mean, queries=200)

    assert _cheapest(SETTINGS, recall).probes == 64


def test_candidates_that_cost_next_to_nothing_beside_the_probing_are_compared() -> None:
    assert _cheapest(SETTINGS, lambda way: recalls(1.0 if way.probes >= 256 else 0.5)) == Way(256, 16, 1.0)


def test_between_two_powers_of_two_there_is_one_more_number_of_partitions() -> None:
    assert _cheapest(SETTINGS, lambda way: recalls(1.0 if way.probes >= 300 else 0.5)).probes == 362


def test_where_no_way_reaches_the_target_all_is_done_and_what_that_reaches_is_told() -> None:
    assert _cheapest(SETTINGS, lambda _way: recalls(0.5)) == Way(1000, REFINE[-1], 0.5)


def test_no_way_is_cheaper_than_what_people_need_whose_queries_are_no_items() -> None:
    assert _cheapest(SETTINGS, lambda _way: recalls(1.0)) == Way(LEAST_PROBES, REFINE[0], 1.0)


def test_the_recall_is_unknown_until_every_pair_was_measured() -> None:
    half = SearchSettings("IVF_RQ", 1000, 0.95, 10, {"a > a": Way(16, 4, 0.97), "a > all": Way(16, 4)})
    assert half.worst is None


def test_settings_of_a_newer_program_are_understood_as_far_as_they_are_known(tmp_path: Path) -> None:
    dataset = lance.write_dataset(pa.table({"vector": pa.array([[1.0, 0.0]] * 300, pa.list_(pa.float32(), 2))}), tmp_path)
    dataset.create_index("vector", "IVF_FLAT", num_partitions=1)
    known = SearchSettings("IVF_FLAT", 1, 0.95, 300, {"a > a": Way(1, 4, 0.97)})
    told = json.loads(known.to_json())
    told["ways"]["a > a"]["prefetch"] = told["graph"] = True
    dataset.update_schema_metadata({SEARCH_KEY: json.dumps(told)})
    assert SearchSettings.of(lance.dataset(tmp_path)) == known
