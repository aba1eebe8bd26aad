"""How long a step of training takes, measured. In: two sides of few pairs, a recipe. Out: seconds of a step of a full batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from encoders.training.loop import Training
from encoders.training.recipe import Recipe
from encoders.training.sides import Side

BUDGET_S = 5.0
FIRST, GROWTH = 2, 8  # pairs of a step; it grows as long as the next one will do
STILL = 1e-9  # a learning rate at which nothing moves, so that no loss runs away


def step_seconds(sides: Callable[[torch.Tensor], tuple[Side, Side]], recipe: Recipe, pairs: int) -> float:
    """Seconds of a step of one worker. The towers' buffers move: they are good for nothing else.

    Args:
        sides: rows (N,), numbers from 0 on, of as many pairs as there may be -> both sides of them.
        recipe: of the training.
        pairs: of a worker in a step; if so many take too long, those of fewer are scaled up.

    Raises:
        TrainingError: as of a `Training`.
    """
    pairs = max(FIRST, pairs)  # one alone has nothing to be told from
    size, still = FIRST, replace(recipe, epochs=2, muon_lr=STILL, adamw_lr=STILL)
    while True:
        with torch.random.fork_rng():
            training = Training(*sides(torch.arange(size)), replace(still, batch_size=size))
            training.run_epoch()  # a single step; the first one allocates
            seconds: float = training.run_epoch()["seconds"]
        following = min(GROWTH * size, pairs)
        if size == pairs or 2 * seconds * following / size > BUDGET_S:
            return seconds * pairs / size
        size = following
