"""One-channel measurements (depth, thermal): PNG, TIFF, NPY bytes or arrays -> a numpy array as it was stored."""

from __future__ import annotations

import io
import tokenize

import numpy as np
from PIL import Image

from encoders.errors import DecodeError, TooLargeError
from encoders.media.image import DAMAGED, MAX_PIXELS, open_picture
from encoders.media.types import Media, read_media

NPY_MAGIC = b"\x93NUMPY"
SMALLEST_SHARE = 1e-6  # of an averaged pixel that must have been measured


def read_grid(media: Media, what: str) -> tuple[np.ndarray, str | None]:
    """A one-channel picture of measurements and its MIME type.

    Args:
        media: bytes, pathlib.Path, URI or open binary file of a one-channel PNG, TIFF or NPY; numpy (H, W) or (H, W, 1).
        what: what it is called in messages.

    Returns:
        (H, W) in the number type it was stored in: uint8, uint16, int32, float32, ...

    Raises:
        DecodeError: several channels, no numbers, damaged.
        TooLargeError: more than MAX_PIXELS.
    """
    values, mime = (media, None) if isinstance(media, np.ndarray) else _stored(read_media(media), what)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[:, :, 0]
    if values.ndim != 2 or not values.size or values.dtype.kind not in "uif":
        raise DecodeError(f"a {what} has one channel of numbers (H, W), not {values.dtype} {values.shape}")
    if values.size > MAX_PIXELS:
        raise TooLargeError(
            f"{values.shape[1]} x {values.shape[0]} pixels, at most {MAX_PIXELS:,} are taken; shrink the {what}"
        )
    return values, mime


def read_npy(data: bytes) -> np.ndarray:
    """The array of an NPY file; never unpickles.

    Raises:
        DecodeError: damaged, or made of Python objects.
    """
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)  # type: ignore[no-any-return]
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError, tokenize.TokenError) as error:
        raise DecodeError(f"no readable NPY array: {error}; save it again with numpy.save and allow_pickle=False") from error


def square(values: np.ndarray, side: int) -> np.ndarray:
    """The largest centred square of float32 (H, W), averaged to (side, side); NaN counts only where all is NaN."""
    edge = min(values.shape)
    top, left = (values.shape[0] - edge) // 2, (values.shape[1] - edge) // 2
    centre = values[top : top + edge, left : left + edge]
    known = np.isfinite(centre)
    total = _averaged(np.where(known, centre, 0).astype(np.float32), side)
    if known.all():
        return total
    share = _averaged(known.astype(np.float32), side)
    return np.where(share < SMALLEST_SHARE, np.nan, total / np.maximum(share, SMALLEST_SHARE)).astype(np.float32)


def _averaged(values: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(values).resize((side, side), Image.Resampling.BOX))


def _stored(data: bytes, what: str) -> tuple[np.ndarray, str | None]:
    if data.startswith(NPY_MAGIC):
        return read_npy(data), "application/x-npy"
    image = open_picture(data)
    if image.mode not in ("L", "F", "I") and not image.mode.startswith("I;16"):
        raise DecodeError(f"a {what} has one channel, this {image.format} has {image.mode}; export the raw measurements")
    try:
        return np.asarray(image), Image.MIME.get(image.format or "")
    except DAMAGED as error:
        raise DecodeError(f"the {image.format} of the {what} is damaged: {error}; write it again") from error
