"""A sensor seen as a picture: its features, through an image tower.  B batch, C channels, H height, W width, D dim.

What `--start image` binds: depth, thermal or a spectrogram begins with all that the image tower knows of shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from encoders.encoder import Encoder, build_encoder, register
from encoders.errors import SpaceError

MEAN, DEVIATION = 128.0, 64.0  # of the grey that a feature becomes, on the scale of 0 to 255


class AsPictureTower(nn.Module):
    """Grey of each item's own mean and deviation, stretched to the picture's size, then the image tower."""

    def __init__(self, build_image: Callable[[], nn.Module], feature: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.image = build_image()
        self._feature, self._shape = feature, shape

    def forward(self, **features: torch.Tensor) -> torch.Tensor:
        """(B, H, W) or (B, C, H, W) in any number type -> (B, D), not normalised."""
        (x,) = features.values()
        x_BCHW = (x.unsqueeze(1) if x.ndim == 3 else x).float()
        x_BCHW = x_BCHW.mean(1, keepdim=True)
        mean_B111, deviation_B111 = x_BCHW.mean((2, 3), keepdim=True), x_BCHW.std((2, 3), keepdim=True)
        grey_BCHW = ((x_BCHW - mean_B111) / (deviation_B111 + 1e-6) * DEVIATION + MEAN).clamp(0, 255)
        grey_BCHW = interpolate(grey_BCHW, self._shape[1:], mode="bilinear", align_corners=False)
        return self.image(**{self._feature: grey_BCHW.expand(-1, self._shape[0], -1, -1)})  # type: ignore[no-any-return]


@register("as-picture", small={"sensor": "demo/depth", "image": "demo/image"})
def as_picture(
    sensor: str, image: str, settings: Mapping[str, Any] | None = None, image_settings: Mapping[str, Any] | None = None
) -> Encoder:
    """An encoder whose one feature is a grid, through an image tower.

    Args:
        sensor: architecture whose features, preprocess and augmentation are taken.
        image: architecture of the image tower.
        settings: of `sensor`.
        image_settings: of `image`.

    Raises:
        SpaceError: the features are no grid, or the image tower takes more than pixels.
    """
    below, picture = build_encoder(sensor, settings), build_encoder(image, image_settings)
    shapes = [feature.shape for feature in below.features.values()]
    if len(shapes) != 1 or len(shapes[0]) not in (2, 3) or len(picture.features) != 1:
        raise SpaceError(f"{sensor!r} has features {shapes}, which {image!r} cannot see as one picture; start from scratch")
    ((name, pixels),) = picture.features.items()
    return replace(
        below,
        architecture="as-picture",
        dim=picture.dim,
        settings={
            "sensor": sensor, "image": image, "settings": dict(below.settings), "image_settings": dict(picture.settings)
        },
        build_tower=partial(AsPictureTower, picture.build_tower, name, pixels.shape),
    )  # fmt: skip
