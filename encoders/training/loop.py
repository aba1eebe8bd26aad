"""The one training loop, for pre-training two towers together and for binding one to vectors that stay as they are.

In: two sides whose row i belong together, and a recipe. Out: their towers, trained in place, and how it went.
N pairs, B batch, D dimension.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from encoders.training.gradcache import BadBatchError, Gradients, Objective, mixed
from encoders.training.optimiser import make_optimiser, set_learning_rate, warmup_cosine
from encoders.training.recipe import Recipe, TrainingError
from encoders.training.sides import Side
from encoders.training.workers import Workers

CURVE_POINTS = 200  # of the learning curve, about, beside the ends of epochs

Entry = dict[str, Any]  # a point of the learning curve
Watch = Callable[["Training", Entry], None]


@dataclass(frozen=True)
class Trained:
    """How it went.

    Attributes:
        logit_scale: inverse temperature at the end, at most 100.
        losses: mean loss of each epoch; of InfoNCE in nats, where ln(B) is chance.
        steps: how many were made.
        history: the learning curve: `step`, `epoch` (of all pairs, a fraction within one), `loss` since the point before,
            `lr`, `temperature`; at the end of an epoch `epoch_loss`, `pairs_per_s`, `seconds`, `cpu_s`.
        notes: what had to be changed on the way, in words.
    """

    logit_scale: float
    losses: list[float]
    steps: int
    history: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Training:
    """Two sides on their way, epoch by epoch; can be put down and taken up again.

    Args:
        query: at least one of the two sides learns.
        target: as many rows as `query`.
        recipe: how.
        workers: that share each batch and move the same weights; each has all rows at hand.
        groups_N: int64, rows of one group are no negatives of each other (they share an image); None: all differ.
        on_point: called with the training and each new point of its learning curve within an epoch.

    Raises:
        TrainingError: the sides differ in length, too few pairs, a batch that the workers cannot share, nothing to learn.
    """

    def __init__(
        self,
        query: Side,
        target: Side,
        recipe: Recipe,
        workers: Workers | None = None,
        groups_N: torch.Tensor | None = None,
        on_point: Watch | None = None,
    ) -> None:
        if len(query) != len(target):
            raise TrainingError(f"row i belongs to row i, but there are {len(query)} and {len(target)} rows")
        self.recipe, self.workers = recipe, workers or Workers()
        self._count, self._groups_N = len(query), groups_N
        self._batches = recipe.batches(len(query))
        recipe.share(self.workers.count)
        self.towers = [side.tower for side in (query, target) if side.tower is not None]
        if not any(p.requires_grad for tower in self.towers for p in tower.parameters()):
            raise TrainingError("no weight is in training")
        self._objective = Objective(recipe, next(self.towers[0].parameters()).device)
        self.gradients = Gradients((query, target), self._objective, self.workers, recipe.micro_batch, self._note)
        self._optimiser = make_optimiser(self.towers, self._objective.log_scale, recipe)
        average: Any = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
        self._averages = [AveragedModel(t, multi_avg_fn=average, use_buffers=True) for t in self.towers] if recipe.ema else []
        self._on_point = on_point
        self.epoch = self.step = 0
        self.losses: list[float] = []
        self.history: list[Entry] = []
        self.notes: list[str] = []

    @property
    def steps(self) -> int:
        """How many there are in all."""
        return self.recipe.epochs * self._batches

    @property
    def logit_scale(self) -> float:
        """Inverse temperature, at most 100."""
        return self._objective.log_scale.exp().item()

    @property
    def results(self) -> list[nn.Module]:
        """The towers as they are to be scored and saved: the moving averages, if the recipe asks for them."""
        return [average.module for average in self._averages] or self.towers

    def run_epoch(self) -> Entry:
        """One more epoch; the towers are left in evaluation mode.

        Raises:
            BadBatchError: a loss or gradient that is not finite; the weights are those before that step.
        """
        for tower in self.towers:
            _in_training(tower)
        began, cpu_s, losses = time.monotonic(), time.process_time(), list[float]()
        every = max(1, self.steps // CURVE_POINTS)
        drawn = 0  # losses that the curve has
        for rows_B in self._in_order():
            losses.append(self._move(rows_B))
            if self.step % every == 0 and len(losses) < self._batches:
                self._point(losses[drawn:])
                drawn = len(losses)
                if self._on_point:
                    self._on_point(self, self.history[-1])
        self.epoch += 1
        self.losses.append(sum(losses) / len(losses))
        self._point(losses[drawn:])
        seconds = max(time.monotonic() - began, 1e-9)
        pairs_per_s = len(losses) * self.recipe.batch_size / seconds
        self.history[-1] |= {"epoch_loss": self.losses[-1], "pairs_per_s": round(pairs_per_s, 1), "seconds": round(seconds, 3)}
        self.history[-1]["cpu_s"] = round(time.process_time() - cpu_s, 3)
        self.workers.average(b for tower in self.towers for b in tower.buffers() if b.is_floating_point())
        for tower in (*self.towers, *self.results):
            tower.eval()
        return self.history[-1]

    def state_dict(self) -> dict[str, Any]:
        """All that another process needs to go on as if nothing had happened: tensors, numbers, words."""
        return {
            "towers": [tower.state_dict() for tower in self.towers],
            "averages": [average.state_dict() for average in self._averages],
            "objective": self._objective.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "micro_batch": self.gradients.micro_batch,
            "place": [self.epoch, self.step],
            "losses": self.losses,
            "history": self.history,
            "notes": self.notes,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for tower, saved in zip(self.towers, state["towers"], strict=True):
            tower.load_state_dict(saved)
        for average, saved in zip(self._averages, state["averages"], strict=True):
            average.load_state_dict(saved)
        self._objective.load_state_dict(state["objective"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.gradients.micro_batch = state["micro_batch"]
        self.epoch, self.step = state["place"]
        self.losses, self.history, self.notes = list(state["losses"]), list(state["history"]), list(state["notes"])

    def _in_order(self) -> Iterator[torch.Tensor]:
        """Rows (B,) of one epoch in a new order; the last ones that fill no batch wait for another epoch's order."""
        generator = torch.Generator().manual_seed(mixed(self.recipe.seed, self.epoch))
        order_N = torch.randperm(self._count, generator=generator)
        for start in range(0, self._batches * self.recipe.batch_size, self.recipe.batch_size):
            yield order_N[start : start + self.recipe.batch_size]

    def _move(self, rows_B: torch.Tensor) -> float:
        """One step; its loss."""
        groups_B = None if self._groups_N is None else self._groups_N[rows_B]
        try:
            loss = self.gradients.compute(rows_B, groups_B, mixed(self.recipe.seed, self.epoch, self.step))
        except BadBatchError as error:
            raise self._stopped(error) from error
        norm = nn.utils.clip_grad_norm_(self.gradients.weights, self.recipe.clip)
        if not torch.isfinite(norm):
            raise self._stopped(
                BadBatchError(f"the loss of a batch is {loss:.4f}, but its gradient {norm.item()}", rows_B.tolist())
            )
        set_learning_rate(self._optimiser, warmup_cosine(self.step, self.steps, self.recipe.warmup))
        self._optimiser.step()
        self._objective.clamp()
        for tower, average in zip(self.towers, self._averages, strict=False):
            average.update_parameters(tower)
        self.step += 1
        return loss

    def _point(self, losses: list[float]) -> None:
        self.history.append(
            {
                "step": self.step,
                "epoch": round(self.step / self._batches, 4),
                "loss": sum(losses) / len(losses),
                "lr": max(group["lr"] for group in self._optimiser.param_groups),
                "temperature": 1 / self.logit_scale,
            }
        )

    def _note(self, words: str) -> None:
        self.notes.append(f"step {self.step + 1}: {words}")

    def _stopped(self, error: BadBatchError) -> BadBatchError:
        where = f"step {self.step + 1}, in epoch {self.epoch + 1} of {self.recipe.epochs}"
        return BadBatchError(
            f"{error} at {where}; no weight has moved since. Look at these pairs, or lower the learning rates "
            f"(muon_lr {self.recipe.muon_lr}, adamw_lr {self.recipe.adamw_lr})",
            error.rows,
        )


def _in_training(tower: nn.Module) -> None:
    """Training mode, but for batch norms whose weights are frozen: their statistics are of what they were trained on."""
    tower.train()
    for module in tower.modules():
        if isinstance(module, _BatchNorm) and module.weight is not None and not module.weight.requires_grad:
            module.eval()


def results_of(state: dict[str, Any]) -> tuple[list[dict[str, torch.Tensor]], float]:
    """The weights of each tower that are to be scored and saved, and the inverse temperature, of a `Training.state_dict`."""
    averages = [
        {name.removeprefix("module."): value for name, value in average.items() if name.startswith("module.")}
        for average in state["averages"]
    ]
    return averages or state["towers"], state["objective"]["log_scale"].exp().item()


def train(
    query: Side,
    target: Side,
    recipe: Recipe,
    after_epoch: Watch | None = None,
    *,
    workers: Workers | None = None,
    groups_N: torch.Tensor | None = None,
    on_point: Watch | None = None,
    resume: dict[str, Any] | None = None,
) -> Trained:
    """Pull row i of both sides together and apart from the rest of its batch; leave the towers in evaluation mode.

    On one machine the outcome depends on the towers, the pairs and the recipe alone, whether or not it was interrupted.

    Args:
        query, target, recipe, workers, groups_N, on_point: as of a `Training`.
        after_epoch: called after every epoch with the training and the newest point of its learning curve, to add to.
        resume: the `state_dict` of a training of the same towers, pairs and recipe, to go on from.

    Raises:
        TrainingError: as of a `Training`; BadBatchError: a loss that is not finite.
    """
    with torch.random.fork_rng():  # what towers drop is drawn from the global generator
        training = Training(query, target, recipe, workers, groups_N, on_point)
        if resume is not None:
            training.load_state_dict(resume)
        while training.epoch < recipe.epochs:
            entry = training.run_epoch()
            if after_epoch:
                after_epoch(training, entry)
    return Trained(training.logit_scale, training.losses, training.step, training.history, training.notes)
