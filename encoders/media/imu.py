"""IMU: CSV, Parquet, NPY, arrays -> a trace of acceleration and rotation at a constant rate -> facts.  T samples."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from encoders.errors import DecodeError, TooLargeError
from encoders.media.grids import NPY_MAGIC, read_npy
from encoders.media.previews import series_preview
from encoders.media.types import Facts, Media, read_media

DEFAULT_RATE_HZ = 100.0  # of a trace that has no time column and no rate beside it
SLOWEST_HZ, FASTEST_HZ = 0.1, 100_000.0  # beyond these the time column is in another unit than it says
MAX_SAMPLES = 10_000_000  # rows
STANDARD_GRAVITY_MPS2 = 9.80665

_SENSOR = re.compile(
    r"(?P<sensor>a|acc|accel|accelerometer|acceleration|g|gyr|gyro|gyroscope)_?(?P<axis>[xyz])(_(?P<unit>\w+))?"
)
_TIME = re.compile(r"(t|time|timestamp|seconds)(_(?P<unit>s|ms|us|ns))?")
_ACCELERATION = {
    None: 1.0,
    "mps2": 1.0,
    "ms2": 1.0,
    "m_s2": 1.0,
    "g": STANDARD_GRAVITY_MPS2,
    "mg": STANDARD_GRAVITY_MPS2 / 1000,
}
_ROTATION = {None: 1.0, "radps": 1.0, "rads": 1.0, "rad_s": 1.0, "dps": np.pi / 180, "degps": np.pi / 180, "deg_s": np.pi / 180}
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


def decode_imu(media: Media) -> Trace:
    """A trace from a file with named columns, or from an array in m/s^2 and rad/s.

    Args:
        media: bytes, pathlib.Path, URI or open binary file of CSV or Parquet with columns named like `ax`, `acc_x`,
            `accel_x_mps2`, `ay_g`, ... and `gx`, `gyro_x_radps`, `gy_dps`, ... (without a unit: m/s^2 and rad/s) and perhaps a
            time column `t_s`, `time`, `timestamp_ms`, ... (without a unit: seconds); or an NPY of (T, 6); or numpy (T, 6); or
            (numpy (T, 6), rate_hz). Without times the rate is DEFAULT_RATE_HZ.

    Raises:
        DecodeError: columns are missing, a value is no number, times do not rise, damaged.
        TooLargeError: more than MAX_SAMPLES.
    """
    if isinstance(media, Trace):
        return media
    if isinstance(media, tuple):
        return _trace(np.asarray(media[0]), float(media[1]), None)
    if isinstance(media, np.ndarray):
        return _trace(media, DEFAULT_RATE_HZ, None)
    data = read_media(media)
    if data.startswith(NPY_MAGIC):
        return _trace(read_npy(data), DEFAULT_RATE_HZ, "application/x-npy")
    table, mime = _read_table(data)
    columns = _find_columns(table.column_names)
    samples = np.stack([_numbers(table, name) * factor for name, factor in columns], axis=1)
    return _trace(samples, _rate_hz(table), mime)


def describe_imu(trace: Trace) -> Facts:
    """Duration, and a plot: acceleration above, rotation below."""
    preview = series_preview([trace.samples[:, :3], trace.samples[:, 3:]])
    return Facts(mime=trace.mime, duration_s=trace.duration_s, preview=preview)


def _trace(samples: np.ndarray, rate_hz: float, mime: str | None) -> Trace:
    if samples.ndim != 2 or samples.shape[1] != len(_NEEDED) or not len(samples) or samples.dtype.kind not in "uif":
        raise DecodeError(f"a trace is an array (T, 6) of numbers with at least one row, not {samples.dtype} {samples.shape}")
    if len(samples) > MAX_SAMPLES:
        raise TooLargeError(f"{len(samples):,} samples, at most {MAX_SAMPLES:,} are taken; split the trace")
    if not SLOWEST_HZ <= rate_hz <= FASTEST_HZ:
        raise DecodeError(f"{rate_hz:g} Hz is no rate of an IMU; name the unit of the time column, e.g. timestamp_ns")
    samples = samples.astype(np.float32)
    if not np.isfinite(samples).all():
        raise DecodeError(
            f"{int((~np.isfinite(samples)).sum()):,} values of the trace are missing or infinite; fill or cut them"
        )
    return Trace(samples, rate_hz, mime)


def _read_table(data: bytes) -> tuple[pa.Table, str]:
    try:
        if data.startswith(b"PAR1"):
            table, mime = pa.parquet.read_table(io.BytesIO(data), use_threads=False), "application/vnd.apache.parquet"
        else:
            table, mime = pa.csv.read_csv(io.BytesIO(data), pa.csv.ReadOptions(use_threads=False)), "text/csv"
        table.validate(full=True)
        return table.rename_columns(table.column_names), mime  # which fails here for names that are not UTF-8
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DecodeError(f"neither a readable CSV nor a readable Parquet file: {error}; write it again") from error


def _find_columns(names: Sequence[str]) -> list[tuple[str, float]]:
    """Of each of `_NEEDED` the column's name and the factor to m/s^2 or rad/s."""
    found: dict[str, tuple[str, float]] = {}
    for name in names:
        match = _SENSOR.fullmatch(name.strip().lower())
        if match is None:
            continue
        sensor = match["sensor"][0]
        factor = (_ACCELERATION if sensor == "a" else _ROTATION).get(match["unit"])
        if factor is not None:
            found.setdefault(sensor + match["axis"], (name, factor))
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


def _rate_hz(table: pa.Table) -> float:
    for name in table.column_names:
        match = _TIME.fullmatch(name.strip().lower())
        if match is None or table.num_rows < 2:
            continue
        if pa.types.is_timestamp(table[name].type):
            times_s = table[name].cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy() * 1e-9
        else:
            times_s = _numbers(table, name) * _SECONDS[match["unit"]]
        if not (np.diff(times_s) > 0).all():
            raise DecodeError(f"the times in column {name!r} do not rise from row to row; sort the rows and drop repetitions")
        return float((len(times_s) - 1) / (times_s[-1] - times_s[0]))
    return DEFAULT_RATE_HZ


def _box_filtered(samples: np.ndarray, width: int) -> np.ndarray:
    """A moving average over `width` rows, as long as `samples`; the edges repeat the first and last row."""
    padded = np.pad(samples.astype(np.float64), ((width // 2 + 1, width - width // 2 - 1), (0, 0)), mode="edge")
    sums = np.cumsum(padded, axis=0)
    return ((sums[width:] - sums[:-width]) / width).astype(np.float32)
