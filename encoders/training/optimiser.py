"""How weights move. In: towers, a log temperature, a number of steps. Out: an optimiser and its learning-rate schedule.

Muon (orthogonalised momentum) turns the matrices inside a tower; AdamW the rest: biases, norms, positions, embeddings, and the
first and the last layer, which meet raw features and write the vector. On small towers and few pairs it learns what AdamW
alone does not (docs/decisions/0001-small-towers-train-with-muon.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

WARMUP = 0.1  # of all steps
MOMENTUM = 0.95
WEIGHT_DECAY = 0.01  # of Muon's matrices; the rest has none
BETAS = (0.9, 0.98)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)


def inner_matrices(tower: nn.Module) -> list[torch.Tensor]:
    """The weights that Muon turns: those of linear and convolution layers, without the tower's first and last layer."""
    layers = [module for module in tower.modules() if isinstance(module, LAYERS)]
    return [layer.weight for layer in layers[1:-1] if layer.weight.requires_grad and not isinstance(layer, nn.Embedding)]


def make_optimiser(
    towers: Iterable[nn.Module], log_scale: nn.Parameter, muon_lr: float, adamw_lr: float
) -> torch.optim.Optimizer:
    """Muon for the inner matrices of the towers, AdamW for all else; the log temperature moves 3 times as fast.

    Args:
        towers: in training; parameters that need no gradient are left alone.
        log_scale: log of the inverse temperature, a scalar.
        muon_lr: of the matrices, before the shape's factor sqrt(max(1, rows / columns)).
        adamw_lr: of the rest.
    """
    from timm.optim.muon import Muon  # here, because timm takes seconds to import, and most who import us do not train

    towers = list(towers)
    matrices = [weight for tower in towers for weight in inner_matrices(tower)]
    turned = {id(weight) for weight in matrices}
    rest = [p for tower in towers for p in tower.parameters() if p.requires_grad and id(p) not in turned]
    adamw = {"use_fallback": True, "nesterov": False, "weight_decay": 0.0, "betas": BETAS}
    groups = [
        {"params": matrices, "use_muon": True, "lr": muon_lr, "nesterov": True, "weight_decay": WEIGHT_DECAY},
        {"params": rest, "lr": adamw_lr, **adamw},
        {"params": [log_scale], "lr": 3 * adamw_lr, **adamw},
    ]
    groups = [group for group in groups if group["params"]]
    return Muon(groups, momentum=MOMENTUM, ns_coefficients="original", adjust_lr_fn="original")


def warmup_cosine(step: int, steps: int) -> float:
    """The share of the full learning rate at `step` of `steps`: up in a line over the first tenth, then a cosine to zero."""
    rising = min(1.0, (step + 1) / (WARMUP * steps))
    return rising * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / steps)))
