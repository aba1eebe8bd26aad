"""Sounds for ImageBind's audio tower. In: media. Out: log-mel energies of three clips of 2 s, not yet scaled.

C channels, S samples, M mel bins, T frames of a spectrogram (10 ms).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torchaudio.compliance import kaldi
from torchaudio.transforms import Resample

from encoders.errors import DecodeError
from encoders.imagebind.clips import CLIP_S, Profiled, clip_starts
from encoders.media.audio import RATE_GRID_HZ, Sound, decode_audio
from encoders.media.types import Media

RATE_HZ = 16_000
AUDIO_CLIPS = 3
MEL_BINS, MEL_FRAMES = 128, 204
SHORTEST_S = 0.025  # one window of the filter bank
AT_ONCE_S = 30.0  # a sound no longer than this is read whole; of longer ones only the clips are read
_FILTER_REACH = 8  # samples, of the slower rate, that the resampling filter looks ahead and back: 6 / 0.99, rounded up
_MAX_TAPS = 1 << 24  # of that filter, 64 MiB


@dataclass(frozen=True)
class LogMel(Profiled):
    """Log-mel energies of three clips of 2 s. Holds settings only."""

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """Anything `decode_audio` takes -> {"log_mel": float32 (3, 1, 128, 204)}; frames that a clip does not fill are 0.

        Raises:
            MediaError: damaged, no samples, NaN; with profile "reference", shorter than 25 ms.
        """
        clips = _clips(decode_audio(media))
        if clips[-1].shape[1] == 0:
            raise DecodeError("the sound ends long before its header says: cut off; copy the file again")
        if self.exact and clips[-1].shape[1] < SHORTEST_S * RATE_HZ:
            raise DecodeError(f"the reference takes no sound under {SHORTEST_S} s; use profile 'bindery', which repeats it")
        spectra = [_log_mel(_first_channel(clip_CS) if self.exact else _mono(clip_CS)) for clip_CS in clips]
        return {"log_mel": torch.stack(spectra)[:, None].numpy()}


def clip_samples(count: int) -> list[tuple[int, int]]:
    """The three clips of a sound of `count` samples at 16 kHz, as (first, end) samples; the end may lie beyond."""
    starts = clip_starts(count / RATE_HZ, AUDIO_CLIPS)
    return [(math.floor(start * RATE_HZ), math.floor((start + Fraction(CLIP_S)) * RATE_HZ)) for start in starts]


def _clips(sound: Sound) -> list[torch.Tensor]:
    """The clips at 16 kHz, float32 (C, S) each; of a short sound they are views that share samples where they overlap."""
    rate_hz = _nominal_rate(sound.rate_hz)
    ranges = clip_samples(-(-sound.num_samples * RATE_HZ // rate_hz))
    if sound.duration_s > AT_ONCE_S:
        return [_stretch(sound, rate_hz, first, end) for first, end in ranges]
    wave_CS = _resampled(sound.samples(), rate_hz)
    return [wave_CS[:, first:end] for first, end in ranges]


def _stretch(sound: Sound, rate_hz: int, first: int, end: int) -> torch.Tensor:
    """Samples `first` to `end` at 16 kHz out of a long sound, the same as if all of it had been resampled."""
    common = math.gcd(rate_hz, RATE_HZ)
    step, new_step = rate_hz // common, RATE_HZ // common  # the filter turns so many samples into so many
    ahead = -(-_FILTER_REACH * max(rate_hz, RATE_HZ) // (RATE_HZ * step))
    block = max(0, first // new_step - ahead)
    samples = sound.samples(block * step, (-(-end // new_step) + ahead) * step)
    return _resampled(samples, rate_hz)[:, first - block * new_step : end - block * new_step]


def _nominal_rate(rate_hz: int) -> int:
    """The rate; one that would need too large a filter counts as its neighbour on RATE_GRID_HZ."""
    common = math.gcd(rate_hz, RATE_HZ)
    affordable = (rate_hz // common) * (RATE_HZ // common) <= _MAX_TAPS
    return rate_hz if affordable else max(1, round(rate_hz / RATE_GRID_HZ)) * RATE_GRID_HZ


def _resampled(wave_CS: np.ndarray, rate_hz: int) -> torch.Tensor:
    """At 16 kHz, as a copy."""
    return _resampler(rate_hz)(torch.tensor(wave_CS)).clone()  # type: ignore[no-any-return]


@lru_cache(maxsize=8)
def _resampler(rate_hz: int) -> torch.nn.Module:
    return Resample(rate_hz, RATE_HZ, dtype=torch.float32)  # type: ignore[no-any-return]  # the filter as `functional` makes it


def _first_channel(clip_CS: torch.Tensor) -> torch.Tensor:
    """The first channel less the mean of all, subtracted in place: clips that overlap see what was done to those before."""
    clip_CS -= clip_CS.mean()
    return clip_CS[:1]


def _mono(clip_CS: torch.Tensor) -> torch.Tensor:
    """All channels mixed, repeated until the clip is full: silence, let alone the zeros behind it, would be louder."""
    mono_1S = clip_CS.mean(0, keepdim=True)
    wanted = round(CLIP_S * RATE_HZ)
    filled_1S = mono_1S[:, torch.arange(wanted) % mono_1S.shape[1]] if mono_1S.shape[1] < wanted else mono_1S
    return filled_1S - filled_1S.mean()


def _log_mel(wave_1S: torch.Tensor) -> torch.Tensor:
    """float32 (M, T): Kaldi's filter banks, 25 ms windows every 10 ms; zeros where there is no sound left."""
    mel_TM = kaldi.fbank(wave_1S, sample_frequency=RATE_HZ, num_mel_bins=MEL_BINS, window_type="hanning", dither=0.0)
    return F.pad(mel_TM.T, (0, MEL_FRAMES - len(mel_TM)))  # a negative padding cuts
