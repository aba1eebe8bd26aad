"""Pictures made smaller by torch's kernel for 8 bits, which is vectorised. In: RGB pictures. Out: their pixels, fewer of them.

It gives the same levels on any processor.  H height, W width, C channels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch.utils.dlpack import from_dlpack


def pixels_of(picture: Image.Image) -> torch.Tensor:
    """An RGB picture as uint8 (H, W, C).

    Where it lies in one piece it is not copied, and must not be written to: it has a fourth channel then, which means nothing.
    """
    try:
        return from_dlpack(pa.array(picture).flatten()).view(picture.height, picture.width, 4)
    except ValueError:  # several pieces
        return torch.from_numpy(np.array(picture))


def shrunk(pixels_HWC: torch.Tensor, size: tuple[int, int], filtered: Literal["bilinear", "bicubic"]) -> np.ndarray:
    """uint8 (H, W, C) at (height, width), uint8 (height, width, C), with anti-aliasing."""
    pixels_1CHW = pixels_HWC.permute(2, 0, 1)[None]
    shrunk_1CHW = F.interpolate(pixels_1CHW, size, mode=filtered, align_corners=False, antialias=True)
    return shrunk_1CHW[0].permute(1, 2, 0).numpy()
