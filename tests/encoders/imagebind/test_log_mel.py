"""ImageBind's spectrograms: equal to a naive filter bank in float64, clip by clip, for any rate, channels and duration."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio.functional
from sample_media import sound_file, tone

from encoders.errors import DecodeError
from encoders.imagebind import log_mel
from encoders.imagebind.clips import Profile
from encoders.imagebind.log_mel import LogMel, clip_samples
from encoders.imagebind.preprocess import reference_input

CASES = [  # rate in Hz, channels, seconds
    (8_000, 1, 2.4),
    (11_025, 2, 3.7),
    (16_000, 8, 7.3),
    (22_050, 3, 1.3),
    (44_100, 2, 4.1),
    (48_000, 6, 6.4),
    (96_000, 1, 0.4),
    (192_000, 2, 2.0),
    (12_345, 1, 2.5),
    (16_000, 1, 0.0251),
]


def noisy(rate_hz: int, channels: int, seconds: float, offset: float = 0.0) -> np.ndarray:
    """float32 (C, S): each channel a tone of its own in noise, never silent."""
    random = np.random.default_rng(int(rate_hz + 10 * seconds))
    count = round(seconds * rate_hz)
    tones = np.stack([np.sin(2 * np.pi * 300 * (c + 1) * np.arange(count) / rate_hz) for c in range(channels)])
    return (0.2 * tones + 0.1 * random.normal(size=tones.shape) + offset).astype(np.float32)


def naive_mel(wave_S: np.ndarray) -> np.ndarray:
    """float64 (128, 204): the filter bank as it is described, frame by frame."""
    mel = lambda hz: 1127 * np.log(1 + hz / 700)  # noqa: E731
    edges = np.linspace(mel(20.0), mel(8000.0), 130)
    at = mel(np.arange(257) * 16_000 / 512)
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bank = np.clip(np.minimum((at - low) / (peak - low), (high - at) / (high - peak)), 0, None)[:, :256]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    out = np.zeros((128, 204))
    for t in range(min(204, max(0, 1 + (len(wave_S) - 400) // 160))):
        frame = wave_S[160 * t : 160 * t + 400].astype(np.float64)
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, 512)) ** 2
        out[:, t] = np.log(np.maximum(bank @ power[:256], 1.1920929e-07))
    return out


def naive_reference(wave_CS: np.ndarray, rate_hz: int) -> np.ndarray:
    """float64 (3, 1, 128, 204): the whole sound resampled, clips cut by exact fractions, means taken off in place."""
    wave = torchaudio.functional.resample(torch.from_numpy(wave_CS), rate_hz, 16_000).double().numpy()
    last = Fraction(max(wave.shape[1] / 16_000 - 2, 0))
    clips = []
    for k in range(3):
        start = last * k / 2
        clip_CS = wave[:, math.floor(start * 16_000) : math.floor((start + 2) * 16_000)]
        clip_CS -= clip_CS.mean()
        clips.append(naive_mel(clip_CS[0]))
    return (np.stack(clips)[:, None] + 4.268) / 9.138


def test_clips_begin_where_rounding_puts_them() -> None:
    assert clip_samples(65_600) == [(0, 32_000), (16_799, 48_799), (33_599, 65_599)]
    assert clip_samples(80_000) == [(0, 32_000), (24_000, 56_000), (48_000, 80_000)]
    assert clip_samples(41_764) == [(0, 32_000), (4_882, 36_882), (9_764, 41_764)]
    assert clip_samples(32_000) == clip_samples(100) == [(0, 32_000)] * 3


@pytest.mark.parametrize(("rate_hz", "channels", "seconds"), CASES)
def test_the_reference_is_the_naive_filter_bank(rate_hz: int, channels: int, seconds: float) -> None:
    wave_CS = noisy(rate_hz, channels, seconds)
    before = wave_CS.copy()
    made = reference_input("audio", (wave_CS, rate_hz)).numpy()
    np.testing.assert_array_equal(wave_CS, before)  # means are taken off a copy
    difference = np.abs(made - naive_reference(wave_CS, rate_hz))
    assert (made.dtype, made.shape) == (np.float32, (3, 1, 128, 204))
    assert difference.mean() < 1e-5
    assert difference.max() < 1e-3


def test_the_reference_leaks_the_mean_of_one_clip_into_the_next_and_bindery_does_not() -> None:
    wave_CS = noisy(16_000, 1, 3.0)
    wave_CS[:, :16_000] += 0.5  # an offset in the first clip's beginning
    difference = np.abs(reference_input("audio", (wave_CS, 16_000)).numpy() - naive_reference(wave_CS, 16_000))
    assert difference.max() < 1e-3
    clips = [wave_CS[0, first:end] for first, end in clip_samples(48_000)]
    wanted = np.stack([naive_mel(clip - clip.mean()) for clip in clips])[:, None]
    np.testing.assert_allclose(LogMel()((wave_CS, 16_000))["log_mel"], wanted, atol=1e-2)


def test_channels_are_mixed_down_in_bindery_and_dropped_in_the_reference() -> None:
    left, right = noisy(16_000, 2, 2.5)
    silent_left = np.stack([np.zeros_like(right), right])
    mixed = LogMel()((np.stack([left, right]), 16_000))["log_mel"]
    np.testing.assert_allclose(mixed, LogMel()(((left + right) / 2, 16_000))["log_mel"], atol=1e-3)
    assert LogMel("reference")((silent_left, 16_000))["log_mel"][..., :198].max() < -10
    np.testing.assert_allclose(LogMel()((silent_left, 16_000))["log_mel"], LogMel()((right / 2, 16_000))["log_mel"], atol=1e-5)


@pytest.mark.parametrize("count", [1, 160, 399, 400, 20_000, 31_999])
def test_a_sound_shorter_than_a_clip_is_repeated_in_bindery(count: int) -> None:
    wave_S = noisy(16_000, 1, 2.0)[0, :count]
    made = LogMel()((wave_S, 16_000))["log_mel"]
    np.testing.assert_array_equal(made, LogMel()((np.resize(wave_S, 32_000), 16_000))["log_mel"])
    assert np.isfinite(made).all()
    np.testing.assert_array_equal(made[0], made[2])


def test_under_25_ms_the_reference_refuses_and_short_sounds_end_in_zeros() -> None:
    with pytest.raises(DecodeError, match=r"0\.025 s"):
        LogMel("reference")((tone(0.0249), 16_000))
    made = LogMel("reference")((tone(1.0), 16_000))["log_mel"]
    assert made[..., :98].any(axis=(1, 2)).all()
    assert not made[..., 98:].any()


@pytest.mark.parametrize("profile", ["reference", "bindery"])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000, 12_345, 44_099])
def test_reading_only_the_clips_equals_reading_the_whole_sound(
    profile: str, rate_hz: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = sound_file("WAV", noisy(rate_hz, 2, 9.7).T, rate_hz, subtype="FLOAT")
    whole = LogMel(profile)(media)["log_mel"]  # type: ignore[arg-type]
    monkeypatch.setattr(log_mel, "AT_ONCE_S", 0.0)
    np.testing.assert_allclose(LogMel(profile)(media)["log_mel"], whole, atol=1e-3)  # type: ignore[arg-type]


def test_padding_is_zero_before_scaling_and_digital_silence_is_the_floor() -> None:
    made = reference_input("audio", (np.zeros(32_000, np.float32), 16_000)).numpy()
    assert made[..., 198:] == pytest.approx(0.46706, abs=1e-4)
    assert made[..., :198] == pytest.approx(-1.27756, abs=1e-4)


@pytest.mark.parametrize("profile", ["reference", "bindery"])
def test_of_two_hours_of_sound_only_the_clips_are_read(profile: Profile, tmp_path: Path) -> None:
    path, rate_hz = tmp_path / "long.wav", 48_000
    header = sound_file("WAV", np.zeros(1, np.float32), rate_hz, subtype="PCM_16")[:-2]
    size = 7_200 * rate_hz * 2
    path.write_bytes(header[:4] + (len(header) - 8 + size).to_bytes(4, "little") + header[8:-4] + size.to_bytes(4, "little"))
    with path.open("r+b") as file:
        file.truncate(len(header) + size)  # silence, and none of it on disk
        file.seek(len(header) + 3_599 * rate_hz * 2)
        file.write((noisy(rate_hz, 1, 2.0)[0] * 32_767).astype("<i2").tobytes())  # just where the second clip lies
    tracemalloc.start()
    made = LogMel(profile)(path)["log_mel"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000
    np.testing.assert_allclose(made[1], LogMel(profile)((noisy(rate_hz, 1, 2.0), rate_hz))["log_mel"][1], atol=0.5)
    assert made[0, ..., :198].max() == made[2, ..., :198].max() == pytest.approx(math.log(1.1920929e-07), abs=1e-3)
