"""The one training loop, for pre-training two towers together and for binding one to vectors that stay as they are.

In: two sides whose row i belong together, and a recipe. Out: their towers, trained in place, and how it went.
N pairs, B batch, D dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn.functional import normalize

from encoders.encoder import Augment
from encoders.training.loss import MAX_LOGIT_SCALE, clip_loss
from encoders.training.optimiser import make_optimiser, warmup_cosine

GRADIENT_NORM = 1.0  # of all towers together; longer gradients are shortened to it
MAX_LOG_SCALE = math.log(MAX_LOGIT_SCALE) - 1e-6  # exp() in float32 stays below the clamp, where the gradient still flows


class TrainingError(ValueError):
    """Training cannot start or go on with these pairs and settings; the message says what to change."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: how often each pair is seen.
        batch_size: B, pairs a step; each is told from the B - 1 others.
        temperature: at the start; it is learnt, and its inverse never exceeds 100.
        muon_lr: learning rate of the inner matrices.
        adamw_lr: learning rate of all other weights.
        seed: of the order of pairs and of augmentation.

    Raises:
        TrainingError: nothing could be learnt with these numbers.
    """

    epochs: int
    batch_size: int = 128
    temperature: float = 0.07
    muon_lr: float = 0.02
    adamw_lr: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.epochs < 1:
            raise TrainingError(f"batch size {self.batch_size} and {self.epochs} epochs; use at least 2 pairs and 1 epoch")
        if not (self.temperature > 0 and self.muon_lr > 0 and self.adamw_lr > 0):
            raise TrainingError(
                f"temperature {self.temperature} and learning rates {self.muon_lr} and {self.adamw_lr}; all must be above 0"
            )

    def steps(self, num_pairs: int) -> int:
        """How many steps that is: whole batches only.

        Raises:
            TrainingError: not one batch can be filled.
        """
        if num_pairs < self.batch_size:
            raise TrainingError(
                f"{num_pairs} pairs do not fill one batch of {self.batch_size}; bring more pairs or lower --batch-size"
            )
        return self.epochs * (num_pairs // self.batch_size)


class Side(Protocol):
    """One modality of the pairs."""

    @property
    def tower(self) -> nn.Module | None:
        """What learns, if this side does."""

    def __len__(self) -> int:
        """N."""

    def vectors(self, rows_B: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Unit vectors (B, D) of these rows."""


class Learner:
    """A side whose tower learns.

    Args:
        tower: (features, batched) -> (B, D), on the device to train on.
        features: {name: (N, ...)} in memory on the CPU, in whatever small type they were made.
        augment: see encoders/training/augment.py.
    """

    def __init__(self, tower: nn.Module, features: Mapping[str, torch.Tensor], augment: Augment | None = None) -> None:
        self.tower = tower
        self._features = features
        self._augment = augment
        self._device = next(tower.parameters()).device

    def __len__(self) -> int:
        return len(next(iter(self._features.values())))

    def vectors(self, rows_B: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Unit vectors (B, D), float32, with their gradient."""
        batch = {name: values[rows_B].to(self._device) for name, values in self._features.items()}
        batch = self._augment(batch, generator) if self._augment else batch
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            vectors_BD = self.tower(**batch)
        return normalize(vectors_BD.float(), dim=-1)


class Frozen:
    """A side that stays as it is: unit vectors (N, D), computed once, on the device to train on."""

    tower = None

    def __init__(self, vectors_ND: torch.Tensor) -> None:
        self._vectors_ND = vectors_ND

    def __len__(self) -> int:
        return len(self._vectors_ND)

    def vectors(self, rows_B: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The rows, float32, without gradient; nothing is drawn from `generator`."""
        return self._vectors_ND[rows_B.to(self._vectors_ND.device)]


@dataclass(frozen=True)
class Trained:
    """How it went.

    Attributes:
        logit_scale: inverse temperature at the end, at most 100.
        losses: mean loss of each epoch in nats; ln(B) is chance.
        steps: how many were made.
    """

    logit_scale: float
    losses: list[float]
    steps: int


def train(query: Side, target: Side, recipe: Recipe, progress: Callable[[int, float], None] | None = None) -> Trained:
    """Pull row i of both sides together and apart from the rest of its batch; leave the towers in evaluation mode.

    On one machine the outcome depends on the towers, the pairs and the recipe alone.

    Args:
        query: at least one of the two sides learns.
        target: as many rows as `query`.
        recipe: how.
        progress: called after every epoch with its number from 1 and its mean loss.

    Raises:
        TrainingError: the sides differ in length, too few pairs, or a loss that is not finite.
    """
    if len(query) != len(target):
        raise TrainingError(f"row i belongs to row i, but there are {len(query)} and {len(target)} rows")
    steps = recipe.steps(len(query))
    towers = [side.tower for side in (query, target) if side.tower is not None]
    parameters = [p for tower in towers for p in tower.parameters() if p.requires_grad]
    log_scale = nn.Parameter(torch.tensor(-math.log(recipe.temperature), device=parameters[0].device))
    optimiser = make_optimiser(towers, log_scale, recipe.muon_lr, recipe.adamw_lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warmup_cosine(step, steps))
    generator = torch.Generator().manual_seed(recipe.seed)
    losses: list[float] = []
    for tower in towers:
        tower.train()
    for epoch in range(1, recipe.epochs + 1):
        total = 0.0
        for rows_B in _batches(len(query), recipe.batch_size, generator):
            loss = clip_loss(query.vectors(rows_B, generator), target.vectors(rows_B, generator), log_scale.exp())
            total += _finite(loss, epoch, recipe)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                log_scale.clamp_(max=MAX_LOG_SCALE)
        losses.append(total / (len(query) // recipe.batch_size))
        if progress:
            progress(epoch, losses[-1])
    for tower in towers:
        tower.eval()
    return Trained(log_scale.exp().item(), losses, steps)


def _batches(num_pairs: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Rows (B,) of one epoch in a new order; the last ones that fill no batch wait for another epoch's order."""
    order_N = torch.randperm(num_pairs, generator=generator)
    for start in range(0, num_pairs - batch_size + 1, batch_size):
        yield order_N[start : start + batch_size]


def _finite(loss: torch.Tensor, epoch: int, recipe: Recipe) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingError(
            f"the loss is {value} in epoch {epoch} of {recipe.epochs}: a tower made numbers that are not finite. Lower "
            f"--learning-rate ({recipe.muon_lr}), or look for features that are not finite"
        )
    return value
