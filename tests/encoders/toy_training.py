"""A training small enough to be made in a second. In: nothing, or workers. Out: towers, pairs, trainings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from encoders.training.loop import Training
from encoders.training.recipe import Recipe
from encoders.training.sides import Frozen, Learner
from encoders.training.workers import Workers

TOY = Recipe(epochs=6, batch_size=32, temperature=0.1)


class Toy(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(12, 32), nn.GELU(), nn.Linear(32, 32), nn.GELU(), nn.Dropout(dropout), nn.Linear(32, 8)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def toy(seed: int = 0, dropout: float = 0.0) -> Toy:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Toy(dropout)


def toy_pairs(count: int = 320) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (N, 12) and unit vectors (N, 8) that a hidden linear map makes of them."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(count, 12, generator=generator)
    return x, normalize(x @ torch.randn(12, 8, generator=generator), dim=-1)


def toy_training(workers: Workers | None = None, **changes: Any) -> Training:
    """Two epochs of ten steps; every third pair shares its image with the one before."""
    x, vectors_ND = toy_pairs()
    recipe = replace(TOY, epochs=2, **changes)
    groups_N = torch.arange(320) - (torch.arange(320) % 3 == 2).long()
    return Training(Learner(toy(), {"x": x}), Frozen(vectors_ND), recipe, workers, groups_N)
