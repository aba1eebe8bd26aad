"""ImageBind's encoders one by one, behind the scaling of their inputs. In: what preprocess makes. Out: vectors (B, D).

What a tower answers is what the official forward answers: scaled, and averaged over clips. Image and video are two views of one
encoder and share its weights.  B batch, S clips or views, D dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from encoders.imagebind.model import ImageBind, complete, official, reference_forward
from encoders.imagebind.normalisation import (
    AUDIO_MEAN,
    AUDIO_STD,
    DEPTH_MEAN,
    DEPTH_STD,
    IMAGE_MEAN,
    IMAGE_STD,
    THERMAL_MEAN,
    THERMAL_STD,
)

SCALING: Mapping[str, tuple[Sequence[float], Sequence[float]]] = {  # mean and deviation, a number a channel
    "image": (IMAGE_MEAN, IMAGE_STD),
    "video": (IMAGE_MEAN, IMAGE_STD),
    "audio": ([AUDIO_MEAN], [AUDIO_STD]),
    "depth": ([DEPTH_MEAN], [DEPTH_STD]),
    "thermal": ([THERMAL_MEAN], [THERMAL_STD]),
}


class Tower(ImageBind):
    """One encoder of ImageBind; its state dict has the official names of that encoder, nothing else.

    Args:
        modality: Bindery's name.
        sizes: see `build`.
    """

    def __init__(self, modality: str, sizes: Mapping[str, Any]) -> None:
        super().__init__(complete(sizes), [official(modality)])
        self.modality = modality


class ScaledTower(Tower):
    """A tower whose first layer takes off the mean and divides by the deviation: `scaling`, else those of `SCALING`."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, modality: str, sizes: Mapping[str, Any], scaling: tuple[float, float] | None = None) -> None:
        super().__init__(modality, sizes)
        channels = (-1, 1, 1, 1) if modality == "video" else (-1, 1, 1)
        for name, values in zip(("mean", "std"), scaling or SCALING[modality], strict=True):
            # Never on the meta device: what is in no checkpoint could not be filled in later.
            self.register_buffer(name, torch.tensor(values, device="cpu").view(channels), persistent=False)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Unscaled inputs, batched -> (B, D). 8-bit pixels stand for 0 to 1."""
        x = x.to(self.mean.dtype) / 255 if x.dtype == torch.uint8 else x.to(self.mean.dtype)
        return reference_forward(self, self.modality, (x - self.mean) / self.std)


class ImageTower(ScaledTower):
    """Vision, on images."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, 224, 224) -> (B, D)."""
        return self.embed(image)


class VideoTower(ScaledTower):
    """Vision, on views of a video."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8, or float32 in [0, 1], (B, S, 3, 2, 224, 224) -> (B, D), the mean over views."""
        return self.embed(frames)


class AudioTower(ScaledTower):
    """Audio, on clips."""

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Log-mel energies (B, S, 1, 128, 204) -> (B, D), the mean over clips."""
        return self.embed(log_mel)


class DepthTower(ScaledTower):
    """Depth."""

    def forward(self, disparity: torch.Tensor) -> torch.Tensor:
        """Disparity in [0, 1], (B, 1, 224, 224) -> (B, D)."""
        return self.embed(disparity)


class ThermalTower(ScaledTower):
    """Thermal."""

    def forward(self, thermal: torch.Tensor) -> torch.Tensor:
        """Brightness in [0, 1], (B, 1, 224, 224) -> (B, D)."""
        return self.embed(thermal)


class MotionTower(Tower):
    """IMU. Its inputs are taken as they are: no scaling was ever published."""

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """(B, 6, 2000) -> (B, D)."""
        return reference_forward(self, self.modality, imu.to(next(self.parameters()).dtype))


class TextTower(Tower):
    """Text. Its learned scale is kept as it came: training sees directions only, and learns a scale of its own."""

    def __init__(self, modality: str, sizes: Mapping[str, Any]) -> None:
        super().__init__(modality, sizes)
        self.modality_postprocessors.requires_grad_(False)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Whole numbers (B, 77) -> (B, D)."""
        return reference_forward(self, self.modality, token_ids)
