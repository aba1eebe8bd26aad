"""IMU: CSV, Parquet, NPY, arrays -> a trace of acceleration and rotation at a constant rate -> windows, facts.  T samples."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from encoders.errors import DecodeError, TooLargeError
from encoders.media.grids import NPY_MAGIC, read_npy
from encoders.media.previews import series_preview
from encoders.media.series import even, resampled
from encoders.media.types import Facts, Media, read_media

DEFAULT_RATE_HZ = 100.0  # of a trace that has no time column and no rate beside it
SLOWEST_HZ, FASTEST_HZ = 0.1, 100_000.0  # beyond these the time column is in another unit than it says
MAX_SAMPLES = 10_000_000  # rows
STANDARD_GRAVITY_MPS2 = 9.80665
LARGEST = 1e9  # of a value, in any unit
SAME_RATE = 1e-5  # as a share of the rate: nothing is resampled
UNEVEN = 0.5  # steps that a time may be off the even grid before samples are moved
LIKE_GRAVITY = 0.15  # that the median acceleration may differ from gravity by, for `acceleration_unit="infer"`
ACCELERATION_UNITS = {"m/s2": 1.0, "g": STANDARD_GRAVITY_MPS2, "mg": STANDARD_GRAVITY_MPS2 / 1000}
ROTATION_UNITS = {"rad/s": 1.0, "deg/s": np.pi / 180}

_SENSOR = re.compile(
    r"(?P<sensor>a|acc|accel|accelerometer|acceleration|g|gyr|gyro|gyroscope)_?(?P<axis>[xyz])(_(?P<unit>\w+))?"
)
_TIME = re.compile(r"(t|time|timestamp|seconds)(_(?P<unit>s|ms|us|ns))?")
_ACCELERATION = {None: None, "mps2": "m/s2", "ms2": "m/s2", "m_s2": "m/s2", "g": "g", "mg": "mg"}
_ROTATION = {
    None: None,
    "radps": "rad/s",
    "rads": "rad/s",
    "rad_s": "rad/s",
    "dps": "deg/s",
    "degps": "deg/s",
    "deg_s": "deg/s",
}
_SECONDS = {None: 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_NEEDED = ("ax", "ay", "az", "gx", "gy", "gz")


@dataclass(frozen=True)
class Trace:
    """float32 (T, 6): acceleration x, y, z with gravity in m/s^2, then rotation x, y, z in rad/s, at `rate_hz`."""

    samples: np.ndarray
    rate_hz: float
    mime: str | None = None

    @property
    def duration_s(self) -> float:
        """Seconds that the samples cover."""
        return len(self.samples) / self.rate_hz

    def part(self, start_s: float, end_s: float) -> Trace:
        """The samples from `start_s` to `end_s` seconds, clipped to the trace; a view, nothing is copied.

        Raises:
            ValueError: nothing of the trace lies there.
        """
        if not (start_s < end_s and start_s < self.duration_s and end_s > 0):
            raise ValueError(f"{start_s:g} to {end_s:g} s is no part of a trace of {self.duration_s:g} s; choose one inside")
        first = min(max(round(start_s * self.rate_hz), 0), len(self.samples) - 1)
        return replace(self, samples=self.samples[first : max(round(end_s * self.rate_hz), first + 1)])

    def window(self, count: int, rate_hz: float) -> np.ndarray:
        """float32 (count, 6) at `rate_hz` from the middle of the trace, resampled without aliasing; a shorter one is repeated.

        A sample stands for the time of its own length around it, so that 500 at 100 Hz make 2000 at 400 Hz.
        """
        step = self.rate_hz / rate_hz
        kept = min(count, max(1, int(len(self.samples) / step + 1e-6)))
        at = (len(self.samples) - 1 - (kept - 1) * step) / 2 + step * np.arange(kept)
        if abs(step - 1) < SAME_RATE:
            middle = self.samples[np.clip(np.rint(at).astype(int), 0, len(self.samples) - 1)]
        else:
            middle = resampled(self.samples, at, step)
        return middle[np.arange(count) % kept]  # type: ignore[no-any-return]

    def middle(self, count: int, rate_hz: float) -> np.ndarray:
        """float32 (count, 6) at `rate_hz` from the middle of the trace; a shorter trace is repeated.

        Samples are averaged over a new sample's width where the trace is finer, then interpolated linearly.
        """
        step = self.rate_hz / rate_hz
        source = _box_filtered(self.samples, round(step)) if step >= 2 else self.samples
        available = max(1, int((len(source) - 1) / step + 1 + 1e-6))
        kept = min(count, available)
        first = (len(source) - 1 - (kept - 1) * step) / 2
        at = np.clip(first + step * np.arange(kept), 0, len(source) - 1)
        low = np.minimum(at.astype(int), max(len(source) - 2, 0))
        part = (at - low).astype(np.float32)[:, None]
        middle = source[low] * (1 - part) + source[np.minimum(low + 1, len(source) - 1)] * part
        return middle[np.arange(count) % kept]  # type: ignore[no-any-return]


def decode_imu(
    media: Media,
    rate_hz: float | None = None,
    acceleration_unit: str | None = None,
    rotation_unit: str | None = None,
    max_gap_s: float | None = None,
) -> Trace:
    """A trace from a file with named columns, or from an array.

    Args:
        media: bytes, pathlib.Path, URI or open binary file of CSV (commas or tabs) or Parquet with columns named like `ax`,
            `acc_x`, `accel_x_mps2`, `ay_g`, ... and `gx`, `gyro_x_radps`, `gy_dps`, ... and perhaps times in `t_s`, `time`,
            `timestamp_ms`, ... (without a unit: seconds); or an NPY of (T, 6); or numpy (T, 6); or (numpy (T, 6), rate_hz).
        rate_hz: samples a second, whatever a time column says (but not of an array that comes with its rate); None: by the
            time column, else DEFAULT_RATE_HZ.
        acceleration_unit: of ACCELERATION_UNITS, whatever the columns are called; None: by their names, else m/s^2; "infer":
            by their names, else the unit in which the median acceleration is gravity within 15 %.
        rotation_unit: of ROTATION_UNITS, whatever the columns are called; None: by their names, else rad/s.
        max_gap_s: uneven times are brought to even steps, a longer time without samples is an error; None: times give the mean
            rate and nothing else.

    Raises:
        DecodeError: columns are missing, a value is no number, times do not rise or have a gap, a unit cannot be inferred.
        TooLargeError: more than MAX_SAMPLES.
    """
    if isinstance(media, Trace):
        return media
    table = _read(media)
    values = table.values
    if values.ndim != 2 or values.shape[1] != len(_NEEDED) or not len(values) or values.dtype.kind not in "uif":
        raise DecodeError(f"a trace is an array (T, 6) of numbers with at least one row, not {values.dtype} {values.shape}")
    if len(values) > MAX_SAMPLES:
        raise TooLargeError(f"{len(values):,} samples, at most {MAX_SAMPLES:,} are taken; split the trace")
    sane = np.abs(values) < LARGEST
    if not sane.all():
        raise DecodeError(f"{int((~sane).sum()):,} values of the trace are missing, infinite or absurd; fill or cut them")
    samples = values * _factors(table, acceleration_unit, rotation_unit)
    rate = next(rate for rate in (table.rate_hz, rate_hz, DEFAULT_RATE_HZ) if rate is not None)
    if table.times_s is not None and rate_hz is None:
        samples, rate = _by_times(samples, table.times_s, max_gap_s)
    if not SLOWEST_HZ <= rate <= FASTEST_HZ:
        raise DecodeError(f"{rate:g} Hz is no rate of an IMU; name the unit of the time column, e.g. timestamp_ns")
    return Trace(samples.astype(np.float32), rate, table.mime)


def describe_imu(trace: Trace) -> Facts:
    """Duration, and a plot: acceleration above, rotation below."""
    preview = series_preview([trace.samples[:, :3], trace.samples[:, 3:]])
    return Facts(mime=trace.mime, duration_s=trace.duration_s, preview=preview)


@dataclass(frozen=True)
class _Table:
    """(T, 6) as they were stored, the unit of each column where its name tells it, and what is told of time."""

    values: np.ndarray
    units: Sequence[str | None] = (None,) * 6
    times_s: np.ndarray | None = None
    rate_hz: float | None = None
    mime: str | None = None


def _read(media: Media) -> _Table:
    if isinstance(media, tuple):
        return _Table(np.asarray(media[0]), rate_hz=float(media[1]))
    if isinstance(media, np.ndarray):
        return _Table(media)
    data = read_media(media)
    if data.startswith(NPY_MAGIC):
        return _Table(read_npy(data), mime="application/x-npy")
    table, mime = _read_table(data)
    columns = _find_columns(table.column_names)
    values = np.stack([_numbers(table, name) for name, _ in columns], axis=1)
    return _Table(values, [unit for _, unit in columns], _times_s(table), None, mime)


def _factors(table: _Table, acceleration_unit: str | None, rotation_unit: str | None) -> np.ndarray:
    """Of each column, to m/s^2 or rad/s: the declared unit, else that of its name, else the default or the likely one."""
    acceleration, rotation = list(table.units[:3]), list(table.units[3:])
    if acceleration_unit == "infer":
        acceleration = acceleration if any(acceleration) else [_like_gravity(table.values[:, :3])] * 3
    elif acceleration_unit is not None:
        acceleration = [acceleration_unit] * 3
    if rotation_unit is not None:
        rotation = [rotation_unit] * 3
    return np.array([ACCELERATION_UNITS[u or "m/s2"] for u in acceleration] + [ROTATION_UNITS[u or "rad/s"] for u in rotation])


def _like_gravity(acceleration: np.ndarray) -> str:
    median = float(np.median(np.linalg.norm(acceleration.astype(np.float64), axis=1)))
    for unit, factor in ACCELERATION_UNITS.items():
        if abs(median * factor / STANDARD_GRAVITY_MPS2 - 1) < LIKE_GRAVITY:
            return unit
    raise DecodeError(
        f"the median acceleration {median:g} is gravity in none of {', '.join(ACCELERATION_UNITS)}; declare acceleration_unit"
    )


def _by_times(samples: np.ndarray, times_s: np.ndarray, max_gap_s: float | None) -> tuple[np.ndarray, float]:
    """The samples at even steps, and their rate."""
    gaps_s = np.diff(times_s)
    mean_hz = float((len(times_s) - 1) / (times_s[-1] - times_s[0]))
    usual_s = float(np.median(gaps_s))
    if max_gap_s is None or not SLOWEST_HZ <= mean_hz <= FASTEST_HZ:
        return samples, mean_hz
    longest = int(gaps_s.argmax())
    if gaps_s[longest] > max(max_gap_s, 2.5 * usual_s):
        raise DecodeError(
            f"no samples for {gaps_s[longest]:.3g} s after {times_s[longest] - times_s[0]:.3f} s, at most {max_gap_s:g} s are "
            "bridged; split the trace there, or raise max_gap_s"
        )
    ideal_s = np.linspace(times_s[0], times_s[-1], len(times_s))
    if np.abs(times_s - ideal_s).max() * mean_hz <= UNEVEN:
        return samples, mean_hz
    rate_hz = min(1 / usual_s, 2 * mean_hz)
    return even(samples, times_s, rate_hz), rate_hz


def _read_table(data: bytes) -> tuple[pa.Table, str]:
    try:
        if data.startswith(b"PAR1"):
            table, mime = pa.parquet.read_table(io.BytesIO(data), use_threads=False), "application/vnd.apache.parquet"
        else:
            table, mime = _read_csv(data), "text/csv"
        table.validate(full=True)
        return table.rename_columns(table.column_names), mime  # which fails here for names that are not UTF-8
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DecodeError(f"neither a readable CSV nor a readable Parquet file: {error}; write it again") from error


def _read_csv(data: bytes) -> pa.Table:
    parse = pa.csv.ParseOptions(delimiter="\t" if b"\t" in data[: data.find(b"\n")] else ",")
    return pa.csv.read_csv(io.BytesIO(data), pa.csv.ReadOptions(use_threads=False), parse)


def _find_columns(names: Sequence[str]) -> list[tuple[str, str | None]]:
    """Of each of `_NEEDED` the column's name and the unit that the name tells."""
    found: dict[str, tuple[str, str | None]] = {}
    for name in names:
        match = _SENSOR.fullmatch(name.strip().lower())
        if match is None:
            continue
        sensor = match["sensor"][0]
        units = _ACCELERATION if sensor == "a" else _ROTATION
        if match["unit"] in units:
            found.setdefault(sensor + match["axis"], (name, units[match["unit"]]))
    missing = [needed for needed in _NEEDED if needed not in found]
    if missing:
        raise DecodeError(
            f"no column for {', '.join(missing)}; an IMU file needs ax, ay, az (units _mps2, _g, _mg) and gx, gy, gz (units "
            f"_radps, _dps), this one has {', '.join(names) or 'none'}; rename its columns"
        )
    return [found[needed] for needed in _NEEDED]


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    column = table[name]
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DecodeError(f"column {name!r} holds {column.type}, not numbers; mend the file")
    return column.to_numpy().astype(np.float64)  # type: ignore[no-any-return]


def _times_s(table: pa.Table) -> np.ndarray | None:
    """Seconds of each row by the first time column; None without one, or with fewer than two rows."""
    for name in table.column_names:
        match = _TIME.fullmatch(name.strip().lower())
        if match is None or table.num_rows < 2:
            continue
        if pa.types.is_timestamp(table[name].type):
            times_s = table[name].cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy() * 1e-9
        else:
            times_s = _numbers(table, name) * _SECONDS[match["unit"]]
        if not (np.isfinite(times_s).all() and (np.diff(times_s) > 0).all()):
            raise DecodeError(f"the times in column {name!r} do not rise from row to row; sort the rows and drop repetitions")
        return times_s  # type: ignore[no-any-return]
    return None


def _box_filtered(samples: np.ndarray, width: int) -> np.ndarray:
    """A moving average over `width` rows, as long as `samples`; the edges repeat the first and last row."""
    padded = np.pad(samples.astype(np.float64), ((width // 2 + 1, width - width // 2 - 1), (0, 0)), mode="edge")
    sums = np.cumsum(padded, axis=0)
    return ((sums[width:] - sums[:-width]) / width).astype(np.float32)
