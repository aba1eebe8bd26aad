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
