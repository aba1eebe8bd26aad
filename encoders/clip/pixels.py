"""Pictures the way CLIP-style libraries prepare them. In: an RGB picture. Out: uint8 (3, H, W), or the patches of one.

Resizing and cropping stay on the 8-bit grid, exactly as the library does them; scale, mean and standard deviation are the
tower's first layer (`PixelNorm`).  H, W height and width, N patches, P side of a patch in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import nn

from encoders.media.image import decode_image, middle
from encoders.media.types import Media
from encoders.media.video import decode_video

Mode = Literal["shortest", "squash", "longest", "cover"]


@dataclass(frozen=True)
class Pixels:
    """Preprocess of one picture: {"image": uint8 (3, H, W)}. Holds settings only, so it pickles to any worker.

    Attributes:
        size: (H, W) of the result.
        resize: (height, width) to resize to; for "shortest" both are that edge.
        mode: "shortest": the shorter edge gets its length; "squash": both sides do, whatever the shape; "longest": all of the
            picture fits in, the rest is `fill`; "cover": it covers `size`, for a `size` that is no square.
        resample: "bicubic", "bilinear", "lanczos" or "nearest".
        backend: "pil" (Pillow) or "torchvision" (its uint8 tensors): they round differently, by one level of 255 or a few.
        centre: how half a pixel is rounded in the centre crop: "floor" (transformers) or "round" (torchvision, open_clip).
        fill: level of what a crop has to add, 0 to 255.
    """

    size: tuple[int, int]
    resize: tuple[int, int]
    mode: Mode = "shortest"
    resample: str = "bicubic"
    backend: Literal["pil", "torchvision"] = "pil"
    centre: Literal["floor", "round"] = "round"
    fill: int = 0

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """Anything `decode_image` takes, all of its pixels decoded."""
        picture = decode_image(media)
        resized_HWC = self._resized(picture.rgb())
        picture.keep(resized_HWC)
        return {"image": self._cropped(resized_HWC)}

    def of(self, picture: Image.Image) -> np.ndarray:
        """An RGB picture as uint8 (3, H, W); of a strip, where a crop follows, only the middle is enlarged."""
        return self._cropped(self._resized(picture))

    def _resized(self, picture: Image.Image) -> np.ndarray:
        picture = middle(picture) if self.mode in ("shortest", "cover") else picture
        return resized(picture, self._target(picture.height, picture.width), self.resample, self.backend)

    def _target(self, height: int, width: int) -> tuple[int, int]:
        to_height, to_width = self.resize
        if self.mode == "squash":
            return to_height, to_width
        if self.mode == "shortest":
            long = int(to_height * max(height, width) / min(height, width))
            return (to_height, long) if height <= width else (long, to_height)
        ratios = height / to_height, width / to_width
        ratio = max(ratios) if self.mode == "longest" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _cropped(self, picture_HWC: np.ndarray) -> np.ndarray:
        short = [max(0, want - have) for want, have in zip(self.size, picture_HWC.shape[:2], strict=True)]
        if any(short):
            around = [(missing // 2, (missing + 1) // 2) for missing in short]
            picture_HWC = np.pad(picture_HWC, (*around, (0, 0)), constant_values=self.fill)
        rounded = round if self.centre == "round" else int
        top, left = (rounded((have - want) / 2) for have, want in zip(picture_HWC.shape[:2], self.size, strict=True))
        cropped_HWC = picture_HWC[top : top + self.size[0], left : left + self.size[1]]
        return np.ascontiguousarray(cropped_HWC.transpose(2, 0, 1))


@dataclass(frozen=True)
class Patches:
    """Preprocess of one picture that keeps its shape (SigLIP 2 NaFlex): at most `max_patches` patches of P x P pixels.

    Returns {"patches": uint8 (N, P * P * 3), "patch_mask": int64 (N,), "patch_grid": int64 (2,)}: rows beyond the grid of
    (rows, columns) patches are zeros with mask 0.
    """

    patch: int
    max_patches: int
    resample: str = "bilinear"
    backend: Literal["pil", "torchvision"] = "torchvision"

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """Anything `decode_image` takes."""
        return self.of(decode_image(media).rgb())

    def of(self, picture: Image.Image) -> dict[str, np.ndarray]:
        """An RGB picture as its patches."""
        rows, columns = self._grid(picture.height, picture.width)
        side = self.patch
        pixels_HWC = resized(picture, (rows * side, columns * side), self.resample, self.backend)
        patches = pixels_HWC.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(rows * columns, -1)
        padded = np.zeros((self.max_patches, patches.shape[1]), np.uint8)
        padded[: len(patches)] = patches
        mask = (np.arange(self.max_patches) < len(patches)).astype(np.int64)
        return {"patches": padded, "patch_mask": mask, "patch_grid": np.array([rows, columns], np.int64)}

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """The most rows and columns at one scale (found by the library's bisection, to 1e-5), each side rounded up."""
        low, high = 1e-6, 100.0

        def sides(scale: float) -> tuple[int, int]:
            rows, columns = (max(1, math.ceil(length * scale / self.patch)) for length in (height, width))
            return rows, columns

        while high - low >= 1e-5:
            middle = (low + high) / 2
            low, high = (middle, high) if math.prod(sides(middle)) <= self.max_patches else (low, middle)
        return sides(low)


@dataclass(frozen=True)
class Frames:
    """Preprocess of a video: `count` frames spread evenly over it, each prepared as a picture is.

    Returns {"frames": uint8 (count, 3, H, W)}, or the features of `Patches` with a leading axis of `count`.
    """

    count: int
    picture: Pixels | Patches

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """Anything `decode_video` takes."""
        pictures = [Image.fromarray(frame) for frame in decode_video(media).frames(self.count)]
        if isinstance(self.picture, Pixels):
            return {"frames": np.stack([self.picture.of(picture) for picture in pictures])}
        rows = [self.picture.of(picture) for picture in pictures]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


class PixelNorm(nn.Module):
    """uint8 levels -> (levels * scale - mean) / std, float32; the channel axis is given. Has no entry in the state dict."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], scale: float = 1 / 255) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)
        self.scale = scale

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> the same shape; (B, N, P * P * 3), channels last in each patch -> the same shape."""
        mean, std = self.mean.float(), self.std.float()
        if levels.dim() == 4:
            return (levels.float() * self.scale - mean[:, None, None]) / std[:, None, None]
        repeats = levels.shape[-1] // 3
        return (levels.float() * self.scale - mean.repeat(repeats)) / std.repeat(repeats)


def resized(picture: Image.Image, size: tuple[int, int], resample: str, backend: str) -> np.ndarray:
    """An RGB picture at (height, width) as uint8 (H, W, 3), by Pillow or by torchvision's tensor kernels."""
    height, width = size
    if backend == "pil":
        if (picture.height, picture.width) == size:
            return np.asarray(picture)
        return np.asarray(picture.resize((width, height), Image.Resampling[resample.upper()]))
    from torchvision.transforms.v2 import InterpolationMode, functional

    mode = InterpolationMode("bicubic" if resample == "lanczos" else resample)  # tensors know no lanczos: as transformers does
    image_CHW = torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # channels last in memory is twice as fast
    resized_CHW = functional.resize(image_CHW, [height, width], interpolation=mode, antialias=True)
    return resized_CHW.permute(1, 2, 0).numpy()  # type: ignore[no-any-return]
