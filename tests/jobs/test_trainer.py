"""What is decided before Ray Train starts: which pairs train, and which trainings are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.train
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError

from encoders import build_encoder, load_space
from encoders.training.recipe import Recipe, TrainingError
from encoders.training.start import Start
from jobs.bind import BindConfig, bind
from jobs.trainer import FAILURES, Plan, _failure, _name, split_pairs


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
    names = [f"depth/{row}.png, image/{row}.jpg" for row in rows]
    name = _name(plan(), split, names)
    recipe = plan().recipe
    assert _name(plan(workers=2, recipe=replace(recipe, micro_batch=8)), split, names) == name
    others = [
        _name(plan(recipe=replace(recipe, seed=1)), split, names),
        _name(plan(shuffle_pairs=True), split, names),
        _name(plan(start=Start(load_space("demo").encoders["depth"])), split, names),
        _name(plan(query=build_encoder("demo/imu")), split, names),
        _name(plan(), split_pairs(rows[1:], groups, 40, 0), names),
        _name(plan(), split, [*names[1:], names[0]]),  # as many pairs, others
    ]
    assert len({name, *others}) == 7


def test_what_cannot_be_shared_or_held_out_is_refused() -> None:
    with pytest.raises(TrainingError, match="cannot be shared by 3 workers"):
        plan(workers=3).check(1000)
    with pytest.raises(TrainingError, match="--workers 0"):
        plan(workers=0).check(1000)
    with pytest.raises(TrainingError, match="71 usable pairs, 40 of them held out"):
        plan().check(71)


def test_what_ray_train_gives_up_for_is_the_infrastructure_s_or_our_bug() -> None:
    def failure(*causes: Exception) -> Exception:
        return _failure(ray.train.WorkerGroupError("workers failed", dict(enumerate(causes))), plan(workers=2))

    dead, full = (
        WorkerHealthCheckFailedError("A worker health check failed.", why)
        for why in (ActorDiedError(), OutOfMemoryError("9 GB"))
    )
    collateral = RuntimeError("Connection closed by peer")  # what the others say when one of them dies
    assert isinstance(failure(collateral, dead), OSError) and f"{FAILURES + 1} times" in str(failure(collateral, dead))
    assert isinstance(failure(dead, full), OSError) and "recipe.micro_batch (it is 16)" in str(failure(dead, full))
    assert "TMPDIR" in str(failure(OSError("the disk is full; set TMPDIR"))) and isinstance(failure(OSError("")), OSError)
    away = _failure(ray.train.ControllerError(WorkerGroupStartupTimeoutError(2)), plan(workers=2))
    assert isinstance(away, OSError) and "timed out" in str(away)
    bug = failure(ValueError("shapes differ"))
    assert type(bug) is RuntimeError and "shapes differ" in str(bug)  # never as the ValueError that would end with 2


def test_pairs_whose_pictures_stand_under_another_name_are_no_corpus_of_videos(tmp_path: Path) -> None:
    pq.write_table(pa.table({"picture": ["a.jpg"], "audio": ["a.wav"]}), tmp_path / "pairs.parquet")
    with pytest.raises(ValueError, match="has no column 'image'; it has picture, audio"):
        bind(BindConfig(modality="audio", pairs=f"{tmp_path}/pairs.parquet", space="demo", out=f"{tmp_path}/out"))
