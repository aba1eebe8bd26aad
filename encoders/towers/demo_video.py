"""Demo video encoder: clip -> 8 frames of 3 x 64 x 64 -> the mean of the frames' unit vectors.  B batch, N frames, D dim."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from encoders.encoder import Encoder, Feature, register
from encoders.media.types import Media
from encoders.media.video import decode_video, describe_video
from encoders.towers.demo_image import DECODE_SIDE, DIM, SIDE, DemoImageTower, pixels

FRAMES = 8  # spread evenly over the clip


def preprocess(media: Media) -> dict[str, np.ndarray]:
    """Anything `decode_video` takes -> {"frames": uint8 (8, 3, 64, 64)}."""
    frames = decode_video(media).frames(FRAMES, at_least=DECODE_SIDE)
    return {"frames": np.stack([pixels(Image.fromarray(frame)) for frame in frames])}


class DemoVideoTower(DemoImageTower):
    """The image tower on every frame; its weights are the image tower's, name by name."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 (B, N, 3, 64, 64) -> (B, D), the mean of N unit vectors, not normalised."""
        vectors = F.normalize(super().forward(frames.flatten(0, 1)), dim=-1)
        return vectors.view(*frames.shape[:2], -1).mean(1)


@register("demo/video")
def demo_video() -> Encoder:
    """The demo world's video encoder; takes the weights of the image tower."""
    return Encoder(
        architecture="demo/video",
        modality="video",
        dim=DIM,
        settings={},
        features={"frames": Feature("uint8", (FRAMES, 3, SIDE, SIDE))},
        decode=decode_video,
        preprocess=preprocess,
        describe=describe_video,
        build_tower=DemoVideoTower,
    )
