"""What is decided before Ray Train starts: which pairs train, and which trainings are the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from encoders import build_encoder, load_space
from encoders.training.recipe import Recipe, TrainingError
from encoders.training.start import Start
from jobs.trainer import Plan, _name, split_pairs


def plan(**changes: Any) -> Plan:
    demo = load_space("demo")
    recipe = Recipe(epochs=2, batch_size=32)
    return replace(Plan(build_encoder("demo/depth"), demo.encoders["image"], recipe, 40, "float32"), **changes)


def test_no_image_is_on_two_sides_of_the_split_and_none_is_held_out_twice() -> None:
    groups = np.arange(300) // 3  # 100 images, three pairs each
    usable = np.setdiff1d(np.arange(300), [0, 7, 8])
    split = split_pairs(usable, groups, 40, seed=0)
    assert (len(split.validation), len(split.test)) == (20, 20)
    held = np.concatenate([split.validation, split.test])
    assert len(np.unique(groups[held])) == 40 and not set(groups[held]) & set(groups[split.training])
    assert set(split.training) | set(held) <= set(usable)
    assert len(split.training) >= 297 - 3 * 40 and (np.diff(split.training) > 0).all()
    again, other = split_pairs(usable, groups, 40, seed=0), split_pairs(usable, groups, 40, seed=1)
    assert (again.test == split.test).all() and set(other.test) != set(split.test)


def test_a_training_is_the_same_whoever_does_it_and_another_by_its_recipe_its_pairs_or_its_start() -> None:
    rows, groups = np.arange(200), np.arange(200)
    split = split_pairs(rows, groups, 40, 0)
    name = _name(plan(), split)
    recipe = plan().recipe
    assert _name(plan(workers=2, recipe=replace(recipe, micro_batch=8)), split) == name
    others = [
        _name(plan(recipe=replace(recipe, seed=1)), split),
        _name(plan(shuffle_pairs=True), split),
        _name(plan(start=Start(load_space("demo").encoders["depth"])), split),
        _name(plan(query=build_encoder("demo/imu")), split),
        _name(plan(), split_pairs(rows[1:], groups, 40, 0)),
    ]
    assert len({name, *others}) == 6


def test_what_cannot_be_shared_or_held_out_is_refused() -> None:
    with pytest.raises(TrainingError, match="cannot be shared by 3 workers"):
        plan(workers=3).check(1000)
    with pytest.raises(TrainingError, match="--workers 0"):
        plan(workers=0).check(1000)
    with pytest.raises(TrainingError, match="71 usable pairs, 40 of them held out"):
        plan().check(71)
