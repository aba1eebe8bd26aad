"""Demo IMU encoder: 2 s of acceleration and rotation -> 6 x 200 -> vector.  B batch, D dim."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from encoders.blocks import SeriesStem, TokenTower, size_named, sized
from encoders.encoder import Encoder, Feature, register
from encoders.media.imu import STANDARD_GRAVITY_MPS2, decode_imu, describe_imu
from encoders.media.types import Media
from encoders.training.augment import roll_time

DIM = 128
RATE_HZ = 100.0
SAMPLES = 200  # 2 s: the middle of a longer trace; a shorter one is repeated
UNITS = np.array([STANDARD_GRAVITY_MPS2] * 3 + [1.0] * 3, np.float32)  # the tower takes g and rad/s


def preprocess(media: Media) -> dict[str, np.ndarray]:
    """Anything `decode_imu` takes -> {"imu": float32 (6, 200)}, acceleration in g, then rotation in rad/s."""
    trace = decode_imu(media).middle(SAMPLES, RATE_HZ)
    return {"imu": np.ascontiguousarray((trace / UNITS).T)}


class DemoImuTower(TokenTower):
    """Series stem, 25 tokens, two blocks."""

    def __init__(self, size: str) -> None:
        s = size_named(size)
        stem = SeriesStem(6, s.width)
        super().__init__(stem, tokens=SAMPLES // 8, width=s.width, depth=s.depth, dim=DIM, heads=s.heads)

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """float32 (B, 6, 200) -> (B, D), not normalised."""
        return self.encode(imu)


@register("demo/imu")
def demo_imu(size: str = "tiny") -> Encoder:
    """The demo world's IMU encoder.

    Args:
        size: "tiny", "small" or "base" (encoders/blocks.py).
    """
    return Encoder(
        architecture="demo/imu",
        modality="imu",
        dim=DIM,
        settings=sized(size),
        features={"imu": Feature("float32", (6, SAMPLES))},
        decode=decode_imu,
        preprocess=preprocess,
        describe=describe_imu,
        build_tower=partial(DemoImuTower, size),
        augment=roll_time,
    )
