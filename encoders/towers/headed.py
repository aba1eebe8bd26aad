"""A new head on any registered tower: its features and preprocess, its vector led into another dimension.  B batch, D dim.

What a tower that was made for one space needs to be bound to another one: `head` "linear", or "mlp" with one hidden layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from encoders.encoder import Encoder, build_encoder, register

Head = Literal["linear", "mlp"]


class HeadedTower(nn.Module):
    """The base tower, then the head."""

    def __init__(self, build_base: Callable[[], nn.Module], base_dim: int, dim: int, head: Head) -> None:
        super().__init__()
        self.base = build_base()
        hidden = 2 * base_dim if head == "mlp" else base_dim
        before = [nn.Linear(base_dim, hidden), nn.GELU()] if head == "mlp" else []
        self.head = nn.Sequential(*before, nn.Linear(hidden, dim))

    def forward(self, **features: torch.Tensor) -> torch.Tensor:
        """What the base takes -> (B, D), not normalised."""
        return self.head(self.base(**features))  # type: ignore[no-any-return]


@register("headed", small={"base": "demo/imu", "dim": 16, "head": "mlp"})
def headed(
    base: str,
    dim: int,
    head: Head = "linear",
    settings: Mapping[str, Any] | None = None,
    assets: Mapping[str, bytes] | None = None,
) -> Encoder:
    """An encoder of any modality in another dimension.

    Args:
        base: architecture of the tower below.
        dim: D.
        head: "linear" or "mlp".
        settings: of `base`.
        assets: of `base`.
    """
    below = build_encoder(base, settings, assets)
    return replace(
        below,
        architecture="headed",
        dim=dim,
        settings={"base": base, "dim": dim, "head": head, "settings": dict(below.settings)},
        build_tower=partial(HeadedTower, below.build_tower, below.dim, dim, head),
    )
