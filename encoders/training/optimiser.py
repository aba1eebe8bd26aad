"""How weights move. In: towers, a log temperature, a recipe. Out: an optimiser and its learning-rate schedule.

Muon (orthogonalised momentum) turns the matrices inside a tower; AdamW the rest: biases, norms, positions, embeddings, and the
first and the last layer, which meet raw features and write the vector. On small towers and few pairs it learns what AdamW
alone does not (docs/decisions/0001-small-towers-train-with-muon.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from encoders.training.recipe import Recipe

MOMENTUM = 0.95
BETAS = (0.9, 0.98)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)
ADAPTER = ".lora_"  # in the name of a layer that `peft` has added: thin factors, which Muon is not made for


def inner_matrices(tower: nn.Module) -> list[torch.Tensor]:
    """The weights that Muon turns: those of linear and convolution layers, without the tower's first and last layer."""
    layers = [(name, module) for name, module in tower.named_modules() if isinstance(module, LAYERS)]
    return [
        layer.weight
        for name, layer in layers[1:-1]
        if layer.weight.requires_grad and not isinstance(layer, nn.Embedding) and ADAPTER not in name
    ]


def make_optimiser(towers: Iterable[nn.Module], log_scale: nn.Parameter, recipe: Recipe) -> torch.optim.Optimizer:
    """Muon for the inner matrices of the towers and AdamW for all else, or AdamW for all; decay of matrices alone.

    The log temperature moves 3 times as fast as the rest.

    Args:
        towers: in training; parameters that need no gradient are left alone.
        log_scale: log of the inverse temperature, a scalar; left alone if it needs no gradient.
        recipe: `muon_lr` is before the shape's factor sqrt(max(1, rows / columns)).
    """
    towers = list(towers)
    turned = [weight for tower in towers for weight in inner_matrices(tower)] if recipe.optimiser == "muon" else []
    taken = {id(weight) for weight in turned}
    layers = [m for tower in towers for m in tower.modules() if isinstance(m, LAYERS) and not isinstance(m, nn.Embedding)]
    decayed = [m.weight for m in layers if m.weight.requires_grad and id(m.weight) not in taken]
    taken |= {id(weight) for weight in decayed}
    rest = [p for tower in towers for p in tower.parameters() if p.requires_grad and id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "lr": recipe.adamw_lr, "weight_decay": recipe.weight_decay},
        {"params": rest, "lr": recipe.adamw_lr, "weight_decay": 0.0},
        {"params": [log_scale] if log_scale.requires_grad else [], "lr": 3 * recipe.adamw_lr, "weight_decay": 0.0},
    ]
    if recipe.optimiser == "muon":
        made = _muon(turned, [{**group, "betas": BETAS} for group in groups if group["params"]], recipe)
    else:
        made = torch.optim.AdamW([group for group in groups if group["params"]], betas=BETAS)
    for group in made.param_groups:
        group["full_lr"] = group["lr"]
    return made


def _muon(turned: list[torch.Tensor], rest: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    from timm.optim.muon import Muon  # here, because timm takes seconds to import, and most who import us do not train

    adamw = [{**group, "use_fallback": True, "nesterov": False} for group in rest]
    muon = {"params": turned, "use_muon": True, "lr": recipe.muon_lr, "nesterov": True, "weight_decay": recipe.weight_decay}
    groups = [muon, *adamw] if turned else adamw
    return Muon(groups, momentum=MOMENTUM, ns_coefficients="original", adjust_lr_fn="original")


def set_learning_rate(optimiser: torch.optim.Optimizer, share: float) -> None:
    """Give every group of an optimiser of ours this share of its full learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = share * group["full_lr"]


def warmup_cosine(step: int, steps: int, warmup: float = 0.1) -> float:
    """The share of the full learning rate at `step` of `steps`: up in a line over the share `warmup`, and a cosine to zero."""
    rising = min(1.0, (step + 1) / max(1.0, warmup * steps))
    return rising * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / steps)))
