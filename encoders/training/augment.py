"""Harmless changes that training makes to a batch of features. In: {feature: (B, ...)}, a generator. Out: the same, changed.

An encoder names its own (`Encoder.augment`), a recipe may name others. What moves a picture is drawn once for the whole batch,
and both sides of a pair draw from generators of one seed: the same changes, first in both lists, move a picture and its depth
map alike.  B batch, C channels, H height, W width, M mel bins, T time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

SHIFT_PX = 4
SHIFT_MELS = 3
SMALLEST_CROP = 0.7  # of each side
MASKS, WIDEST_MASK = 2, 0.15  # of each axis of a spectrogram, and the share of it that one hides
JITTER = 0.05  # of a channel's deviation
LARGEST_HOLE = 0.5  # of each side of a picture

Features = Mapping[str, torch.Tensor]
Change = Callable[[Features, torch.Generator], dict[str, torch.Tensor]]


def _between(low: int, high: int, generator: torch.Generator) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _share(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def flip_and_shift(features: Features, generator: torch.Generator) -> dict[str, torch.Tensor]:
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


def crop(features: Features, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Pictures (B, C, H, W): mirrored half of the time, cut to 70 to 100 % of each side and stretched back.

    The cut is a share of the picture, so it is the same part of pictures of different sizes. Values are taken, never mixed.
    """
    flip = _between(0, 1, generator)
    side = SMALLEST_CROP + (1 - SMALLEST_CROP) * _share(generator)
    top, left = ((1 - side) * _share(generator) for _ in range(2))

    def change(x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = x_BCHW.flip(-1) if flip else x_BCHW
        for axis, start in ((-2, top), (-1, left)):
            length = x_BCHW.shape[axis]
            places = (start + side * (torch.arange(length, device=x_BCHW.device) + 0.5) / length) * length
            x_BCHW = x_BCHW.index_select(axis, places.long().clamp(0, length - 1))
        return x_BCHW

    return {name: change(values) for name, values in features.items()}


def erase(features: Features, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Pictures (B, ..., H, W): in half of the items a rectangle of up to half of each side takes the item's mean.

    Random erasing (Zhong et al. 2020), with the mean in place of noise.
    """

    def change(x: torch.Tensor) -> torch.Tensor:
        shape = (len(x), *[1] * (x.ndim - 1))
        wanted = (torch.rand(len(x), generator=generator) < 0.5).view(shape)
        inside = wanted.to(x.device)
        for axis in (-2, -1):
            span = LARGEST_HOLE * torch.rand(len(x), generator=generator)
            inside = inside & _stretch(x, axis, span, generator)
        return torch.where(inside, _mean(x), x)

    return {name: change(values) for name, values in features.items()}


def roll_time_and_pitch(features: Features, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Log-mel pictures (B, ..., M, T): rolled in time half of the time, and by up to 3 mel bins up or down."""
    late = _between(0, 1, generator)
    share = _share(generator)
    higher = _between(-SHIFT_MELS, SHIFT_MELS, generator)

    def change(x_BMT: torch.Tensor) -> torch.Tensor:
        return x_BMT.roll((higher, late * int(share * x_BMT.shape[-1])), (-2, -1))

    return {name: change(values) for name, values in features.items()}


def mask_spectrum(features: Features, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Log-mel pictures (B, ..., M, T): two bands of bins and two stretches of time of each item take its mean.

    SpecAugment without warping (Park et al. 2019); a mask hides up to 15 % of its axis.
    """

    def change(x_BMT: torch.Tensor) -> torch.Tensor:
        hidden = torch.zeros((len(x_BMT), *[1] * (x_BMT.ndim - 1)), dtype=torch.bool, device=x_BMT.device)
        for axis in (-2, -1):
            for _ in range(MASKS):
                hidden = hidden | _stretch(x_BMT, axis, WIDEST_MASK * torch.rand(len(x_BMT), generator=generator), generator)
        return torch.where(hidden, _mean(x_BMT), x_BMT)

    return {name: change(values) for name, values in features.items()}


def roll_time(features: Features, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Traces (B, C, T): rolled in time by any amount."""
    share = _share(generator)
    return {name: values.roll(int(share * values.shape[-1]), -1) for name, values in features.items()}


def jitter(features: Features, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Traces (B, C, T) of real numbers: noise of 5 % of each channel's deviation, each item's size changed by up to 10 %."""

    def change(x_BCT: torch.Tensor) -> torch.Tensor:
        noise_BCT = torch.randn(x_BCT.shape, generator=generator).to(x_BCT)
        size_B = (0.9 + 0.2 * torch.rand(len(x_BCT), generator=generator)).to(x_BCT).view(-1, *[1] * (x_BCT.ndim - 1))
        return (x_BCT + JITTER * x_BCT.std(-1, keepdim=True) * noise_BCT) * size_B

    return {name: change(values) for name, values in features.items()}


AUGMENTS: Mapping[str, Change] = {
    change.__name__: change for change in (flip_and_shift, crop, erase, roll_time_and_pitch, mask_spectrum, roll_time, jitter)
}


OF_PICTURES = ("flip_and_shift", "crop", "erase")  # those of a recipe that reach the image side of pairs, too


def in_turn(names: Sequence[str]) -> Change | None:
    """One change that makes these, by their names in `AUGMENTS`, one after the other; None for none."""
    return partial(_all, [AUGMENTS[name] for name in names]) if names else None


def _all(changes: Sequence[Change], features: Features, generator: torch.Generator) -> dict[str, torch.Tensor]:
    for change in changes:
        features = change(features, generator)
    return dict(features)


def _stretch(x: torch.Tensor, axis: int, span_B: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Bool, (B, 1, ..., length or 1): True over a stretch of each item's axis, `span_B` of it long, anywhere."""
    length = x.shape[axis]
    start_B = (1 - span_B) * torch.rand(len(x), generator=generator)
    shape = [1] * x.ndim
    shape[axis] = length
    places = ((torch.arange(length) + 0.5) / length).view(shape)
    first, end = (edge_B.view(-1, *[1] * (x.ndim - 1)) for edge_B in (start_B, start_B + span_B))
    return ((places >= first) & (places < end)).to(x.device)


def _mean(x: torch.Tensor) -> torch.Tensor:
    """Of each item, in its own type."""
    return x.float().mean(tuple(range(1, x.ndim)), keepdim=True).to(x.dtype)
