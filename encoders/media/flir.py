"""FLIR's radiometric JPEG: bytes -> kelvin, by the sensor's raw values and the camera's constants that it carries.

The layout is as ExifTool documents it (https://exiftool.org/TagNames/FLIR.html): APP1 segments named FLIR hold the pieces of
one block ("FFF"), whose directory leads to records; record 1 has the raw values, record 32 the constants.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from encoders.errors import DecodeError, MediaError, TooLargeError
from encoders.media.image import DAMAGED, MAX_PIXELS

_APP1, _START_OF_SCAN = 0xE1, 0xDA
_NAME = b"FLIR\0"
_RAW, _CAMERA = 1, 32  # types of records
_MAX_RECORDS = 1000
_PIXELS_AT = 32  # bytes into the record of raw values


def is_flir(data: bytes) -> bool:
    """Whether a JPEG has a segment of a FLIR camera."""
    return next(_pieces(data), None) is not None


def kelvin_of_flir(data: bytes) -> np.ndarray | None:
    """float32 (H, W): the temperature of a surface of the camera's set emissivity; None if the JPEG carries no raw values.

    T = B / ln(R1 / (R2 (S + O)) + F), where S is the raw value without the part that the surface reflects:
    S = (raw - (1 - e) S_r) / e, S_r the raw value of the reflected temperature, e the emissivity. Air and window are taken as
    transparent.

    Raises:
        DecodeError: the records are damaged or cut off.
        TooLargeError: too many pixels.
    """
    try:
        records = _records(b"".join(piece for _, piece in sorted(_pieces(data), key=lambda numbered: numbered[0])))
        if _RAW not in records or _CAMERA not in records:
            return None
        return _kelvin(_raw_values(records[_RAW]), records[_CAMERA])
    except MediaError:
        raise
    except DAMAGED as error:
        raise DecodeError(f"the FLIR part of the JPEG is damaged: {error}; export the temperatures as TIFF") from error


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of each FLIR segment before the picture's pixels."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _START_OF_SCAN:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if data[at + 1] == _APP1 and body.startswith(_NAME) and len(body) > 8:
            yield body[6], body[8:]
        at += 2 + length


def _records(block: bytes) -> dict[int, bytes]:
    """The bytes of each record by its type; the first of several."""
    if not block.startswith((b"FFF\0", b"AFF\0")):
        return {}
    order = ">" if 100 <= struct.unpack_from(">I", block, 20)[0] < 200 else "<"
    start, count = struct.unpack_from(f"{order}II", block, 24)
    found: dict[int, bytes] = {}
    for k in range(min(count, _MAX_RECORDS)):
        kind, _, _, _, offset, length = struct.unpack_from(f"{order}HHIIII", block, start + 32 * k)
        if kind in (_RAW, _CAMERA):
            if offset + length > len(block):
                raise DecodeError("the FLIR part of the JPEG is cut off; copy the file again")
            found.setdefault(kind, block[offset : offset + length])
    return found


def _order(record: bytes) -> str:
    """Each record starts with the number 2 in its own byte order."""
    return "<" if record[0] else ">"


def _raw_values(record: bytes) -> np.ndarray:
    order = _order(record)
    width, height = struct.unpack_from(f"{order}HH", record, 2)
    if width * height > MAX_PIXELS:
        raise TooLargeError(f"{width} x {height} raw values, at most {MAX_PIXELS:,} are taken; shrink the frame")
    pixels = record[_PIXELS_AT:]
    if pixels.startswith(b"\x89PNG"):
        image = Image.open(io.BytesIO(pixels), formats=["PNG"])
        if image.size != (width, height) or not image.mode.startswith("I;16"):
            raise DecodeError(f"the raw values of the FLIR JPEG are {image.mode} {image.size}, not 16 bits {width, height}")
        return np.asarray(image).astype(np.uint16).byteswap()  # their PNGs have the bytes of each value swapped
    return np.frombuffer(pixels, f"{order}u2", width * height).reshape(height, width)


def _kelvin(raw: np.ndarray, camera: bytes) -> np.ndarray:
    order = _order(camera)
    (emissivity,) = struct.unpack_from(f"{order}f", camera, 0x20)
    (reflected_k,) = struct.unpack_from(f"{order}f", camera, 0x28)
    r1, b, f = struct.unpack_from(f"{order}3f", camera, 0x58)
    o, r2 = struct.unpack_from(f"{order}if", camera, 0x308)
    if not (r1 > 0 and b > 0 and r2 > 0 and np.isfinite([r1, b, f, r2]).all()):
        raise DecodeError(f"the FLIR JPEG has no usable constants: R1 {r1:g}, B {b:g}, R2 {r2:g}; export it as TIFF")
    signal = raw.astype(np.float64)
    if 0 < emissivity < 1 and reflected_k > 0:
        signal = (signal - (1 - emissivity) * (r1 / (r2 * (np.exp(b / reflected_k) - f)) - o)) / emissivity
    with np.errstate(invalid="ignore", divide="ignore"):
        kelvin = b / np.log(r1 / (r2 * (signal + o)) + f)
    if not (np.isfinite(kelvin).all() and kelvin.min() > 0):
        raise DecodeError("some raw values of the FLIR JPEG are no temperatures by its constants; export it as TIFF")
    return kelvin.astype(np.float32)  # type: ignore[no-any-return]
