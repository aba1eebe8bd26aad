"""Demo image encoder: picture -> 3 x 64 x 64 pixels -> vector.  B batch, D dim.

0.84 M parameters, made for the generated demo world; its shape was chosen by measurement on two CPU cores.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from encoders.blocks import ConvStem, PixelScale, TokenTower
from encoders.encoder import Encoder, Feature, register
from encoders.media.image import centre_square, decode_image, describe_image
from encoders.media.types import Media
from encoders.training.augment import flip_and_shift

DIM = 128
SIDE = 64  # pixels
DECODE_SIDE = 128  # a JPEG is decoded no smaller than this: enough to shrink well, and for the preview
WIDTH, DEPTH, STEM = 192, 2, (48, 96, 160)


def pixels(picture: Image.Image) -> np.ndarray:
    """The centred square of an RGB picture as uint8 (3, 64, 64)."""
    square = np.asarray(centre_square(picture, SIDE))
    return np.ascontiguousarray(square.transpose(2, 0, 1))


def preprocess(media: Media) -> dict[str, np.ndarray]:
    """Anything `decode_image` takes -> {"image": uint8 (3, 64, 64)}."""
    return {"image": pixels(decode_image(media).rgb(at_least=DECODE_SIDE))}


class DemoImageTower(TokenTower):
    """Conv stem, 16 tokens, two blocks."""

    def __init__(self) -> None:
        super().__init__(ConvStem(3, STEM, WIDTH), tokens=(SIDE // 16) ** 2, width=WIDTH, depth=DEPTH, dim=DIM)
        self.scale = PixelScale()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, 64, 64) -> (B, D), not normalised."""
        return self.encode(self.scale(image))


@register("demo/image")
def demo_image() -> Encoder:
    """The demo world's image encoder; the frozen tower that the others are bound to."""
    return Encoder(
        architecture="demo/image",
        modality="image",
        dim=DIM,
        settings={},
        features={"image": Feature("uint8", (3, SIDE, SIDE))},
        decode=decode_image,
        preprocess=preprocess,
        describe=describe_image,
        build_tower=DemoImageTower,
        augment=flip_and_shift,
    )
