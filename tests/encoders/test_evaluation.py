"""Scores of a space: what they count, what they are by chance, which are emergent, and the gate in front of a promotion."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from encoders import Space, SpaceError, load_space
from encoders.evaluation import Sample, default_prompts, evaluate, metric_names, relation
from encoders.gate import checked, parse_minimums
from encoders.training.evaluate import alignment, chance_of_recall, precision_at_1, recall, uniformity


def directions(count: int, dim: int = 128, seed: int = 0) -> np.ndarray:
    """Random unit vectors (N, D)."""
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def demo() -> Space:
    return load_space("demo")


def test_a_picture_that_is_there_twice_may_be_found_in_either_place() -> None:
    gallery = np.eye(4)[[0, 0, 2, 3]]
    assert recall(np.eye(4)[[0, 0, 2, 3]], gallery, ks=(1,)) == {"R@1": 0.5}
    twice = [np.array([7, 7, 8, 9])]
    assert recall(np.eye(4)[[0, 0, 2, 3]], gallery, ks=(1,), same=twice) == {"R@1": 1.0}
    assert recall(gallery[::-1], gallery, ks=(1,), same=twice) == {"R@1": 0.0}


@pytest.mark.parametrize("same", [(), (np.repeat(np.arange(300), 4),)])
def test_recall_of_random_vectors_is_what_chance_says(same: Sequence[np.ndarray]) -> None:
    found = recall(directions(1200, seed=1), directions(1200, seed=2), ks=(1, 10, 200), same=same)
    chance = chance_of_recall(1200, ks=(1, 10, 200), same=same)
    assert chance["R@200"] == pytest.approx(200 / 1200 if not same else 1 - (1000 / 1200) ** 4, abs=0.002)
    for name, value in chance.items():
        assert found[name] == pytest.approx(value, abs=0.05), name


def test_recall_does_not_depend_on_how_many_queries_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    query = directions(100, seed=1)
    gallery = query + 0.8 * directions(100, seed=2)
    labels = np.arange(100) % 7
    whole = recall(query, gallery), precision_at_1(query, gallery, labels), uniformity(query)
    monkeypatch.setattr("encoders.training.evaluate.BLOCK", 9)
    assert (recall(query, gallery), precision_at_1(query, gallery, labels)) == whole[:2]
    assert uniformity(query) == pytest.approx(whole[2])


def test_precision_at_1_leaves_the_same_medium_out_too() -> None:
    rows = np.array([[1.0, 0.0], [0.99, 0.1], [0.0, 1.0], [0.6, 0.7]])
    labels = ["dog", "dog", "cat", "cow"]
    assert precision_at_1(rows, rows, labels) == 0.5
    assert precision_at_1(rows, rows, labels, [np.array([1, 1, 2, 3])]) == 0.0


def test_alignment_and_uniformity_have_the_values_of_wang_and_isola() -> None:
    rows = directions(500)
    assert alignment(rows, rows) == 0
    assert alignment(np.eye(3), np.roll(np.eye(3), 1, 0)) == pytest.approx(2)
    assert uniformity(np.repeat(rows[:1], 9, axis=0)) == pytest.approx(0, abs=1e-5)
    assert uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8)
    assert uniformity(rows) == pytest.approx(-4, abs=0.1)
    with pytest.raises(ValueError, match="1 make none"):
        uniformity(rows[:1])


def test_what_was_bound_to_pictures_meets_words_and_other_senses_only_there() -> None:
    space = demo()
    assert relation(space, "audio", "image") == relation(space, "image", "audio") == "trained"
    assert relation(space, "image", "text") == "trained"
    assert (
        relation(space, "video", "image") == relation(space, "video", "text") == relation(space, "audio", "video") == "trained"
    )
    assert relation(space, "audio", "text") == relation(space, "imu", "depth") == "emergent"
    stranger = dataclasses.replace(
        space, encoders={m: dataclasses.replace(space.encoders[m], card={}) for m in ("image", "text")}
    )
    assert relation(stranger, "image", "text") == "unknown"


def sample_of(count: int = 40) -> Sample:
    """Pictures and sounds in one direction, traces elsewhere and only of the first half."""
    image, imu = directions(count), directions(count, seed=5)
    imu[count // 2 :] = np.nan
    return Sample(
        {"image": image, "audio": image.copy(), "imu": imu},
        labels={"thing": [("dog", "cat", None, "bell")[k % 4] for k in range(count)]},
    )


def test_an_evaluation_compares_what_things_share_and_names_every_score() -> None:
    found = evaluate(demo(), sample_of(), focus=["audio"])
    assert found.items == {"image": 40, "audio": 40, "imu": 20}
    assert [(one.query, one.target, one.of) for one in found.retrieval] == [
        ("audio", "image", 40),
        ("audio", "imu", 20),
        ("image", "audio", 40),
        ("imu", "audio", 20),
    ]
    scores = found.metrics()
    assert scores["audio.image.R@1"] == scores["image.audio.R@10"] == 1.0 and scores["audio.imu.R@1"] < 0.3
    assert set(scores) <= set(metric_names(demo(), ["audio", "image", "imu"], ["thing"]))
    assert [(one.modality, one.label, one.of, one.classes) for one in found.zero_shot] == [("audio", "thing", 30, 3)]
    assert found.classes["thing"] == pytest.approx({"bell": 1 / 3, "cat": 1 / 3, "dog": 1 / 3})
    assert found.retrieval[0].relation == "trained" and found.retrieval[1].relation == "emergent"
    assert found.retrieval[0].chance["R@1"] == pytest.approx(1 / 40)


def test_words_tell_classes_by_the_mean_of_their_sentences() -> None:
    space = demo()
    said = {"thing": {"dog": ["a dog", "a puppy"], "cat": ["a cat"]}}
    vectors = {"image": space.embed("text", ["a puppy", "a kitten", "a cat"]), "audio": directions(3)}
    found = evaluate(space, Sample(vectors, labels={"thing": ["dog", "cat", "dog"]}), said)
    one = next(one for one in found.zero_shot if one.modality == "image")
    assert (one.accuracy, one.per_class, one.majority) == pytest.approx((2 / 3, 3 / 4, 2 / 3))


def test_labels_that_are_no_classes_and_prompts_that_lack_one_are_refused() -> None:
    with pytest.raises(SpaceError, match="'thing' has 1 different values"):
        default_prompts({"thing": ["dog", "dog", None]}, {})
    with pytest.raises(SpaceError, match="no sentence for 'dog'"):
        default_prompts({"thing": ["dog", "cat"]}, {"thing": {"cat": ["a cat"]}})
    with pytest.raises(SpaceError, match="no two of image are of the same things"):
        evaluate(demo(), Sample({"image": directions(3)}))
    with pytest.raises(SpaceError, match="of image, text, none shares things with audio"):
        evaluate(demo(), Sample({"image": directions(3), "text": directions(3)}), focus=["audio"])


NAMES = metric_names(demo(), ["audio", "image", "text"], ["thing"])


def test_a_minimum_is_read_and_checked_and_a_score_that_is_missing_fails() -> None:
    minimums = parse_minimums(["audio.image.R@5=0.9", "audio.thing.accuracy=.5", "audio.text.thing@1=0"], NAMES)
    good, low, missing = checked({"audio.image.R@5": 0.9, "audio.thing.accuracy": 0.49}, minimums)
    assert good.passed and not low.passed and not missing.passed
    assert str(low) == "audio.thing.accuracy is 0.490, at least 0.5 was asked for"
    assert "could not be scored" in str(missing)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("audio.image.R@2=0.9", r"nearest there are: .*audio\.image\.R@"),
        ("audio.image.R@5", "names no score"),
        ("audio.image.R@5=high", "'high' is no number"),
        ("audio.image.R@5=90", "from 0 to 1"),
        ("audio.image.R@5=nan", "from 0 to 1"),
    ],
)
def test_a_minimum_that_cannot_be_meant_is_refused(word: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        parse_minimums([word], NAMES)
