"""One-channel measurements (depth, thermal): PNG, TIFF, NPY, NPZ, EXR bytes or arrays -> a numpy array as it was stored."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from encoders.errors import DecodeError, MediaError, TooLargeError
from encoders.media.exr import EXR_MAGIC, read_exr
from encoders.media.image import DAMAGED, MAX_PIXELS, open_picture
from encoders.media.types import Media, read_media

NPY_MAGIC = b"\x93NUMPY"
NPZ_MAGIC = b"PK\x03\x04"
SMALLEST_SHARE = 1e-6  # of an averaged pixel that must have been measured
MAX_NPZ_MEMBERS = 256
LARGEST_MATRIX = 16  # numbers: up to 4 x 4 a 2-D array of an NPZ is a matrix of a camera and not a map


@dataclass(frozen=True)
class Grid:
    """What a file holds.

    Attributes:
        values: (H, W) in the number type it was stored in: uint8, uint16, int32, float16, float32, ...
        mime: MIME type; None for an array.
        beside: numbers that the file holds beside the map, by name in lower case: small arrays of an NPZ, attributes of an EXR.
    """

    values: np.ndarray
    mime: str | None = None
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)


def read_grid(media: Media, what: str) -> Grid:
    """A one-channel map of measurements.

    Args:
        media: bytes, pathlib.Path, URI or open binary file of a one-channel PNG, TIFF, NPY, NPZ or EXR; numpy (H, W),
            (H, W, 1) or (1, H, W).
        what: what it is called in messages, e.g. "depth map"; its first word names its array in an NPZ, its channel in an EXR.

    Raises:
        DecodeError: several channels, no numbers, damaged.
        TooLargeError: more than MAX_PIXELS.
    """
    grid = Grid(media) if isinstance(media, np.ndarray) else _stored(read_media(media), what)
    values = grid.values
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[:, :, 0]
    if values.ndim != 2 or not values.size or values.dtype.kind not in "uif":
        raise DecodeError(f"a {what} has one channel of numbers (H, W), not {values.dtype} {values.shape}")
    _check_size(values.shape[1], values.shape[0], what)
    return Grid(values, grid.mime, grid.beside)


def read_npy(data: bytes) -> np.ndarray:
    """The array of an NPY file; never unpickles, and makes room for no more than the file holds.

    Raises:
        DecodeError: damaged, cut off, or made of Python objects.
    """
    try:
        _check_npy_header(data)
        return np.load(io.BytesIO(data), allow_pickle=False)  # type: ignore[no-any-return]
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError, TypeError, tokenize.TokenError) as error:
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


def centre_crop(values: np.ndarray, side: int, kernel: Image.Resampling) -> np.ndarray:
    """The short side scaled to `side`, the centre cut out; NaN counts only where all under the kernel is NaN.

    As official loaders cut pictures: the long side becomes floor(side * long / short), the crop starts at round((that - side)
    / 2), halves to the even number. Only the pixels of the crop are computed.

    Args:
        values: (H, W), uint8 (scaled in 8 bits) or float32.
        side: pixels of the result.
        kernel: Pillow's filter; it widens where the map shrinks. With NaN in the map one without negative lobes.

    Returns:
        (side, side) in the type of `values`.
    """
    height, width = values.shape
    short = min(height, width)
    box = [0.0, 0.0, float(width), float(height)]
    for axis, length in ((0, width), (1, height)):
        scaled = side * length // short
        first = round((scaled - side) / 2)
        box[axis], box[axis + 2] = first * length / scaled, (first + side) * length / scaled
    if values.dtype == np.uint8:
        return _scaled(values, side, kernel, box)
    known = np.isfinite(values)
    if known.all():
        return _scaled(values.astype(np.float32), side, kernel, box)
    total = _scaled(np.where(known, values, 0).astype(np.float32), side, kernel, box)
    share = _scaled(known.astype(np.float32), side, kernel, box)
    return np.where(share < SMALLEST_SHARE, np.nan, total / np.maximum(share, SMALLEST_SHARE)).astype(np.float32)


def _scaled(values: np.ndarray, side: int, kernel: Image.Resampling, box: list[float]) -> np.ndarray:
    return np.asarray(Image.fromarray(values).resize((side, side), kernel, box=(box[0], box[1], box[2], box[3])))


def _averaged(values: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(values).resize((side, side), Image.Resampling.BOX))


def _check_size(width: int, height: int, what: str) -> None:
    if width * height > MAX_PIXELS:
        raise TooLargeError(f"{width} x {height} pixels, at most {MAX_PIXELS:,} are taken; shrink the {what}")


def _check_npy_header(data: bytes) -> None:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} is of arrays with field names")
    shape, _, dtype = read(file)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > len(data):
        raise ValueError(f"it promises {shape} of {dtype} and has {len(data):,} bytes: cut off")


def _stored(data: bytes, what: str) -> Grid:
    if data.startswith(NPY_MAGIC):
        return Grid(read_npy(data), "application/x-npy")
    if data.startswith(NPZ_MAGIC):
        return _from_npz(data, what)
    if data.startswith(EXR_MAGIC):
        values, beside = read_exr(data, what)
        return Grid(values, "image/x-exr", beside)
    image = open_picture(data)
    if image.mode not in ("L", "F", "I") and not image.mode.startswith("I;16"):
        raise DecodeError(f"a {what} has one channel, this {image.format} has {image.mode}; export the raw measurements")
    try:
        return Grid(np.asarray(image), Image.MIME.get(image.format or ""))
    except DAMAGED as error:
        raise DecodeError(f"the {image.format} of the {what} is damaged: {error}; write it again") from error


def _from_npz(data: bytes, what: str) -> Grid:
    """The array named like the measurement (`depth`, `thermal`), else the only one that is a map."""
    arrays = _npz_arrays(data, what)
    name = what.split()[0]
    maps = [key for key, array in arrays.items() if array.ndim >= 2 and array.size > LARGEST_MATRIX]
    chosen = name if name in arrays else maps[0] if len(maps) == 1 else None
    if chosen is None:
        raise DecodeError(
            f"an NPZ needs an array called {name!r} or a single map, this one has {', '.join(sorted(arrays)) or 'nothing'}; "
            f"save it with numpy.savez(file, {name}=...)"
        )
    beside = {k: a for k, a in arrays.items() if k != chosen and a.size <= LARGEST_MATRIX and a.dtype.kind in "uif"}
    return Grid(arrays[chosen], "application/x-npz", beside)


def _npz_arrays(data: bytes, what: str) -> dict[str, np.ndarray]:
    """Every array, by its name in lower case; refused before unpacking if they would be too large together."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            room = sum(member.file_size for member in members)
            if len(members) > MAX_NPZ_MEMBERS or room > 8 * MAX_PIXELS:
                raise TooLargeError(
                    f"{len(members):,} arrays of {room:,} bytes when unpacked, at most {MAX_NPZ_MEMBERS} of {8 * MAX_PIXELS:,} "
                    f"are taken; save the {what} alone"
                )
            return {m.filename.removesuffix(".npy").lower(): read_npy(archive.read(m)) for m in members}
    except MediaError:
        raise
    # All that zipfile says of bytes in memory: damaged, of an unknown method, encrypted, beyond its end.
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError, EOFError, zlib.error) as error:
        raise DecodeError(f"no readable NPZ: {error}; write it again with numpy.savez") from error
