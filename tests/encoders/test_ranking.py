"""Rankings, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from encoders.ranking import first_of_each, maximal_marginal_relevance, reciprocal_rank_fusion, standardise

EAST, NORTH, NORTH_EAST = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([1.0, 1.0])


def test_a_standard_score_counts_spreads_from_the_mean() -> None:
    np.testing.assert_allclose(standardise(np.array([0.5, 0.2, 0.1]), 0.2, 0.1), [3, 0, -1], atol=1e-6)
    np.testing.assert_allclose(
        standardise(np.array([0.5, 0.9]), np.array([0.3, 0.8]), np.array([0.1, 0.2])), [2, 0.5], atol=1e-6
    )


def test_where_all_items_look_alike_rounding_is_no_difference() -> None:
    assert standardise(np.array([0.5 + 1e-7]), 0.5, 0.0) < 0.01


def test_fusion_adds_reciprocal_ranks() -> None:
    scores = reciprocal_rank_fusion([["a", "b", "c"], ["c", "d"]])
    assert list(scores) == ["c", "a", "b", "d"]
    assert scores["c"] == pytest.approx(1 / 63 + 1 / 61)
    assert scores["a"] == pytest.approx(1 / 61) and scores["b"] == scores["d"] == pytest.approx(1 / 62)
    assert reciprocal_rank_fusion([]) == {}


def test_marginal_relevance_prefers_what_differs_from_the_chosen() -> None:
    vectors = np.stack([EAST, EAST, NORTH])
    relevance = np.array([0.9, 0.8, 0.5])
    assert maximal_marginal_relevance(relevance, vectors, 3, 0.0).tolist() == [0, 1, 2]
    # after the first: 0.5 * 0.8 - 0.5 * 1 = -0.1 for its twin, 0.5 * 0.5 - 0.5 * 0 = 0.25 for the other
    assert maximal_marginal_relevance(relevance, vectors, 2, 0.5).tolist() == [0, 2]
    assert maximal_marginal_relevance(relevance, vectors, 9, 0.5).tolist() == [0, 2, 1]


def test_likeness_counts_to_the_nearest_of_the_chosen() -> None:
    # chosen 0 (east), then north; of the two left, north-east has cosine 0.71 to both, the second east 1 to the first
    vectors = np.stack([EAST, NORTH, EAST, NORTH_EAST])
    assert maximal_marginal_relevance(np.array([1.0, 0.9, 0.5, 0.4]), vectors, 4, 0.5).tolist() == [0, 1, 3, 2]


def test_marginal_relevance_refuses_a_share_that_is_none_and_takes_no_candidates() -> None:
    with pytest.raises(ValueError, match=r"diversity=1\.5"):
        maximal_marginal_relevance(np.array([1.0]), EAST[None], 1, 1.5)
    assert maximal_marginal_relevance(np.empty(0), np.empty((0, 2)), 3, 0.5).tolist() == []


def test_near_duplicates_leave_their_first() -> None:
    almost_east = np.array([1.0, 0.1])  # cosine 0.995 to east
    vectors = np.stack([EAST, NORTH, almost_east, 2 * EAST, NORTH_EAST])
    assert first_of_each(vectors, 0.99).tolist() == [0, 1, 4]
    assert first_of_each(vectors, 0.999).tolist() == [0, 1, 2, 4]
    assert first_of_each(vectors, 1.0).tolist() == [0, 1, 2, 4]
    assert first_of_each(np.empty((0, 2)), 0.9).tolist() == []


def test_a_chain_of_likenesses_is_cut_at_what_is_shown() -> None:
    """The third is like the second, which is not shown, and unlike the first: it stays."""
    angles = np.radians([0, 20, 40])
    assert first_of_each(np.stack([np.cos(angles), np.sin(angles)], axis=1), 0.9).tolist() == [0, 2]


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.1])
def test_a_threshold_that_is_no_cosine_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="no cosine"):
        first_of_each(EAST[None], threshold)
