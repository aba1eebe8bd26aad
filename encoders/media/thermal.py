"""Thermal: 16-bit PNG or TIFF in centikelvin, float TIFF or NPY in kelvin, 8-bit grey, arrays -> a thermal frame -> facts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from encoders.errors import DecodeError
from encoders.media import grids
from encoders.media.previews import map_preview
from encoders.media.types import Facts, Media

KELVIN_PER_UNIT = 0.01  # of 16-bit frames: centikelvin, as radiometric cameras write (27315 is 0 degrees Celsius)


@dataclass(frozen=True)
class ThermalFrame:
    """float32 (H, W): kelvin if `absolute`, else brightness from 0 to 1 that only ranks the pixels of this frame."""

    values: np.ndarray
    absolute: bool
    mime: str | None = None

    def square(self, side: int) -> np.ndarray:
        """The largest centred square, averaged to float32 (side, side), in the unit of `values`."""
        return grids.square(self.values, side)


def decode_thermal(media: Media) -> ThermalFrame:
    """16-bit integers are centikelvin, floats kelvin, 8 bits relative brightness.

    Args:
        media: bytes, pathlib.Path, URI or open binary file of a one-channel PNG, TIFF or NPY; numpy (H, W).

    Raises:
        DecodeError: several channels, a value that is NaN, infinite or below 0 K, damaged.
        TooLargeError: too many pixels.
    """
    if isinstance(media, ThermalFrame):
        return media
    values, mime = grids.read_grid(media, "thermal frame")
    if values.dtype == np.uint8:
        return ThermalFrame(values.astype(np.float32) / 255, absolute=False, mime=mime)
    kelvin = values.astype(np.float32)
    if values.dtype.kind in "ui":
        kelvin *= np.float32(KELVIN_PER_UNIT)
    if not (np.isfinite(kelvin).all() and kelvin.min() >= 0):
        raise DecodeError(
            "a thermal frame holds kelvin (16-bit: centikelvin), here are values below 0 or no numbers; convert it"
        )
    return ThermalFrame(kelvin, absolute=True, mime=mime)


def describe_thermal(frame: ThermalFrame) -> Facts:
    """Size, and the frame in false colours: hot is light, cold is dark."""
    height, width = frame.values.shape
    return Facts(mime=frame.mime, width=width, height=height, preview=map_preview(frame.values))
