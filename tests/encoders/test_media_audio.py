"""Sound: what libsndfile and FFmpeg read becomes float samples at a rate; what they cannot read is refused."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_media import sample_files, sound_file, tone, video_file

from encoders.encoder import build_encoder
from encoders.errors import DecodeError, TooLargeError
from encoders.media.audio import MAX_DURATION_S, decode_audio, describe_audio, resample
from encoders.towers.demo_audio import log_mel

SILENT = np.empty((0, 0, 0, 3), np.uint8)


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """The largest normalised correlation of two waveforms over shifts of up to 4,000 samples (codecs delay)."""
    count = min(len(a), len(b)) - 4000
    a = a[2000 : 2000 + count] / np.linalg.norm(a[2000 : 2000 + count])
    return max(float(a @ b[s : s + count] / np.linalg.norm(b[s : s + count])) for s in range(0, 4000, 4))


def test_pcm_formats_give_the_samples_that_were_written() -> None:
    stereo = np.stack([tone(), 0.5 * tone(hz=300)], 1)
    for kind, options in (("WAV", {"subtype": "FLOAT"}), ("WAV", {"subtype": "PCM_16"}), ("FLAC", {}), ("AIFF", {})):
        sound = decode_audio(sound_file(kind, stereo, 22_050, **options))
        assert (sound.rate_hz, sound.num_samples) == (22_050, len(stereo))
        np.testing.assert_allclose(sound.samples(), stereo.T, atol=1e-4)
        np.testing.assert_allclose(sound.samples(1000, 1100), stereo.T[:, 1000:1100], atol=1e-4)


@pytest.mark.parametrize("name", sorted(sample_files("audio")))
def test_every_format_sounds_like_what_was_written(name: str) -> None:
    sound = decode_audio(sample_files("audio")[name])
    assert sound.rate_hz == 16_000
    assert sound.duration_s == pytest.approx(2.5, abs=0.15)
    assert similarity(tone(), sound.samples()[0]) > 0.97


def test_the_sound_of_a_video_is_a_sound_and_a_silent_video_has_none() -> None:
    sound = decode_audio(video_file(sound=tone()))
    assert similarity(tone(), sound.samples()[0]) > 0.97
    with pytest.raises(DecodeError, match="no sound"):
        decode_audio(video_file())


@pytest.mark.parametrize("kind", ["ipod", "matroska"])
def test_a_part_of_a_long_recording_equals_that_part_of_the_whole(kind: str) -> None:
    time_s = np.arange(60 * 16_000) / 16_000
    sweep = (0.5 * np.sin(2 * np.pi * (100 + 20 * time_s) * time_s)).astype(np.float32)
    sound = decode_audio(video_file(kind, frames=SILENT, sound=sweep))
    whole = sound.samples()[0]
    for first in (0, 5_000, 400_000, 900_000):
        part = sound.samples(first, first + 16_000)[0]
        np.testing.assert_allclose(part, whole[first : first + 16_000], atol=0.02)


def test_arrays_come_with_their_rate() -> None:
    for wave in (tone(), tone()[None], (tone() * 32_768).astype(np.int16)):
        np.testing.assert_allclose(decode_audio((wave, 16_000)).samples()[0], tone(), atol=1e-4)
    with pytest.raises(DecodeError, match="sample_rate_hz"):
        decode_audio(tone())
    with pytest.raises(DecodeError, match=r"\(channels, S\)"):
        decode_audio((np.zeros((2, 3, 4)), 16_000))


def test_no_samples_no_numbers_and_no_rate_are_refused() -> None:
    bad = tone()
    bad[1000] = np.nan
    for media in (sound_file("WAV", bad, 16_000, subtype="FLOAT"), (bad, 16_000)):
        with pytest.raises(DecodeError, match="NaN"):
            decode_audio(media).samples()
    for media in (sound_file("WAV", np.zeros(0, np.float32), 16_000), (np.zeros(0, np.float32), 16_000)):
        with pytest.raises(DecodeError, match="no samples"):
            decode_audio(media)
    with pytest.raises(DecodeError, match="rate"):
        decode_audio((tone(), 0))


def test_a_sound_beyond_the_limit_is_too_large() -> None:
    with pytest.raises(TooLargeError, match="split"):
        decode_audio((np.zeros(round(MAX_DURATION_S) * 1000 + 1000, np.int8), 1000))


def test_truncated_and_damaged_files_are_shorter_or_refused_but_nothing_else_is_raised() -> None:
    random = np.random.default_rng(2)
    for name, media in sample_files("audio").items():
        for keep in (len(media) // 2, 60):
            try:
                assert decode_audio(media[:keep]).samples().shape[1] < 45_000, name
            except DecodeError as error:
                assert str(error)
        for _ in range(20):
            damaged = bytearray(media)
            for at in random.integers(0, min(len(media), 400), 8):
                damaged[at] = random.integers(256)
            try:
                decode_audio(bytes(damaged)).samples(0, 20_000)
            except (DecodeError, TooLargeError) as error:
                assert str(error)


def test_resampling_keeps_a_tone_at_its_pitch_and_its_length() -> None:
    for rate_hz in (8_000, 11_025, 44_100, 48_000, 44_099):
        wave = resample(tone(2.0, rate_hz)[None], rate_hz, 16_000)[0]
        assert len(wave) == pytest.approx(32_000, abs=20)
        spectrum = np.abs(np.fft.rfft(wave))
        assert np.argmax(spectrum) * 16_000 / len(wave) == pytest.approx(440, abs=1)


def test_the_middle_of_a_long_sound_is_taken_and_a_short_one_is_repeated() -> None:
    ramp = np.arange(10 * 16_000, dtype=np.float32) / 160_000
    np.testing.assert_array_equal(decode_audio((ramp, 16_000)).middle(2.0, 16_000)[0], ramp[64_000:96_000])
    short = ramp[:20_000]
    np.testing.assert_array_equal(decode_audio((short, 16_000)).middle(2.0, 16_000)[0], np.concatenate([short, short[:12_000]]))
    assert decode_audio((tone(0.01, 44_100), 44_100)).middle(2.0, 16_000).shape == (1, 32_000)


def test_two_seconds_of_a_long_recording_cost_few_reads(tmp_path: Path) -> None:
    path = tmp_path / "long.m4a"
    path.write_bytes(video_file("ipod", frames=SILENT, sound=tone(120.0)))

    class Counting(io.FileIO):
        taken = 0

        def read(self, size: int = -1, /) -> bytes:
            data = super().read(size) or b""
            Counting.taken += len(data)
            return data

    with Counting(path) as file:
        decode_audio(file).middle(2.0, 16_000)
    assert Counting.taken < path.stat().st_size / 2


def test_log_mel_finds_a_tone_in_its_band_whatever_its_loudness() -> None:
    preprocess = build_encoder("demo/audio").preprocess
    loud, quiet = tone(2.0), 0.1 * tone(2.0)
    mel = preprocess((loud, 16_000))["log_mel"].astype(np.float32)
    band = mel.mean(1).argmax()
    edges_hz = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([40, 8000]) / 700)), 66) / 2595) - 1)
    assert edges_hz[band] < 440 < edges_hz[band + 2]
    assert (mel.mean(), mel.std()) == (pytest.approx(0, abs=1e-2), pytest.approx(1, abs=1e-2))
    assert np.corrcoef(mel.ravel(), preprocess((quiet, 16_000))["log_mel"].astype(np.float32).ravel())[0, 1] > 0.9
    assert np.isfinite(log_mel(np.zeros(32_000, np.float32))).all()


def test_facts_tell_the_duration_and_show_the_waveform() -> None:
    facts = describe_audio(decode_audio(sound_file("FLAC", tone(40.0), 16_000)))
    assert (facts.mime, facts.duration_s) == ("audio/flac", 40.0)
    assert facts.preview is not None
    drawn = np.asarray(Image.open(io.BytesIO(facts.preview)).convert("L")).astype(int)
    ink = (drawn < 170).sum(0)
    assert ink[100:120].mean() > 1.5 * ink[5:25].mean()  # the tone grows louder


def test_a_part_is_a_sound_of_that_stretch_and_parts_of_parts_too() -> None:
    ramp = np.arange(10 * 16_000, dtype=np.float32) / 160_000
    part = decode_audio((ramp, 16_000)).part(2.0, 5.0)
    assert (part.duration_s, part.rate_hz) == (3.0, 16_000)
    np.testing.assert_array_equal(part.samples()[0], ramp[32_000:80_000])
    np.testing.assert_array_equal(part.part(1.0, 99.0).samples(8_000)[0], ramp[56_000:80_000])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)).middle(1.0, 16_000)[0], ramp[48_000:64_000])
    assert describe_audio(part).duration_s == 3.0
    with pytest.raises(DecodeError, match="no samples"):
        part.part(3.0, 4.0)


@pytest.mark.parametrize("name", sorted(sample_files("audio")))
def test_a_part_of_a_file_is_that_stretch_of_its_samples(name: str) -> None:
    sound = decode_audio(sample_files("audio")[name])
    whole = sound.samples()
    np.testing.assert_allclose(sound.part(1.0, 1.5).samples(), whole[:, 16_000:24_000], atol=0.02)


@pytest.mark.parametrize("opened", [False, True])
def test_a_part_of_two_hours_of_pcm_reads_little_more_than_itself(opened: bool, tmp_path: Path) -> None:
    rate_hz, seconds = 44_100, 7_200
    path = tmp_path / "long.wav"
    size = rate_hz * seconds * 2 * 2
    header = sound_file("WAV", np.zeros((0, 2), np.float32), rate_hz, subtype="PCM_16")
    at = header.index(b"data") + 4
    with path.open("wb") as file:
        file.write(header[:4] + (len(header) - 8 + size).to_bytes(4, "little") + header[8:at] + size.to_bytes(4, "little"))
        file.truncate(at + 4 + size)  # silence, 1.3 GB of it, and none on disk
        file.seek(at + 4 + 3_600 * rate_hz * 4)
        file.write(np.full(rate_hz * 4, 16_384, "<i2").tobytes())  # two seconds in the middle
    tracemalloc.start()
    if opened:
        with path.open("rb") as file:
            part = decode_audio(file).part(3_600, 3_602)
            wave_CS = part.samples()
    else:
        part = decode_audio(path).part(3_600, 3_602)
        wave_CS = part.samples()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert wave_CS.shape == (2, 2 * rate_hz)
    assert wave_CS.min() == wave_CS.max() == 0.5
    assert peak < 10 * wave_CS.nbytes


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_store_that_fails_while_a_sound_is_read_is_no_damaged_sound(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(sound_file("WAV", tone(60.0), 16_000))

    class Failing(io.FileIO):
        away = False

        def read(self, size: int = -1, /) -> bytes:
            if self.away:
                raise ConnectionResetError("the store is away")
            return super().read(size) or b""

    with Failing(path) as file:
        sound = decode_audio(file)
        assert sound.samples(0, 16_000).shape == (1, 16_000)
        file.away = True
        with pytest.raises(OSError, match="on the way"):
            sound.samples(800_000, 816_000)
        file.away = False
        np.testing.assert_array_equal(sound.samples(800_000, 816_000), decode_audio(path).samples(800_000, 816_000))
