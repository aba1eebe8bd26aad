"""OpenEXR: bytes -> one channel of a picture as it was stored, and the numbers in its header."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from encoders.errors import DecodeError, TooLargeError
from encoders.media.image import MAX_PIXELS

EXR_MAGIC = b"\x76\x2f\x31\x01"


def read_exr(data: bytes, what: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The channel that holds the measurement, (H, W) of float16, float32 or uint32, and the header's numbers by name.

    Several channels: the one called like the measurement (`depth`, `thermal`), else `Z`, else `Y`; a single channel is taken
    whatever its name. R, G and B that are all equal count as one channel. Of several parts the first is read.

    Args:
        data: the file.
        what: what it is called in messages, e.g. "depth map"; its first word is the measurement's name.

    Raises:
        DecodeError: damaged or cut off, deep, or of several channels none of which is the measurement.
        TooLargeError: more than MAX_PIXELS.
    """
    header = _open(data, header_only=True)[0]
    (left, top), (right, bottom) = (np.asarray(corner, np.int64) for corner in header["dataWindow"])
    width, height = int(right - left + 1), int(bottom - top + 1)
    if width * height * max(1, len(header["channels"])) > 4 * MAX_PIXELS or width * height > MAX_PIXELS:
        raise TooLargeError(
            f"{width} x {height} pixels, {len(header['channels'])} channels, at most {MAX_PIXELS:,} pixels are taken; "
            f"shrink the {what}"
        )
    _, channels = _open(data, header_only=False)
    values = _chosen(channels, what)
    if values.shape != (height, width):
        raise DecodeError(f"the EXR's channel is {values.shape}, its picture {(height, width)}: write it in full size")
    return values, {k.lower(): np.asarray(v) for k, v in header.items() if isinstance(v, float | int)}


def _open(data: bytes, header_only: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and channels of the first part."""
    import OpenEXR

    try:
        with OpenEXR.File(io.BytesIO(data), separate_channels=True, header_only=header_only, num_threads=0) as file:
            return dict(file.header()), {name: channel.pixels for name, channel in file.channels().items()}
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, MemoryError, OSError) as error:
        reason = str(error) if "parts" not in str(error) else "its pixels are damaged or cut off"
        raise DecodeError(f"no readable EXR ({len(data):,} bytes): {reason}; write it again") from error


def _chosen(channels: dict[str, np.ndarray], what: str) -> np.ndarray:
    flat = {name.rpartition(".")[2].lower(): pixels for name, pixels in channels.items() if pixels.ndim == 2}
    if len(channels) == 1 and flat:
        return next(iter(flat.values()))
    for name in (what.split()[0], "z", "y"):
        if name in flat:
            return flat[name]
    colours = [flat[name] for name in "rgb" if name in flat]
    if len(colours) == 3 and all(np.array_equal(colours[0], other, equal_nan=True) for other in colours[1:]):
        return colours[0]
    raise DecodeError(
        f"none of the EXR's channels {', '.join(sorted(channels))} is the {what}: name one {what.split()[0]!r} or 'Z', "
        "or write one channel"
    )
