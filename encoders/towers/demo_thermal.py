"""Demo thermal encoder: thermal frame -> 1 x 64 x 64 -> vector.  B batch, D dim."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from encoders.blocks import ConvStem, PixelScale, TokenTower, size_named, sized
from encoders.encoder import Encoder, Feature, register
from encoders.media.thermal import ThermalFrame, decode_thermal, describe_thermal
from encoders.media.types import Media
from encoders.training.augment import flip_and_shift

DIM = 128
SIDE = 64  # pixels
COLDEST_K, HOTTEST_K = 243.15, 373.15  # grey 0 and 255: -30 to 100 degrees Celsius, 0.5 K a step; beyond is clipped


def thermal_pixels(frame: ThermalFrame) -> np.ndarray:
    """uint8 (1, 64, 64): linear from -30 to 100 degrees Celsius.

    A frame without absolute temperatures is stretched over the whole range by its own 1st and 99th percentile.
    """
    square = frame.square(SIDE)
    low, high = (COLDEST_K, HOTTEST_K) if frame.absolute else np.percentile(square, (1, 99))
    grey = (square - low) * (255 / max(high - low, 1e-6))
    return np.rint(np.clip(grey, 0, 255)).astype(np.uint8)[None]  # type: ignore[no-any-return]


def preprocess(media: Media) -> dict[str, np.ndarray]:
    """Anything `decode_thermal` takes -> {"thermal": uint8 (1, 64, 64)}."""
    return {"thermal": thermal_pixels(decode_thermal(media))}


class DemoThermalTower(TokenTower):
    """Conv stem, 16 tokens, two blocks."""

    def __init__(self, size: str) -> None:
        s = size_named(size)
        super().__init__(
            ConvStem(1, s.stem, s.width), tokens=(SIDE // 16) ** 2, width=s.width, depth=s.depth, dim=DIM, heads=s.heads
        )
        self.scale = PixelScale()

    def forward(self, thermal: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 1, 64, 64) -> (B, D), not normalised."""
        return self.encode(self.scale(thermal))


@register("demo/thermal")
def demo_thermal(size: str = "tiny") -> Encoder:
    """The demo world's thermal encoder.

    Args:
        size: "tiny", "small" or "base" (encoders/blocks.py).
    """
    return Encoder(
        architecture="demo/thermal",
        modality="thermal",
        dim=DIM,
        settings=sized(size),
        features={"thermal": Feature("uint8", (1, SIDE, SIDE))},
        decode=decode_thermal,
        preprocess=preprocess,
        describe=describe_thermal,
        build_tower=partial(DemoThermalTower, size),
        augment=flip_and_shift,
    )
