"""Depth: 16-bit PNG or TIFF in millimetres, EXR, TIFF, NPY or NPZ in metres, arrays -> a depth map in metres -> facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from encoders.errors import DecodeError
from encoders.media import grids
from encoders.media.previews import map_preview
from encoders.media.types import Facts, Media

METRES_PER_UNIT = 0.001  # of integer maps: millimetres, as most depth cameras write
ENCODINGS = ("linear", "sunrgbd")
NOTHING_HIT = 65_000.0  # in an EXR: renderers write 65,504 (the largest half), 1e10 or infinity where a ray met nothing
FOCAL_NAMES = ("focal_length_px", "fx")  # numbers beside the map
CAMERA_NAMES = ("k", "intrinsics", "camera_matrix")  # 3 x 3 beside the map, focal length in the corner
NARROWEST, WIDEST = 20.0, 0.1  # focal lengths in widths of the map that a camera can have: fields of view of 3 and 157 degrees


@dataclass(frozen=True)
class DepthMap:
    """float32 (H, W) in metres; NaN where nothing was measured.

    `focal_length_px` is the camera's, in pixels of this map, where the file tells it.
    """

    metres: np.ndarray
    mime: str | None = None
    focal_length_px: float | None = None

    def square(self, side: int) -> np.ndarray:
        """The largest centred square as float32 (side, side) in metres, the mean of what was measured, else NaN."""
        return grids.square(self.metres, side)


def decode_depth(
    media: Media, metres_per_unit: float = METRES_PER_UNIT, encoding: str = "linear", metres_per_float: float = 1.0
) -> DepthMap:
    """Integers are multiples of `metres_per_unit`, floats are metres. Zero, negative, NaN and infinite mean: not measured.

    Args:
        media: bytes, pathlib.Path, URI or open binary file of a 16-bit PNG, a TIFF, an NPY, an NPZ (array `depth`, or its only
            map) or an EXR (channel `depth`, `Z` or `Y`, or its only one); numpy (H, W).
        metres_per_unit: what one step of an integer map means.
        encoding: "linear", or "sunrgbd": 16-bit values whose bits are rotated left by 3, as SUN RGB-D's PNGs have them.
        metres_per_float: what 1.0 means in a map of floats; 0.001 for millimetres.

    Raises:
        DecodeError: 8 bits or several channels (a picture of depth, no measurement), nothing measured at all, damaged.
        TooLargeError: too many pixels.
    """
    if isinstance(media, DepthMap):
        return media
    grid = grids.read_grid(media, "depth map")
    values = _unrotated(grid.values) if encoding == "sunrgbd" else grid.values
    if values.dtype.itemsize == 1:
        raise DecodeError("a depth map of 8 bits holds no distances; export 16-bit millimetres or float metres")
    with np.errstate(over="ignore"):
        metres = values.astype(np.float32)
    if grid.mime == "image/x-exr":
        metres[metres > NOTHING_HIT] = np.nan
    metres *= np.float32(metres_per_unit if values.dtype.kind in "ui" else metres_per_float)
    metres[~(np.isfinite(metres) & (metres > 0))] = np.nan
    if np.isnan(metres).all():
        raise DecodeError(f"nothing was measured in this {metres.shape[1]} x {metres.shape[0]} depth map: no value above zero")
    return DepthMap(metres, grid.mime, _focal_length_px(grid.beside, metres.shape[1]))


def describe_depth(depth: DepthMap) -> Facts:
    """Size, and the map in false colours: near is light, far is dark."""
    height, width = depth.metres.shape
    return Facts(mime=depth.mime, width=width, height=height, preview=map_preview(1 / depth.metres))


def _unrotated(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "ui" or values.min() < 0 or values.max() > 0xFFFF:
        raise DecodeError(f"the encoding 'sunrgbd' is of 16-bit maps, this one is {values.dtype}; leave the setting out")
    bits = values.astype(np.uint16)
    return (bits >> 3) | (bits << 13)


def _focal_length_px(beside: Mapping[str, np.ndarray], width: int) -> float | None:
    """Of the camera, in pixels, if the file names it and it is one that a camera of this width can have."""
    found = [beside[name].reshape(-1)[:1] for name in FOCAL_NAMES if name in beside]
    found += [beside[name].reshape(-1)[:1] for name in CAMERA_NAMES if name in beside and beside[name].shape == (3, 3)]
    sane = [float(f[0]) for f in found if f.size and WIDEST * width < float(f[0]) < NARROWEST * width]
    return sane[0] if sane else None
