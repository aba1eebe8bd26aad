"""Harmless changes that training makes to a batch of features. In: {feature: (B, ...)}, a generator. Out: the same, changed.

An encoder names its own (`Encoder.augment`); one draw serves the whole batch.  B batch, C channels, H height, W width,
M mel bins, T time.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

SHIFT_PX = 4
SHIFT_MELS = 3


def _between(low: int, high: int, generator: torch.Generator) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def flip_and_shift(features: Mapping[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Pictures (B, C, H, W): mirrored half of the time, moved by up to 4 px each way; what comes in repeats the edge."""
    flip = _between(0, 1, generator)
    down, right = (_between(-SHIFT_PX, SHIFT_PX, generator) for _ in range(2))

    def change(x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = x_BCHW.flip(-1) if flip else x_BCHW
        height, width = x_BCHW.shape[-2:]
        rows_H = (torch.arange(height, device=x_BCHW.device) + down).clamp(0, height - 1)
        columns_W = (torch.arange(width, device=x_BCHW.device) + right).clamp(0, width - 1)
        return x_BCHW.index_select(-2, rows_H).index_select(-1, columns_W)

    return {name: change(values) for name, values in features.items()}


def roll_time_and_pitch(features: Mapping[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Log-mel pictures (B, ..., M, T): rolled in time half of the time, and by up to 3 mel bins up or down."""
    late = _between(0, 1, generator)
    share = float(torch.rand((), generator=generator))
    higher = _between(-SHIFT_MELS, SHIFT_MELS, generator)

    def change(x_BMT: torch.Tensor) -> torch.Tensor:
        return x_BMT.roll((higher, late * int(share * x_BMT.shape[-1])), (-2, -1))

    return {name: change(values) for name, values in features.items()}


def roll_time(features: Mapping[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Traces (B, C, T): rolled in time by any amount."""
    share = float(torch.rand((), generator=generator))
    return {name: values.roll(int(share * values.shape[-1]), -1) for name, values in features.items()}
