"""Depth, thermal and IMU for ImageBind: media -> the arrays its towers take.  For these no loader was ever published.

What is known of the training data, and what is not, stands in docs/media.md; every number that could be otherwise is a
setting. `mean` and `std` are for the tower's first layer; the arrays made here are before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from encoders.errors import SpaceError
from encoders.imagebind.normalisation import DEPTH_MEAN, DEPTH_STD, THERMAL_MEAN, THERMAL_STD
from encoders.media import depth, imu, thermal
from encoders.media.grids import centre_crop
from encoders.media.types import Media

SIDE = 224  # pixels
STEPS = 2000  # of an IMU window
QUIETEST = 1e-3  # m/s^2 or rad/s: a deviation below is rounding and is not blown up to 1
DEFAULT_FOCAL_LENGTH_PX = 520.0  # Kinect v1, 640 pixels wide
PROFILES = ("bindery", "reference")
NORMALISE = ("none", "per_sensor")


@dataclass(frozen=True)
class Disparity:
    """Depth -> disparity in pixels of a stereo camera, clamped and divided by `max_disparity_px`.  Settings only.

    Attributes:
        profile: "bindery": what was not measured is left out of every average, and reads 0 (infinitely far) where nothing near
            it was measured. "reference": the published recipe to the letter: 0 m is clipped like any distance, so that holes
            read 1 (nearest).
        metres_per_unit, encoding, metres_per_float: how `decode_depth` reads a map.
        focal_length_px: of the depth camera; None: what the file tells, else DEFAULT_FOCAL_LENGTH_PX.
        baseline_m: distance of the two eyes: 0.075 Kinect v1 and v2, 0.095 RealSense and Xtion.
        nearest_m, farthest_m: distances are clipped to these.
        max_disparity_px: becomes 1.
        mean, std: of disparity / max_disparity_px.
    """

    profile: str = "bindery"
    metres_per_unit: float = depth.METRES_PER_UNIT
    encoding: str = "linear"
    metres_per_float: float = 1.0
    focal_length_px: float | None = None
    baseline_m: float = 0.075
    nearest_m: float = 0.01
    farthest_m: float = 50.0
    max_disparity_px: float = 75.0
    mean: float = DEPTH_MEAN
    std: float = DEPTH_STD

    def __post_init__(self) -> None:
        _one_of("profile", self.profile, PROFILES)
        _one_of("encoding", self.encoding, depth.ENCODINGS)
        _positive(metres_per_unit=self.metres_per_unit, metres_per_float=self.metres_per_float, baseline_m=self.baseline_m)
        _positive(nearest_m=self.nearest_m, farthest_m=self.farthest_m, max_disparity_px=self.max_disparity_px, std=self.std)
        _positive(focal_length_px=self.focal_length_px)
        if self.nearest_m >= self.farthest_m:
            raise SpaceError(f"nearest_m {self.nearest_m} is not below farthest_m {self.farthest_m}; swap them")

    def decode(self, media: Media) -> depth.DepthMap:
        """Anything `decode_depth` takes, read by these settings; a DepthMap comes back as it is."""
        return depth.decode_depth(media, self.metres_per_unit, self.encoding, self.metres_per_float)

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """-> {"disparity": float32 (1, 224, 224) in [0, 1]}: short side to 224 (bilinear, anti-aliased), centre crop."""
        mapped = self.decode(media)
        metres = mapped.metres if self.profile == "bindery" else np.nan_to_num(mapped.metres, nan=0.0)
        focal_px = self.focal_length_px or mapped.focal_length_px or DEFAULT_FOCAL_LENGTH_PX
        disparity_px = self.baseline_m * focal_px / np.clip(metres, self.nearest_m, self.farthest_m)
        disparity = np.clip(disparity_px / self.max_disparity_px, 0, 1).astype(np.float32)
        small = centre_crop(disparity, SIDE, Image.Resampling.BILINEAR)
        return {"disparity": np.clip(np.nan_to_num(small, nan=0.0), 0, 1)[None]}


@dataclass(frozen=True)
class Brightness:
    """Thermal frame -> brightness from 0 (cold) to 1 (hot).  Settings only.

    8-bit pictures are what the camera made of them, divided by 255. Temperatures are scaled: by `range_celsius`, or without one
    each frame by its own 1st and 99th percentile, as cameras do for their 8-bit pictures.

    Attributes:
        profile: "bindery": in float throughout. "reference": made 8 bits before resizing, as users of the official model do.
        unit, kelvin_per_unit: how `decode_thermal` reads a frame.
        range_celsius: (cold, hot) degrees Celsius that become 0 and 1; None: each frame's own.
        mean, std: of brightness; 0 and 1 leave it as it is, which some users of the official model do.
    """

    profile: str = "bindery"
    unit: str = "infer"
    kelvin_per_unit: float = thermal.KELVIN_PER_UNIT
    range_celsius: tuple[float, float] | None = None
    mean: float = THERMAL_MEAN
    std: float = THERMAL_STD

    def __post_init__(self) -> None:
        _one_of("profile", self.profile, PROFILES)
        _one_of("unit", self.unit, thermal.UNITS)
        _positive(kelvin_per_unit=self.kelvin_per_unit, std=self.std)
        if self.range_celsius is not None:
            object.__setattr__(self, "range_celsius", tuple(self.range_celsius))  # a list, where it comes from JSON
            if len(self.range_celsius) != 2 or not self.range_celsius[0] < self.range_celsius[1]:
                raise SpaceError(f"range_celsius is {self.range_celsius}; give (coldest, hottest)")

    def decode(self, media: Media) -> thermal.ThermalFrame:
        """Anything `decode_thermal` takes, read by these settings; a ThermalFrame comes back as it is."""
        return thermal.decode_thermal(media, self.unit, self.kelvin_per_unit)

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """-> {"thermal": float32 (1, 224, 224) in [0, 1]}: short side to 224 (bicubic, anti-aliased), centre crop."""
        level = self._level(self.decode(media))
        if self.profile == "reference":
            small = centre_crop(np.rint(level * 255).astype(np.uint8), SIDE, Image.Resampling.BICUBIC) / np.float32(255)
        else:
            small = np.clip(centre_crop(level, SIDE, Image.Resampling.BICUBIC), 0, 1)
        return {"thermal": small[None].astype(np.float32)}

    def _level(self, frame: thermal.ThermalFrame) -> np.ndarray:
        """float32 (H, W) in [0, 1]."""
        if not frame.absolute:
            return frame.values
        if self.range_celsius is None:
            return thermal.brightness(frame.values)
        cold, hot = (celsius + thermal.FREEZING_K for celsius in self.range_celsius)
        return np.clip((frame.values - cold) / (hot - cold), 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Motion:
    """IMU trace -> 2000 steps of acceleration in m/s^2 and rotation in rad/s, from the middle of the trace.  Settings only.

    Attributes:
        tower_rate_hz: steps a second that the tower sees: 400 makes 2000 steps 5 s, as the paper says; 200 makes them 10 s, as
            the training data's own rate suggests.
        normalise: "none", or "per_sensor": each axis minus its mean in the window, each sensor's three axes divided by their
            common standard deviation.
        rate_hz, acceleration_unit, rotation_unit, max_gap_s: how `decode_imu` reads a trace.
    """

    tower_rate_hz: float = 400.0
    normalise: str = "none"
    rate_hz: float | None = None
    acceleration_unit: str | None = None
    rotation_unit: str | None = None
    max_gap_s: float | None = 0.25

    def __post_init__(self) -> None:
        _one_of("normalise", self.normalise, NORMALISE)
        _one_of("acceleration_unit", self.acceleration_unit, (None, "infer", *imu.ACCELERATION_UNITS))
        _one_of("rotation_unit", self.rotation_unit, (None, *imu.ROTATION_UNITS))
        if not 1 <= self.tower_rate_hz <= imu.FASTEST_HZ:
            raise SpaceError(f"tower_rate_hz is {self.tower_rate_hz}; give one from 1 to {imu.FASTEST_HZ:,.0f} Hz")
        _positive(rate_hz=self.rate_hz, max_gap_s=self.max_gap_s)

    def decode(self, media: Media) -> imu.Trace:
        """Anything `decode_imu` takes, read by these settings; a Trace comes back as it is."""
        return imu.decode_imu(media, self.rate_hz, self.acceleration_unit, self.rotation_unit, self.max_gap_s)

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """-> {"imu": float32 (6, 2000)}, acceleration x, y, z, rotation x, y, z; a shorter trace is repeated."""
        window_TC = self.decode(media).window(STEPS, self.tower_rate_hz)
        if self.normalise == "per_sensor":
            window_TC = window_TC - window_TC.mean(axis=0, dtype=np.float64)
            spread = np.sqrt(np.square(window_TC).reshape(STEPS, 2, 3).mean(axis=(0, 2)))
            window_TC = window_TC / np.repeat(np.maximum(spread, QUIETEST), 3)
        return {"imu": np.ascontiguousarray(window_TC.T, np.float32)}


def _positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            raise SpaceError(f"{name} is {value}; give a number above 0")


def _one_of(name: str, value: str | None, known: tuple[str | None, ...]) -> None:
    if value not in known:
        raise SpaceError(f"{name} is {value!r}; there are {', '.join(repr(k) for k in known)}")
