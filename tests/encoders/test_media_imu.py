"""IMU: named columns with units, or arrays, become m/s^2 and rad/s at a rate; files without them are refused by name."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from sample_media import IMU_COLUMNS, csv_file, npy_file, sample_files, trace

from encoders.encoder import build_encoder
from encoders.errors import DecodeError
from encoders.media.imu import DEFAULT_RATE_HZ, decode_imu, describe_imu

G = 9.80665
NAMES = ("ax", "ay", "az", "gx", "gy", "gz")


def parquet_file(**columns: object) -> bytes:
    """A Parquet file of these columns."""
    buffer = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", sorted(sample_files("imu")))
def test_every_format_gives_the_trace_that_was_written(name: str) -> None:
    decoded = decode_imu(sample_files("imu")[name])
    np.testing.assert_allclose(decoded.samples, trace(), atol=1e-5)
    assert decoded.rate_hz == pytest.approx(100.0)
    assert decoded.duration_s == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("columns", "factors"),
    [
        (("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"), (1.0, 1.0)),
        (("AX_G", "AY_G", "AZ_G", "GX_DPS", "GY_DPS", "GZ_DPS"), (G, np.pi / 180)),
        (("accel_x_mg", "accel_y_mg", "accel_z_mg", "gyr_x", "gyr_y", "gyr_z"), (G / 1000, 1.0)),
        (("Accelerometer_X", "accelerometer_y", "accelerometer_z", "gx_radps", "gy_radps", "gz_radps"), (1.0, 1.0)),
    ],
)
def test_columns_are_known_by_their_names_and_units(columns: tuple[str, ...], factors: tuple[float, float]) -> None:
    expected = trace() * np.repeat(factors, 3)
    np.testing.assert_allclose(decode_imu(csv_file(trace(), columns)).samples, expected, rtol=1e-4, atol=1e-5)


def test_the_order_of_columns_and_columns_beside_them_do_not_matter() -> None:
    named = dict(zip(IMU_COLUMNS, trace().T, strict=True))
    shuffled = parquet_file(label=["a"] * 250, **{k: named[k] for k in reversed(IMU_COLUMNS)}, temperature=np.zeros(250))
    np.testing.assert_array_equal(decode_imu(shuffled).samples, trace())


def test_the_rate_comes_from_the_time_column_whatever_its_unit_and_has_a_default() -> None:
    named = dict(zip(IMU_COLUMNS, trace().T, strict=True))
    start_ns = 1_700_000_000_000_000_000
    stamps = (start_ns + np.arange(250) * 5_000_000).astype("datetime64[ns]")
    for times in (
        {"t_s": np.arange(250) / 200},
        {"time": np.arange(250) / 200 + 1.7e9},
        {"timestamp_ms": np.arange(250) * 5},
        {"timestamp_ns": start_ns + np.arange(250) * 5_000_000},
        {"timestamp": pa.array(stamps)},
    ):
        assert decode_imu(parquet_file(**times, **named)).rate_hz == pytest.approx(200.0, rel=1e-3)
    assert decode_imu(csv_file(trace(), rate_hz=None)).rate_hz == DEFAULT_RATE_HZ
    assert decode_imu(trace()).rate_hz == DEFAULT_RATE_HZ
    assert decode_imu((trace(), 250.0)).rate_hz == 250.0


def test_a_missing_column_is_named_with_those_that_were_found() -> None:
    with pytest.raises(DecodeError, match=r"no column for gz;.*ax, ay, az.*this one has t_s, ax_mps2"):
        decode_imu(csv_file(trace()[:, :5], IMU_COLUMNS[:5]))
    with pytest.raises(DecodeError, match="this one has name, age"):
        decode_imu(b"name,age\nAnn,3\n")


def test_values_and_times_that_make_no_sense_are_refused() -> None:
    named = dict(zip(IMU_COLUMNS, trace().T, strict=True))
    words = parquet_file(**{**named, "ax_mps2": ["fast"] * 250})
    holes = parquet_file(**{**named, "ax_mps2": pa.array([None] * 3 + [0.0] * 247)})
    backwards = parquet_file(t_s=-np.arange(250) / 100, **named)
    wrong_unit = parquet_file(timestamp=np.arange(250) * 5_000_000 + 1, **named)
    for media, reason in ((words, "not numbers"), (holes, "missing"), (backwards, "do not rise"), (wrong_unit, "unit")):
        with pytest.raises(DecodeError, match=reason):
            decode_imu(media)
    for bad in (np.zeros((5, 3)), np.zeros((0, 6)), np.zeros((5, 6), bool)):
        with pytest.raises(DecodeError, match=r"\(T, 6\)"):
            decode_imu(bad)
    for damaged in (csv_file(trace()) + b"\n1,2", sample_files("imu")["a.parquet"][:-20], npy_file(trace())[:90], b"a,b\n"):
        with pytest.raises(DecodeError):
            decode_imu(damaged)


def test_the_demo_encoder_takes_g_and_rad_per_second_at_100_hz() -> None:
    imu = build_encoder("demo/imu").preprocess(trace())["imu"]
    np.testing.assert_allclose(imu[2], 1.0, rtol=1e-5)
    np.testing.assert_allclose(imu[5], trace()[25:225, 5], atol=1e-5)


@pytest.mark.parametrize("rate_hz", [25.0, 50.0, 99.7, 200.0, 400.0])
def test_other_rates_are_brought_to_the_same_curve(rate_hz: float) -> None:
    def curve(at_hz: float) -> np.ndarray:
        time_s = np.arange(round(4 * at_hz)) / at_hz - 2
        return np.stack([np.sin(3 * time_s)] * 6, 1).astype(np.float32)

    fine = decode_imu((curve(100.0), 100.0)).middle(200, 100.0)
    np.testing.assert_allclose(decode_imu((curve(rate_hz), rate_hz)).middle(200, 100.0), fine, atol=0.08)


def test_a_finer_rate_is_averaged_and_not_aliased() -> None:
    buzz = np.repeat(np.sin(2 * np.pi * 105 * np.arange(2000) / 400)[:, None], 6, 1)  # would show as 5 Hz
    assert np.abs(decode_imu((buzz, 400.0)).middle(200, 100.0)).max() < 0.1


def test_a_short_trace_is_repeated_and_one_sample_is_enough() -> None:
    middle = decode_imu(trace()[:80]).middle(200, 100.0)
    np.testing.assert_allclose(middle[:80], trace()[:80], atol=1e-5)
    np.testing.assert_allclose(middle[80:160], trace()[:80], atol=1e-5)
    assert decode_imu(trace()[:1]).middle(200, 100.0).shape == (200, 6)


def test_facts_tell_the_duration_and_show_a_plot() -> None:
    facts = describe_imu(decode_imu(csv_file(trace())))
    assert (facts.mime, facts.duration_s) == ("text/csv", pytest.approx(2.5))
    assert facts.preview is not None
    assert len(facts.preview) <= 6 * 1024


def still(count: int = 250, gravity: float = 1.0) -> np.ndarray:
    """float64 (T, 6): gravity along z, a turn of 90 units around x."""
    return np.tile([0, 0, gravity, 90, 0, 0], (count, 1)).astype(np.float64)


@pytest.mark.parametrize(
    ("unit", "gravity", "rotation_unit"), [("m/s2", G, "rad/s"), ("g", 1.0, "deg/s"), ("mg", 1000.0, "deg/s"), ("g", 1.0, None)]
)
def test_declared_units_hold_whatever_columns_are_called(unit: str, gravity: float, rotation_unit: str | None) -> None:
    columns = ("ax_mps2", "ay_g", "az", "gx_radps", "gy_dps", "gz")
    for media in (csv_file(still(gravity=gravity), columns), npy_file(still(gravity=gravity)), still(gravity=gravity)):
        decoded = decode_imu(media, acceleration_unit=unit, rotation_unit=rotation_unit)
        np.testing.assert_allclose(decoded.samples[:, 2], G, rtol=1e-5)
        np.testing.assert_allclose(decoded.samples[:, 3], 90 * np.pi / 180 if rotation_unit == "deg/s" else 90, rtol=1e-5)


def test_an_acceleration_unit_is_inferred_from_gravity_and_refused_without_it() -> None:
    for gravity in (9.6, 1.05, 980.0):
        decoded = decode_imu(still(gravity=gravity), acceleration_unit="infer")
        np.testing.assert_allclose(decoded.samples[:, 2], G, rtol=0.1)
    np.testing.assert_allclose(
        decode_imu(csv_file(still(), ("ax_mps2", "ay", "az", "gx", "gy", "gz")), None, "infer").samples[:, 2], 1
    )
    for gravity in (0.0, 0.3, 3.0, 100.0):  # gravity taken off, or another unit
        with pytest.raises(DecodeError, match="gravity in none of m/s2, g, mg; declare acceleration_unit"):
            decode_imu(still(gravity=gravity), acceleration_unit="infer")


def test_a_declared_rate_holds_before_times_but_not_before_the_rate_given_with_an_array() -> None:
    assert decode_imu(csv_file(trace()), rate_hz=50.0).rate_hz == 50.0
    assert decode_imu(npy_file(trace()), rate_hz=50.0).rate_hz == 50.0
    assert decode_imu((trace(), 25.0), rate_hz=50.0).rate_hz == 25.0
    backwards = csv_file(trace(), NAMES, rate_hz=-100.0)
    with pytest.raises(DecodeError, match="do not rise"):
        decode_imu(backwards)


@pytest.mark.parametrize("rate_hz", [0.0, -5.0, float("nan"), float("inf"), 1e9])
def test_rates_that_no_sensor_has_are_refused(rate_hz: float) -> None:
    with pytest.raises(DecodeError, match="no rate of an IMU"):
        decode_imu((trace(), rate_hz))


def timed(times_s: np.ndarray) -> bytes:
    """A CSV whose acceleration along x is the time itself."""
    samples = np.zeros((len(times_s), 6))
    samples[:, 0] = times_s
    return csv_file(np.column_stack([times_s, samples]), ("t_s", "ax", "ay", "az", "gx", "gy", "gz"), rate_hz=None)


def test_uneven_times_are_brought_to_even_steps() -> None:
    uneven = np.cumsum(np.random.default_rng(0).uniform(0.002, 0.018, 500))
    decoded = decode_imu(timed(uneven), max_gap_s=0.25)
    steps = np.diff(decoded.samples[:, 0])
    np.testing.assert_allclose(steps, 1 / decoded.rate_hz, rtol=2e-3)
    assert decoded.duration_s == pytest.approx(uneven[-1] - uneven[0], abs=0.02)
    even = np.arange(500) / 100 + np.random.default_rng(0).uniform(-0.002, 0.002, 500)
    assert decode_imu(timed(even), max_gap_s=0.25).rate_hz == decode_imu(timed(even)).rate_hz  # a jitter moves nothing


def test_a_short_gap_is_bridged_and_a_long_one_named() -> None:
    times = np.arange(1000) / 100
    short = np.delete(times, slice(400, 415))
    np.testing.assert_allclose(np.diff(decode_imu(timed(short), max_gap_s=0.25).samples[:, 0]), 0.01, rtol=1e-3)
    long = np.delete(times, slice(400, 540))
    with pytest.raises(DecodeError, match=r"no samples for 1\.41 s after 3\.990 s, at most 0\.25 s are bridged"):
        decode_imu(timed(long), max_gap_s=0.25)
    assert decode_imu(timed(long), max_gap_s=2.0).duration_s == pytest.approx(10, abs=0.02)
    slow = np.arange(50) / 2  # every half second: no gap for a sensor of 2 Hz
    assert decode_imu(timed(slow), max_gap_s=0.25).rate_hz == 2.0


def test_times_in_bursts_do_not_make_a_grid_of_millions() -> None:
    bursts = np.sort(np.concatenate([np.arange(100) / 10 + k * 1e-6 for k in range(3)]))
    assert len(decode_imu(timed(bursts), max_gap_s=0.25).samples) < 1000


def test_times_that_are_missing_repeat_or_fall_are_refused() -> None:
    named = dict(zip(IMU_COLUMNS, trace().T, strict=True))
    for times in (np.full(250, 3.0), np.arange(250)[::-1], np.where(np.arange(250) == 7, np.nan, np.arange(250))):
        with pytest.raises(DecodeError, match="do not rise"):
            decode_imu(parquet_file(t_s=times.astype(float), **named))


def test_tabs_separate_columns_as_well_as_commas() -> None:
    np.testing.assert_array_equal(
        decode_imu(csv_file(trace()).replace(b",", b"\t")).samples, decode_imu(csv_file(trace())).samples
    )


@pytest.mark.parametrize("missing", range(6))
def test_every_missing_column_is_named(missing: int) -> None:
    kept = [k for k in range(6) if k != missing]
    with pytest.raises(DecodeError, match=f"no column for {NAMES[missing]};"):
        decode_imu(csv_file(trace()[:, kept], tuple(IMU_COLUMNS[k] for k in kept)))


def test_absurd_values_are_refused_before_they_become_infinite() -> None:
    for bad in (np.nan, -np.inf, 1e12, 1e300):
        samples = trace().astype(np.float64)
        samples[3, 1] = bad
        with pytest.raises(DecodeError, match="1 values of the trace"):
            decode_imu(samples)


def test_a_part_is_the_samples_of_its_time_and_shares_their_memory() -> None:
    whole = decode_imu((trace(1000), 100.0))
    part = whole.part(2.5, 4.0)
    assert part.duration_s == pytest.approx(1.5)
    np.testing.assert_array_equal(part.samples, trace(1000)[250:400])
    assert part.samples.base is not None
    assert np.shares_memory(part.samples, whole.samples)
    assert whole.part(9.0, 30.0).duration_s == pytest.approx(1.0)
    assert whole.part(-1.0, 1.0).duration_s == pytest.approx(1.0)
    assert len(whole.part(1.0, 1.0001).samples) == 1
    np.testing.assert_array_equal(np.concatenate([whole.part(k, k + 1).samples for k in range(10)]), whole.samples)
    for nothing in ((10.0, 11.0), (3.0, 3.0), (4.0, 3.0), (-2.0, -1.0)):
        with pytest.raises(ValueError, match="is no part of a trace of 10 s"):
            whole.part(*nothing)


def sine(hz: float, rate_hz: float, duration_s: float) -> np.ndarray:
    """float64 (T, 6): a tone whose samples stand in the middle of their time."""
    time_s = (np.arange(round(duration_s * rate_hz)) + 0.5) / rate_hz
    return np.repeat(np.sin(2 * np.pi * hz * time_s)[:, None], 6, 1)


@pytest.mark.parametrize("rate_hz", [20.0, 50.0, 99.7, 100.0, 200.0, 399.0, 400.0, 401.0, 512.0, 1000.0, 6400.0])
def test_a_tone_below_half_of_both_rates_survives_any_change_of_rate(rate_hz: float) -> None:
    tone_hz = 0.4 * min(rate_hz, 400.0)
    window = decode_imu((sine(tone_hz, rate_hz, 20.0), rate_hz)).window(2000, 400.0)
    first_s = 10.0 - 2000 / 400 / 2
    expected = np.sin(2 * np.pi * tone_hz * (first_s + (np.arange(2000) + 0.5) / 400))
    np.testing.assert_allclose(window[:, 0], expected, atol=0.02)


@pytest.mark.parametrize(
    ("rate_hz", "tone_hz"), [(1000.0, 205.0), (1000.0, 390.0), (1000.0, 450.0), (6400.0, 401.0), (512.0, 230.0)]
)
def test_a_tone_above_half_of_the_towers_rate_vanishes_and_is_not_heard_as_another(rate_hz: float, tone_hz: float) -> None:
    window = decode_imu((sine(tone_hz, rate_hz, 20.0), rate_hz)).window(2000, 400.0)
    assert np.abs(window).max() < 0.02


@pytest.mark.parametrize("rate_hz", [20.0, 99.7, 1000.0])
def test_what_stands_still_stays_exactly_so_at_any_rate(rate_hz: float) -> None:
    window = decode_imu((np.full((777, 6), G), rate_hz)).window(2000, 400.0)
    np.testing.assert_allclose(window, G, rtol=1e-6)


def test_five_seconds_at_100_hz_fill_the_window_of_2000_at_400_hz_and_shorter_traces_are_repeated() -> None:
    full = decode_imu((sine(3.0, 100.0, 5.0), 100.0)).window(2000, 400.0)
    assert not np.array_equal(full[0], full[-1])
    short = decode_imu((sine(3.0, 100.0, 1.0), 100.0)).window(2000, 400.0)
    np.testing.assert_array_equal(short[:400], short[400:800])
    np.testing.assert_allclose(short[20:380], full[20:380], atol=0.02)
    one = decode_imu((trace()[:1], 100.0)).window(2000, 400.0)
    np.testing.assert_allclose(one, np.tile(trace()[:1], (2000, 1)), rtol=1e-6)


def test_a_long_trace_of_a_fast_sensor_is_read_around_its_middle_only() -> None:
    ramp = np.repeat(np.arange(600_000.0)[:, None], 6, 1)
    window = decode_imu((ramp, 10_000.0)).window(2000, 400.0)
    np.testing.assert_allclose(window[:, 0], 300_000 - 0.5 + (np.arange(2000) - 999.5) * 25, rtol=1e-5)
