"""Thermal: 16-bit PNG or TIFF, float TIFF, NPY, NPZ or EXR, 8-bit grey, FLIR JPEG, arrays -> a thermal frame -> facts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from encoders.errors import DecodeError
from encoders.media import grids
from encoders.media.flir import is_flir, kelvin_of_flir
from encoders.media.image import DAMAGED, open_picture
from encoders.media.previews import map_preview
from encoders.media.types import Facts, Media, read_media

KELVIN_PER_UNIT = 0.01  # of 16-bit frames: centikelvin, as radiometric cameras write (27315 is 0 degrees Celsius)
FREEZING_K = 273.15
UNITS = ("kelvin", "celsius", "counts", "infer")
LIKELY_K = (200.0, 1500.0)  # what a scene's temperatures lie between, for `unit="infer"`
PERCENTILES = (1, 99)  # of a frame of counts, that become 0 and 1
GREY_TOLERANCE = 16  # levels that the channels of a grey JPEG in colours may differ by
JPEG_MAGIC = b"\xff\xd8\xff"


@dataclass(frozen=True)
class ThermalFrame:
    """float32 (H, W): kelvin if `absolute`, else brightness from 0 to 1 that only ranks the pixels of this frame."""

    values: np.ndarray
    absolute: bool
    mime: str | None = None

    def square(self, side: int) -> np.ndarray:
        """The largest centred square, averaged to float32 (side, side), in the unit of `values`."""
        return grids.square(self.values, side)


def decode_thermal(media: Media, unit: str = "kelvin", kelvin_per_unit: float = KELVIN_PER_UNIT) -> ThermalFrame:
    """By default floats are kelvin, integers of more than 8 bits centikelvin. 8 bits are relative brightness always.

    A JPEG of a FLIR camera that holds the sensor's raw values becomes kelvin by them, whatever `unit` says; without them, like
    any JPEG, it is a picture whose grey levels are brightness.

    Args:
        media: bytes, pathlib.Path, URI or open binary file of a one-channel PNG, TIFF, NPY, NPZ (array `thermal`, or its only
            map) or EXR (channel `thermal`, `Z` or `Y`, or its only one), or of a JPEG; numpy (H, W).
        unit: of what is no 8-bit picture. "kelvin"; "celsius"; "counts": the sensor's numbers, of which the 1st percentile
            becomes 0 and the 99th 1; "infer": kelvin or Celsius by `_inferred`, refused where the values do not tell.
        kelvin_per_unit: what one step of an integer frame means (in Celsius too): 0.01, of some cameras 0.1 or 1/64.

    Raises:
        DecodeError: several channels, false colours, a value that is NaN, infinite or below 0 K, damaged, a unit that cannot be
            told.
        TooLargeError: too many pixels.
    """
    if isinstance(media, ThermalFrame):
        return media
    if not isinstance(media, np.ndarray):
        media = read_media(media)
        if media.startswith(JPEG_MAGIC):
            return _from_jpeg(media)
    grid = grids.read_grid(media, "thermal frame")
    if grid.values.dtype == np.uint8:
        return ThermalFrame(grid.values.astype(np.float32) / 255, absolute=False, mime=grid.mime)
    with np.errstate(over="ignore"):
        values = grid.values.astype(np.float32)
    if not np.isfinite(values).all():
        raise DecodeError(f"{int((~np.isfinite(values)).sum()):,} pixels of the thermal frame hold no kelvin: NaN or infinite")
    if unit == "counts":
        return ThermalFrame(brightness(values), absolute=False, mime=grid.mime)
    integers = grid.values.dtype.kind in "ui"
    if integers:
        values *= np.float32(kelvin_per_unit)
    celsius = unit == "celsius" or (unit == "infer" and _inferred(values, integers) == "celsius")
    kelvin = values + np.float32(FREEZING_K) if celsius else values
    if kelvin.min() < 0:
        raise DecodeError(
            "a thermal frame holds kelvin (16-bit: centikelvin), here are values below 0; declare unit='celsius' or 'counts'"
        )
    return ThermalFrame(kelvin, absolute=True, mime=grid.mime)


def describe_thermal(frame: ThermalFrame) -> Facts:
    """Size, and the frame in false colours: hot is light, cold is dark."""
    height, width = frame.values.shape
    return Facts(mime=frame.mime, width=width, height=height, preview=map_preview(frame.values))


def _inferred(values: np.ndarray, integers: bool) -> str:
    """ "kelvin" if nearly all values are temperatures of a scene in kelvin and none can be in Celsius, or the other way round.

    Between 200 and 1,500: kelvin, as no whole scene is hotter than 200 degrees Celsius. Floats between -73 and 200: Celsius, as
    no whole scene is colder than 200 K. Anything else is refused, among it integers that would be Celsius: those of a sensor's
    14 bits look the same.
    """
    low, high = np.percentile(values, PERCENTILES)
    if LIKELY_K[0] <= low and high <= LIKELY_K[1]:
        return "kelvin"
    if not integers and LIKELY_K[0] - FREEZING_K <= low and high < LIKELY_K[0]:
        return "celsius"
    raise DecodeError(
        f"values from {low:g} to {high:g} are neither kelvin nor degrees Celsius for certain; declare the unit 'kelvin', "
        "'celsius' or 'counts', and for integers kelvin_per_unit"
    )


def brightness(values: np.ndarray) -> np.ndarray:
    """float32 (H, W) in [0, 1]: 0 and 1 are the frame's own 1st and 99th percentile, all 0 if all are equal."""
    low, high = np.percentile(values, PERCENTILES)
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)  # type: ignore[no-any-return]


def _from_jpeg(data: bytes) -> ThermalFrame:
    """Kelvin by the raw values of a FLIR JPEG; else the grey levels of the picture, unless it is in false colours."""
    kelvin = kelvin_of_flir(data) if is_flir(data) else None
    if kelvin is not None:
        return ThermalFrame(kelvin, absolute=True, mime="image/jpeg")
    image = open_picture(data)
    try:
        colours = np.asarray(image.convert("RGB"), np.int16)
        grey = np.asarray(image.convert("L"), np.float32) / 255
    except DAMAGED as error:
        raise DecodeError(f"the JPEG of the thermal frame is damaged: {error}; write it again") from error
    if not is_flir(data) and np.percentile(np.ptp(colours, axis=2), PERCENTILES[1]) > GREY_TOLERANCE:
        raise DecodeError("the JPEG of the thermal frame is in false colours, which rank nothing; export grey or radiometric")
    return ThermalFrame(grey, absolute=False, mime="image/jpeg")
