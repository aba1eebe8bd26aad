"""Audio: WAV, FLAC, OGG, MP3, M4A, the sound of an MP4, ... bytes, files, URIs, arrays -> a sound -> samples, facts.

Samples are decoded when asked for, so that two seconds of a long recording cost two seconds.  C channels, S samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial

import av
import av.audio
import av.container
import numpy as np
import soundfile
import torch
import torchaudio.transforms

from encoders.errors import DecodeError, TooLargeError
from encoders.media.containers import open_container
from encoders.media.previews import PLOT_SIZE, wave_preview
from encoders.media.sniff import HEAD_BYTES, sniff
from encoders.media.sound_files import SEEK_MARGIN_S, SOUNDFILE_MAGIC, SoundFileReader
from encoders.media.types import Facts, Media, read_head

MAX_DURATION_S = 24 * 3600.0
MAX_CHANNELS = 64
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1_000, 768_000
RATE_GRID_HZ = 25  # resampling treats a rate as the nearest multiple: an odd one would need a filter of gigabytes
WHOLE_PREVIEW_S = 30.0  # a longer sound is drawn from glimpses
GLIMPSES = 32
GLIMPSE_S = 0.02

Read = Callable[[int, int], np.ndarray]  # (first, end) in samples -> float32 (C, S), S less than asked for at the end


class Sound:
    """A sound whose samples are decoded when asked for.

    Attributes:
        rate_hz: samples a second.
        num_samples: S, of the whole sound.
        mime: MIME type of the file; None for one that never was a file.
    """

    def __init__(self, read: Read, rate_hz: int, num_samples: int, mime: str | None) -> None:
        self._read = read
        self.rate_hz, self.num_samples, self.mime = rate_hz, num_samples, mime
        if num_samples < 1:
            raise DecodeError("the sound has no samples; record it again or remove it")
        if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
            raise DecodeError(f"{rate_hz} samples a second is no rate of a sound; write the file again")
        if self.duration_s > MAX_DURATION_S:
            raise TooLargeError(f"{self.duration_s:,.0f} s of sound, at most {MAX_DURATION_S:,.0f} s are taken; split it")

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return self.num_samples / self.rate_hz

    def samples(self, first: int = 0, end: int | None = None) -> np.ndarray:
        """float32 (C, S), nominally in [-1, 1], of samples `first` up to `end`; all by default.

        Raises:
            DecodeError: nothing can be decoded there, or a sample is no number.
        """
        wave_CS = self._read(first, min(self.num_samples if end is None else end, self.num_samples))
        if not wave_CS.size:
            raise DecodeError(f"no sound can be decoded from sample {first:,} on: damaged or cut off; write the file again")
        if not np.isfinite(wave_CS).all():
            raise DecodeError(f"{int((~np.isfinite(wave_CS)).sum()):,} samples are NaN or infinite; export the sound again")
        return wave_CS

    def part(self, start_s: float, end_s: float) -> Sound:
        """The stretch between two times in seconds, as far as the sound goes; a view, nothing is decoded yet.

        Raises:
            DecodeError: there is no sample in it.
        """
        first, end = (round(max(0.0, min(s, self.duration_s)) * self.rate_hz) for s in (start_s, end_s))
        return Sound(partial(_shifted, self._read, first), self.rate_hz, end - first, self.mime)

    def middle(self, duration_s: float, rate_hz: int) -> np.ndarray:
        """float32 (C, duration_s * rate_hz) from the middle of the sound, resampled; a shorter sound is repeated."""
        wanted = round(duration_s * self.rate_hz)
        first = max(0, (self.num_samples - wanted) // 2)
        wave_CS = resample(self.samples(first, first + wanted), self.rate_hz, rate_hz)
        count = round(duration_s * rate_hz)
        return wave_CS[:, np.arange(count) % wave_CS.shape[1]] if wave_CS.shape[1] < count else wave_CS[:, :count]


def decode_audio(media: Media) -> Sound:
    """Bytes, pathlib.Path, URI or open binary file; numpy or torch (S,) or (C, S) with its rate: (waveform, sample_rate_hz).

    Raises:
        DecodeError: no sound that libsndfile or FFmpeg can read, no samples, damaged.
        TooLargeError: longer than MAX_DURATION_S.
    """
    if isinstance(media, Sound):
        return media
    if isinstance(media, tuple):
        return _from_array(np.asarray(media[0]), int(media[1]))
    if isinstance(media, np.ndarray):
        raise DecodeError("a waveform needs its rate: pass (waveform, sample_rate_hz)")
    head = read_head(media, HEAD_BYTES)
    mime = sniff(head, "").mime
    if head.startswith(SOUNDFILE_MAGIC) and head[8:12] != b"AVI ":
        with suppress(soundfile.LibsndfileError):  # a WAV of a rare codec, an OGG of video: FFmpeg may know it
            return _from_soundfile(media, mime)
    return _from_container(media, mime)


def describe_audio(sound: Sound) -> Facts:
    """Duration, type and a picture of the waveform."""
    lowest, highest = _envelope(sound, PLOT_SIZE[0])
    return Facts(mime=sound.mime, duration_s=sound.duration_s, preview=wave_preview(lowest, highest))


def resample(wave_CS: np.ndarray, rate_hz: int, new_rate_hz: int) -> np.ndarray:
    """float32 (C, S) at another rate, through a windowed sinc filter."""
    on_grid_hz = max(1, round(rate_hz / RATE_GRID_HZ)) * RATE_GRID_HZ
    if on_grid_hz == new_rate_hz:
        return wave_CS
    return _resampler(on_grid_hz, new_rate_hz)(torch.from_numpy(wave_CS)).numpy()  # type: ignore[no-any-return]


@cache
def _resampler(rate_hz: int, new_rate_hz: int) -> torch.nn.Module:
    return torchaudio.transforms.Resample(rate_hz, new_rate_hz)  # type: ignore[no-any-return]


def _envelope(sound: Sound, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest sample in each of `columns` parts of the sound."""
    if sound.duration_s <= WHOLE_PREVIEW_S:
        mono_S = sound.samples().mean(0)
        edges = np.linspace(0, sound.num_samples, columns + 1).astype(int)
        parts = [mono_S[a : max(b, a + 1)] for a, b in itertools.pairwise(edges)]
        parts = [part if part.size else mono_S[-1:] for part in parts]
    else:
        glimpse = round(GLIMPSE_S * sound.rate_hz)
        starts = np.linspace(0, sound.num_samples - glimpse, GLIMPSES).astype(int)
        glimpses = [sound.samples(start, start + glimpse).mean(0) for start in starts]
        parts = [glimpses[column * GLIMPSES // columns] for column in range(columns)]
    return np.array([part.min() for part in parts]), np.array([part.max() for part in parts])


def _from_array(wave: np.ndarray, rate_hz: int) -> Sound:
    wave_CS = wave[None] if wave.ndim == 1 else wave
    if wave_CS.ndim != 2 or wave_CS.dtype.kind not in "fi" or wave_CS.shape[0] > MAX_CHANNELS:
        raise DecodeError(f"a waveform is (S,) or (channels, S) of float in [-1, 1] or int16, not {wave.dtype} {wave.shape}")
    wave_CS = _to_float(wave_CS)
    return Sound(partial(_slice, wave_CS), rate_hz, wave_CS.shape[1], None)


def _slice(wave_CS: np.ndarray, first: int, end: int) -> np.ndarray:
    return wave_CS[:, first:end]


def _to_float(wave: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1] of any of FFmpeg's sample types."""
    if wave.dtype == np.uint8:
        return (wave.astype(np.float32) - 128) / 128
    if wave.dtype.kind == "i":
        return wave.astype(np.float32) / -float(np.iinfo(wave.dtype).min)
    return np.ascontiguousarray(wave, np.float32)


def _shifted(read: Read, by: int, first: int, end: int) -> np.ndarray:
    return read(first + by, end + by)


def _from_soundfile(media: Media, mime: str | None) -> Sound:
    reader = SoundFileReader(media)
    return Sound(reader, reader.file.samplerate, reader.file.frames, mime)


def _from_container(media: Media, mime: str | None) -> Sound:
    with open_container(media) as container:
        stream = _audio_stream(container)
        rate_hz = stream.codec_context.sample_rate
        seconds = _duration_s(container, stream)
        if not rate_hz:
            raise DecodeError("the sound has no rate: the file is damaged; write it again")
    return Sound(partial(_read_container, media, rate_hz), rate_hz, round(seconds * rate_hz), mime)


def _audio_stream(container: av.container.InputContainer) -> av.audio.AudioStream:
    if not container.streams.audio:
        raise DecodeError("the file has no sound; a silent video is embedded as video")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise DecodeError("the sound is in no codec that FFmpeg knows here; export it as WAV or FLAC")
    stream.codec_context.thread_count = 1
    return stream


def _duration_s(container: av.container.InputContainer, stream: av.audio.AudioStream) -> float:
    """Of the stream, else of the container, else by reading every packet."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return float(container.duration / av.time_base)
    last = max((p.pts + (p.duration or 0) for p in container.demux(stream) if p.pts is not None), default=0)
    return float((last - (stream.start_time or 0)) * (stream.time_base or 0))


def _read_container(media: Media, rate_hz: int, first: int, end: int) -> np.ndarray:
    """Samples `first` to `end`, placed by their time stamps; gaps are silent."""
    with open_container(media) as container:
        stream = _audio_stream(container)
        origin, unit_s = stream.start_time or 0, float(stream.time_base or 1 / rate_hz)
        if first > SEEK_MARGIN_S * rate_hz:
            container.seek(int((first / rate_hz - SEEK_MARGIN_S) / unit_s) + origin, stream=stream)
        wave_CS, reached = np.empty((0, 0), np.float32), first
        for frame in container.decode(stream):
            chunk_CS = _planar(frame)
            start = round(((frame.pts or 0) - origin) * unit_s * rate_hz)
            if not wave_CS.size:
                wave_CS = np.zeros((len(chunk_CS), end - first), np.float32)
            low, high = max(start, first), min(start + chunk_CS.shape[1], end)
            if low < high and len(chunk_CS) == len(wave_CS):
                wave_CS[:, low - first : high - first] = chunk_CS[:, low - start : high - start]
                reached = max(reached, high)
            if start >= end:
                break
        return wave_CS[:, : reached - first]


def _planar(frame: av.AudioFrame) -> np.ndarray:
    try:
        values = frame.to_ndarray()
    except ValueError as error:
        raise DecodeError(f"samples of type {frame.format.name} are not taken; export 16-bit or float samples") from error
    channels = len(frame.layout.channels)
    return _to_float(values if frame.format.is_planar else values.reshape(-1, channels).T)
