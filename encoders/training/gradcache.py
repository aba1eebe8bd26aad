"""The gradient of one step: of a batch of any size, over any number of workers. In: two sides, rows. Out: gradients in place.

Vectors are all that a contrastive loss sees. So: vectors first, of all workers; then the loss and its gradient with respect to
every vector, the same on each worker; then each worker's own vectors take their part of it back through the tower, some rows
at a time (GradCache: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021); last the
sum over workers. Where a worker's share goes through at once, its graph is kept and nothing is computed twice.
b rows of one worker, B rows of all, D dimension.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from torch import nn

from encoders.training.loss import MAX_LOGIT_SCALE, clip_loss, cosine_loss
from encoders.training.recipe import Recipe, TrainingError
from encoders.training.sides import Batch, Side
from encoders.training.workers import Workers

MAX_LOG_SCALE = math.log(MAX_LOGIT_SCALE) - 1e-6  # exp() in float32 stays below the clamp, where the gradient still flows
_CPU_ALLOCATOR = "DefaultCPUAllocator"  # what torch's RuntimeError names when the machine's own memory does not suffice

Made = TypeVar("Made")


class BadBatchError(TrainingError):
    """A loss or a gradient that is not finite, before it could move a weight.

    Attributes:
        rows: the pairs to look at: those whose vectors are not finite, or else the whole batch.
    """

    def __init__(self, message: str, rows: Sequence[int]) -> None:
        super().__init__(message)
        self.rows = list(rows)

    def __reduce__(self) -> tuple[type[BadBatchError], tuple[str, list[int]]]:
        return type(self), (str(self), self.rows)


class Objective(nn.Module):
    """The loss of a recipe, with its temperature: `log_scale` is the log of the inverse temperature."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        super().__init__()
        self._kind = recipe.loss
        learnt = recipe.learn_temperature and recipe.loss == "infonce"
        start = min(-math.log(recipe.temperature), MAX_LOG_SCALE)
        self._least = min(0.0, start)  # a temperature above 1 is of no use, and without end would be a division by 0
        self.log_scale = nn.Parameter(torch.tensor(start, device=device), requires_grad=learnt)

    def forward(self, query_BD: torch.Tensor, target_BD: torch.Tensor, groups_B: torch.Tensor | None) -> torch.Tensor:
        """Of matching unit vectors; rows of one group are no negatives of each other."""
        if self._kind == "cosine":
            return cosine_loss(query_BD, target_BD)
        return clip_loss(query_BD, target_BD, self.log_scale.exp(), groups_B)

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the inverse temperature from 1 (or where it started, if below) to 100."""
        self.log_scale.clamp_(self._least, MAX_LOG_SCALE)


def mixed(*numbers: int) -> int:
    """One seed out of several numbers; other numbers give another one."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7])


class Gradients:
    """Computes what a step needs to move the weights.

    Args:
        sides: query and target.
        objective: whose loss it is.
        workers: that share the batch.
        micro_batch: rows that go through a tower at once; 0: a worker's whole share.
        note: told, in words, when memory did not suffice.

    Attributes:
        micro_batch: as it is now; halved each time that memory does not suffice, and the step done again.
    """

    def __init__(
        self, sides: Sequence[Side], objective: Objective, workers: Workers, micro_batch: int, note: Callable[[str], None]
    ) -> None:
        self._sides, self._objective, self._workers, self._note = sides, objective, workers, note
        self.micro_batch = micro_batch
        towers = [side.tower for side in sides if side.tower is not None]
        self.weights = [p for tower in towers for p in tower.parameters() if p.requires_grad]

    def compute(self, rows_B: torch.Tensor, groups_B: torch.Tensor | None, seed: int) -> float:
        """Set the gradient of every weight and of the temperature to that of the loss over the joint batch.

        Args:
            rows_B: of all workers, the same on each; a worker takes its own part.
            groups_B: of these rows, or None.
            seed: of augmentation and of what towers drop.

        Returns:
            The loss.

        Raises:
            BadBatchError: it is not finite; weights have not moved.
            TrainingError: memory does not even suffice for one row at a time.
        """
        while True:
            loss = self._attempt(rows_B, groups_B, seed)
            if loss is not None:
                return loss
            share = len(rows_B) // self._workers.count
            if (self.micro_batch or share) == 1:
                raise TrainingError(
                    "memory does not suffice for one pair at a time; train a smaller tower, or on a larger device"
                )
            self.micro_batch = (self.micro_batch or share) // 2
            self._note(f"memory does not suffice; from here on {self.micro_batch} pairs go through a tower at once")

    def _attempt(self, rows_B: torch.Tensor, groups_B: torch.Tensor | None, seed: int) -> float | None:
        """One try; None if any worker's memory did not suffice."""
        for weight in (*self.weights, self._objective.log_scale):
            weight.grad = None
        share = len(rows_B) // self._workers.count
        own = slice(self._workers.rank * share, (self._workers.rank + 1) * share)
        made = self._together(lambda: [_Half(side, rows_B[own], self.micro_batch, seed, self._workers) for side in self._sides])
        if made is None:
            return None
        joint = [self._workers.gather(half.vectors_bD).requires_grad_(half.learns) for half in made]
        loss = self._objective(*joint, None if groups_B is None else groups_B.to(joint[0].device))
        self._check(loss, joint, rows_B)
        loss.backward()
        learning = [(half, whole.grad[own]) for half, whole in zip(made, joint, strict=True) if whole.grad is not None]
        if self._together(lambda: _back(learning)) is None:
            return None
        self._workers.add_up(self._filled())
        return float(loss.item())

    def _filled(self) -> list[torch.Tensor]:
        """All gradients; where the batch gave none, zeros, so that all workers speak of the same ones."""
        for weight in self.weights:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        return [weight.grad for weight in self.weights if weight.grad is not None]

    def _together(self, work: Callable[[], Made]) -> Made | None:
        """What `work` makes, or None on every worker if the memory of any did not suffice."""
        made: Made | None = None
        try:
            made = work()
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or _CPU_ALLOCATOR in str(error)):
                raise
        return None if self._workers.any(made is None) else made

    def _check(self, loss: torch.Tensor, joint: Sequence[torch.Tensor], rows_B: torch.Tensor) -> None:
        if torch.isfinite(loss):
            return
        bad_B = torch.stack([~torch.isfinite(vectors_BD).all(-1) for vectors_BD in joint]).any(0).cpu()
        rows = rows_B[bad_B if bad_B.any() else torch.ones_like(bad_B)].tolist()
        some = f"the vectors of {int(bad_B.sum())} of its {len(rows_B)} pairs are not finite"
        reason = some if bad_B.any() else f"though all vectors of its {len(rows_B)} pairs are finite"
        raise BadBatchError(f"the loss of a batch is {loss.item()}: {reason}", rows)


def _back(halves: Sequence[tuple[_Half, torch.Tensor]]) -> int:
    """Take each side's gradient back through its tower; how many there were."""
    for half, gradient_bD in halves:
        half.backward(gradient_bD)
    return len(halves)


class _Half:
    """One side of one worker's part of a batch."""

    def __init__(self, side: Side, rows_b: torch.Tensor, micro_batch: int, seed: int, workers: Workers) -> None:
        self._side, self._seed = side, mixed(seed, workers.rank)
        self.learns = side.tower is not None
        batch = side.batch(rows_b, torch.Generator().manual_seed(seed))
        size = micro_batch or len(rows_b)
        self._parts: list[Batch] = [
            {name: values[first : first + size] for name, values in batch.items()} for first in range(0, len(rows_b), size)
        ]
        self._whole = len(self._parts) == 1
        with nullcontext() if self._whole else torch.no_grad():
            self.vectors_bD = torch.cat([self._forward(number) for number in range(len(self._parts))])

    def backward(self, gradient_bD: torch.Tensor) -> None:
        """Take the loss's gradient with respect to these vectors back through the tower."""
        if self._whole:
            self.vectors_bD.backward(gradient_bD)  # type: ignore[no-untyped-call]
            return
        sizes = [len(next(iter(part.values()))) for part in self._parts]
        for number, part_gradient in enumerate(torch.split(gradient_bD, sizes)):
            self._forward(number).backward(part_gradient)  # type: ignore[no-untyped-call]

    def _forward(self, number: int) -> torch.Tensor:
        """The vectors of one part; what the tower drops is the same each time."""
        torch.manual_seed(mixed(self._seed, number))
        return self._side.vectors(self._parts[number])
