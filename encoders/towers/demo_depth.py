"""Demo depth encoder: depth map -> 1 x 64 x 64 on a logarithmic scale -> vector.  B batch, D dim."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from encoders.blocks import ConvStem, PixelScale, TokenTower, size_named, sized
from encoders.encoder import Encoder, Feature, register
from encoders.media.depth import METRES_PER_UNIT, DepthMap, decode_depth, describe_depth
from encoders.media.types import Media
from encoders.training.augment import flip_and_shift

DIM = 128
SIDE = 64  # pixels
NEAREST_M, FARTHEST_M = 0.3, 30.0  # grey 1 and 255; nearer and farther are clipped; 0 is unknown


def log_depth(depth: DepthMap) -> np.ndarray:
    """uint8 (1, 64, 64): 0 where nothing was measured, else 1 + 254 * log(metres / 0.3) / log(100)."""
    metres = depth.square(SIDE)
    known = np.isfinite(metres)
    octaves = np.log2(np.clip(metres, NEAREST_M, FARTHEST_M, where=known, out=np.full_like(metres, NEAREST_M)) / NEAREST_M)
    grey = 1 + 254 * octaves / np.log2(FARTHEST_M / NEAREST_M)
    return np.where(known, np.rint(grey), 0).astype(np.uint8)[None]


@dataclass(frozen=True)
class LogDepth:
    """Preprocess. Holds settings only, so it pickles to any worker."""

    metres_per_unit: float

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """Anything `decode_depth` takes -> {"depth": uint8 (1, 64, 64)}."""
        return {"depth": log_depth(decode_depth(media, self.metres_per_unit))}


class DemoDepthTower(TokenTower):
    """Conv stem, 16 tokens, two blocks."""

    def __init__(self, size: str) -> None:
        s = size_named(size)
        super().__init__(
            ConvStem(1, s.stem, s.width), tokens=(SIDE // 16) ** 2, width=s.width, depth=s.depth, dim=DIM, heads=s.heads
        )
        self.scale = PixelScale()

    def forward(self, depth: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 1, 64, 64) -> (B, D), not normalised."""
        return self.encode(self.scale(depth))


@register("demo/depth")
def demo_depth(metres_per_unit: float = METRES_PER_UNIT, size: str = "tiny") -> Encoder:
    """The demo world's depth encoder.

    Args:
        metres_per_unit: what one step of an integer depth map means; 0.001 for millimetres.
        size: "tiny", "small" or "base" (encoders/blocks.py).
    """
    return Encoder(
        architecture="demo/depth",
        modality="depth",
        dim=DIM,
        settings={"metres_per_unit": metres_per_unit, **sized(size)},
        features={"depth": Feature("uint8", (1, SIDE, SIDE))},
        decode=partial(decode_depth, metres_per_unit=metres_per_unit),
        preprocess=LogDepth(metres_per_unit),
        describe=describe_depth,
        build_tower=partial(DemoDepthTower, size),
        augment=flip_and_shift,
    )
