"""How long a step takes is measured on few pairs, and on no more than there are in it."""

from __future__ import annotations

import time

import pytest
import torch

from encoders.training import step_time
from encoders.training.recipe import Recipe
from encoders.training.sides import Frozen, Learner, Side
from encoders.training.step_time import step_seconds


class Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.map(x)


def sizes(recipe: Recipe, pairs: int) -> list[int]:
    """How many pairs each step that was tried had."""
    tower, features, tried = Linear(), {"x": torch.randn(3, 8)}, list[int]()

    def sides(rows_N: torch.Tensor) -> tuple[Side, Side]:
        tried.append(len(rows_N))
        return Learner(tower, features, rows_N=rows_N % 3), Frozen(torch.eye(4)[rows_N % 3])

    assert step_seconds(sides, recipe, pairs) >= 0
    return tried


def test_steps_grow_up_to_a_full_batch_or_to_what_the_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sizes(Recipe(epochs=1), 20) == [2, 16, 20]
    assert sizes(Recipe(epochs=9, batch_size=2), 1) == [2]  # of a batch that two workers share
    monkeypatch.setattr(step_time, "BUDGET_S", -1.0)
    assert sizes(Recipe(epochs=1), 20) == [2]


def test_learning_rates_that_would_run_away_do_no_harm() -> None:
    assert sizes(Recipe(epochs=1, muon_lr=1e30, adamw_lr=1e30), 2) == [2]


class Slow(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return super().forward(x)


def test_seconds_of_fewer_pairs_are_scaled_up_to_those_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_time, "BUDGET_S", -1.0)  # a step of two pairs is all that is tried

    def sides(rows_N: torch.Tensor) -> tuple[Side, Side]:
        return Learner(Slow(), {"x": torch.randn(2, 8)}, rows_N=rows_N), Frozen(torch.eye(4)[rows_N])

    assert step_seconds(sides, Recipe(epochs=1), 200) >= 100 * 0.02
