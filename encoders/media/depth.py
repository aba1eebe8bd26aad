"""Depth: 16-bit PNG or TIFF in millimetres, TIFF or NPY in metres, arrays -> a depth map in metres -> facts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from encoders.errors import DecodeError
from encoders.media import grids
from encoders.media.previews import map_preview
from encoders.media.types import Facts, Media

METRES_PER_UNIT = 0.001  # of integer maps: millimetres, as most depth cameras write


@dataclass(frozen=True)
class DepthMap:
    """float32 (H, W) in metres; NaN where nothing was measured."""

    metres: np.ndarray
    mime: str | None = None

    def square(self, side: int) -> np.ndarray:
        """The largest centred square as float32 (side, side) in metres, the mean of what was measured, else NaN."""
        return grids.square(self.metres, side)


def decode_depth(media: Media, metres_per_unit: float = METRES_PER_UNIT) -> DepthMap:
    """Integers are multiples of `metres_per_unit`, floats are metres. Zero, negative, NaN and infinite mean: not measured.

    Args:
        media: bytes, pathlib.Path, URI or open binary file of a 16-bit PNG, a TIFF or an NPY; numpy (H, W).
        metres_per_unit: what one step of an integer map means.

    Raises:
        DecodeError: 8 bits or several channels (a picture of depth, no measurement), nothing measured at all, damaged.
        TooLargeError: too many pixels.
    """
    if isinstance(media, DepthMap):
        return media
    values, mime = grids.read_grid(media, "depth map")
    if values.dtype.itemsize == 1:
        raise DecodeError("a depth map of 8 bits holds no distances; export 16-bit millimetres or float metres")
    metres = values.astype(np.float32)
    if values.dtype.kind in "ui":
        metres *= np.float32(metres_per_unit)
    metres[~(np.isfinite(metres) & (metres > 0))] = np.nan
    if np.isnan(metres).all():
        raise DecodeError(f"nothing was measured in this {metres.shape[1]} x {metres.shape[0]} depth map: no value above zero")
    return DepthMap(metres, mime)


def describe_depth(depth: DepthMap) -> Facts:
    """Size, and the map in false colours: near is light, far is dark."""
    height, width = depth.metres.shape
    return Facts(mime=depth.mime, width=width, height=height, preview=map_preview(1 / depth.metres))
