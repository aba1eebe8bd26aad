"""Vectors small enough to check by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from encoders.algebra import (
    arithmetic,
    best_match,
    fuse,
    pair_score,
    probabilities,
    rank_texts,
    retrieve,
    similarity,
    zero_shot,
)
from encoders.encoder import Encoder, Feature
from encoders.media.types import Facts
from encoders.space import Space, load_space

X, Y = np.array([1.0, 0.0]), np.array([0.0, 1.0])
WORDS = {"a photo of a east": (1.0, 0.0), "a photo of a north": (0.0, 1.0), "a photo of a west": (-1.0, 0.0)}


class PassOn(nn.Module):
    def forward(self, point: torch.Tensor) -> torch.Tensor:
        return point


def compass(logit_scale: float, logit_bias: float | None = None) -> Space:
    """A plane: a picture is a pair of numbers, a text one of WORDS."""

    def encoder(modality: str, preprocess: Callable[[Any], dict[str, np.ndarray]]) -> Encoder:
        features = {"point": Feature("float32", (2,))}
        kept = {"decode": lambda m: m, "describe": lambda d: Facts(), "build_tower": PassOn}
        return Encoder(
            "test", modality, 2, {}, features, preprocess=preprocess, logit_scale=logit_scale, logit_bias=logit_bias, **kept
        )

    return Space(
        "compass",
        2,
        "0" * 32,
        "none",
        {
            "image": encoder("image", lambda media: {"point": np.asarray(media, np.float32)}),
            "text": encoder("text", lambda media: {"point": np.asarray(WORDS[media], np.float32)}),
        },
    )


def test_similarity_is_the_cosine_whatever_the_lengths() -> None:
    np.testing.assert_allclose(
        similarity([[3.0, 0.0], [0.0, 1e-30]], [[1.0, 1.0], [-5.0, 0.0]]), [[0.5**0.5, -1], [0.5**0.5, 0]]
    )
    np.testing.assert_allclose(similarity(X, Y), [[0.0]])


def test_similarity_never_leaves_its_range() -> None:
    row = np.full(7, 0.1, np.float32)
    assert similarity(row, row)[0, 0] <= 1 and similarity(row, -row)[0, 0] >= -1


@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [1.0, 0.0, 0.0]])
def test_a_row_that_cannot_be_compared_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"zeros only|position \[0|cannot compare"):
        similarity([bad], [X])


def test_retrieve_gives_the_best_first_and_all_there_are() -> None:
    order, cosine = retrieve(X, [Y, X, X + Y, -X], k=9)
    assert order.tolist() == [[1, 2, 0, 3]]
    np.testing.assert_allclose(cosine, [[1, 0.5**0.5, 0, -1]], atol=1e-7)
    with pytest.raises(ValueError, match="at least 1"):
        retrieve(X, [Y], k=0)


def test_equals_keep_the_order_of_the_gallery() -> None:
    assert retrieve(X, [Y, X, X, X], k=2)[0].tolist() == [[1, 2]]


def test_best_match_is_the_nearest_row() -> None:
    order, cosine = best_match([X, Y], [X - Y, X + 2 * Y])
    assert order.tolist() == [0, 1]
    np.testing.assert_allclose(cosine, [0.5**0.5, 2 / 5**0.5], rtol=1e-6)
    with pytest.raises(ValueError, match="empty"):
        best_match([X], np.empty((0, 2)))


def test_zero_shot_is_a_softmax_over_scaled_cosines() -> None:
    (odds,) = zero_shot(compass(logit_scale=math.log(3)), "image", [(5.0, 0.0)], ["east", "north", "west"])
    assert odds == pytest.approx({"east": 9 / 13, "north": 3 / 13, "west": 1 / 13})  # exp of ln 3 * (1, 0, -1)


def test_zero_shot_is_at_chance_where_no_label_fits_better() -> None:
    (odds,) = zero_shot(compass(logit_scale=100), "image", [(1.0, 1.0)], ["east", "north"])
    assert odds == pytest.approx({"east": 0.5, "north": 0.5})


def test_zero_shot_with_a_bias_is_a_sigmoid_for_each_label_by_itself() -> None:
    (odds,) = zero_shot(compass(math.log(3), logit_bias=-math.log(3)), "image", [(5.0, 0.0)], ["east", "north", "west"])
    assert odds == pytest.approx({"east": 1 / 2, "north": 1 / 4, "west": 1 / 10})  # 1 / (1 + exp of ln 3 * (0, 1, 2))
    (alone,) = zero_shot(compass(math.log(3), logit_bias=-math.log(3)), "image", [(5.0, 0.0)], ["north"])
    assert alone == pytest.approx({"north": 1 / 4})


def test_rows_of_encoders_without_a_bias_are_a_softmax_beside_others() -> None:
    odds = probabilities(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0], [0.0]]), np.array([[np.nan], [-1000.0]]))
    np.testing.assert_allclose(odds, [[0.5, 0.5], [0, 0]])


@pytest.mark.parametrize("labels", ["east", [], ["east", "east"], ["east", " "], ["east", 1]])
def test_labels_must_be_different_words(labels: list[str]) -> None:
    with pytest.raises(ValueError, match="labels must be"):
        zero_shot(compass(1), "image", [(1.0, 0.0)], labels)


def test_a_template_without_a_place_for_the_label_is_refused() -> None:
    with pytest.raises(ValueError, match="template"):
        zero_shot(compass(1), "image", [(1.0, 0.0)], ["east"], template="a photo")


def test_texts_are_ranked_for_each_medium() -> None:
    first, second = rank_texts(compass(1), "image", [(1.0, 0.0), (-3.0, 3.0)], list(WORDS))
    assert [text[-5:].strip() for text, _ in first] == ["east", "north", "west"]
    assert second[0][1] == pytest.approx(0.5**0.5) and second[-1] == ("a photo of a east", pytest.approx(-(0.5**0.5)))


def test_mean_is_the_normalised_weighted_sum_of_unit_vectors() -> None:
    np.testing.assert_allclose(fuse([7 * X, 2 * Y]), (X + Y) / 2**0.5, rtol=1e-6)
    np.testing.assert_allclose(fuse([X, Y], weights=[3, -4]), (3 * X - 4 * Y) / 5, rtol=1e-6)
    np.testing.assert_allclose(fuse([np.stack([X, Y]), np.stack([Y, Y])])[1], Y)


def test_concat_makes_the_dimension_larger() -> None:
    np.testing.assert_allclose(fuse([X, 2 * Y], "concat", weights=[3, 4]), [0.6, 0, 0, 0.8], rtol=1e-6)


def test_attention_trusts_views_that_agree() -> None:
    odds = np.exp([0.5, 0.5, 0.0])  # the two X agree with cosine 1 and 0; Y with neither
    a = odds / odds.sum()
    expected = np.array([a[0] + a[1], a[2]])
    np.testing.assert_allclose(fuse([X, X, Y], "attention"), expected / np.linalg.norm(expected), rtol=1e-6)
    np.testing.assert_allclose(fuse([X, Y], "attention"), fuse([X, Y]), rtol=1e-6)
    np.testing.assert_allclose(fuse([np.stack([X, Y])], "attention"), [X, Y])
    weighted = np.array([3 * a[0] + a[1], a[2]])
    np.testing.assert_allclose(fuse([X, X, Y], "attention", weights=[3, 1, 1]), weighted / np.linalg.norm(weighted), rtol=1e-6)


def test_what_cannot_be_fused_is_refused() -> None:
    with pytest.raises(ValueError, match="cancel"):
        fuse([X, -X])
    with pytest.raises(ValueError, match="one shape"):
        fuse([X, np.ones(3)])
    with pytest.raises(ValueError, match="at least one"):
        fuse([])
    with pytest.raises(ValueError, match="2 finite numbers"):
        fuse([X, Y], weights=[1, np.nan])
    with pytest.raises(ValueError, match="'sum'"):
        fuse([X, Y], "sum")  # type: ignore[arg-type]


def test_pair_score_ranks_the_partner_among_others() -> None:
    score = pair_score(X, X + Y, [X, Y, -X])
    assert (score.rank, score.count) == (2, 4)
    assert score.cosine == pytest.approx(0.5**0.5) and score.margin == pytest.approx(0.5**0.5 - 1)
    assert pair_score(X, Y).rank is None


def test_pair_score_says_what_the_encoders_scale_makes_of_it() -> None:
    scale = math.log(3)
    assert pair_score(X, X, [Y, -X], logit_scale=scale).probability == pytest.approx(9 / 13)
    assert pair_score(X, X, [Y, -X], logit_scale=scale, logit_bias=-scale).probability == pytest.approx(1 / 2)
    assert pair_score(X, X, logit_scale=scale).probability == pytest.approx(1)
    assert pair_score(X, X, [Y]).probability is None


def test_arithmetic_adds_and_subtracts_unit_vectors() -> None:
    np.testing.assert_allclose(arithmetic([9 * X, Y], [3 * Y]), X, atol=1e-7)
    np.testing.assert_allclose(arithmetic([X], [Y]), (X - Y) / 2**0.5, rtol=1e-6)
    with pytest.raises(ValueError, match="cancel"):
        arithmetic([X], [X])
    with pytest.raises(ValueError, match="nothing to subtract"):
        arithmetic([], [X])


def test_in_the_demo_space_a_word_finds_its_picture_and_a_pair_ranks_first() -> None:
    space = load_space("demo")
    words = ["a red train", "a dog", "a bell", "the sea"]
    vectors = space.embed("text", words)
    scores = [pair_score(vector, vector, np.delete(vectors, i, axis=0), 10.0) for i, vector in enumerate(vectors)]
    assert [(score.rank, score.count) for score in scores] == [(1, 4)] * 4
    assert all(score.margin is not None and score.margin > 0 for score in scores)
    (odds,) = zero_shot(space, "text", ["a dog"], ["dog", "bell"], template="a {}")
    assert odds["dog"] > odds["bell"] and sum(odds.values()) == pytest.approx(1)
    best, _ = best_match(arithmetic([vectors[0], vectors[1]], [vectors[1]])[None], vectors)
    assert best.tolist() == [0]


def test_a_tie_counts_against_the_pair() -> None:
    assert pair_score(X, Y, [Y, Y]).rank == 3
