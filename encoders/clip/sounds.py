"""Sounds the way CLAP and PE-AV prepare them. In: a sound. Out: log-mel spectrograms, or samples with their count.

Where the libraries draw a part of a longer sound by chance, the middle is taken, so that a sound has one vector.
S samples, T frames, M mel bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import torchaudio.functional

from encoders.errors import DecodeError
from encoders.media.audio import decode_audio, resample
from encoders.media.types import Media

FLOOR = 1e-10  # of the power, before the logarithm
SILENCE_DB = -100.0  # 10 log10(FLOOR): the features' zero
ROWS = 4096  # windows at a time
MIN_SHARE = 0.5  # of a sound's promised length that must be there where all of it is wanted


@dataclass(frozen=True)
class ClapMel:
    """Preprocess of CLAP: {"log_mel": float32 (1, T, M)} in dB above silence; with fusion (4, T, M) and {"longer": int64 ()}.

    Attributes:
        rate_hz, samples: of the window that the tower sees (48,000 and ten seconds of it).
        window, hop: of the spectrogram, in samples.
        mels, lowest_hz, highest_hz: of the filters.
        fusion: four spectrograms: the whole sound shrunk to T frames, and three windows (front, middle, back). A sound that
            fits is given four times, with `longer` 0 (transformers draws one of each batch and marks it 1, which is left out).
        fill: a shorter sound is repeated whole times, then followed by silence ("repeatpad"), repeated and cut ("repeat"), or
            followed by silence ("pad").
    """

    rate_hz: int
    samples: int
    window: int
    hop: int
    mels: int
    lowest_hz: float
    highest_hz: float
    fusion: bool
    fill: Literal["repeatpad", "repeat", "pad"] = "repeatpad"

    @property
    def frames(self) -> int:
        """T."""
        return self.samples // self.hop + 1

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """Anything `decode_audio` takes; channels are averaged. With fusion all of it is read.

        Raises:
            DecodeError: damaged; with fusion, cut off before half of its promised length.
        """
        sound = decode_audio(media)
        wanted = round(self.samples / self.rate_hz * sound.rate_hz)
        first = 0 if self.fusion else max(0, (sound.num_samples - wanted) // 2)
        end = None if self.fusion else first + wanted
        wave_CS = sound.samples(first, end)
        if self.fusion and wave_CS.shape[1] < MIN_SHARE * sound.num_samples:
            found_s = wave_CS.shape[1] / sound.rate_hz
            raise DecodeError(f"the sound ends at {found_s:.1f} s of {sound.duration_s:.1f} s: cut off; copy the file again")
        wave_S = resample(wave_CS, sound.rate_hz, self.rate_hz).mean(0)
        if not self.fusion:
            return {"log_mel": self._log_mel(self._filled(wave_S[: self.samples]))[None]}
        mel_TM = self._log_mel(self._filled(wave_S))
        longer = len(mel_TM) > self.frames
        mels = self._glimpses(mel_TM) if longer else [mel_TM] * 4
        return {"log_mel": np.stack(mels), "longer": np.array(longer, np.int64)}

    def _filled(self, wave_S: np.ndarray) -> np.ndarray:
        if self.fill != "pad" and len(wave_S) < self.samples:
            wave_S = np.tile(wave_S, self.samples // len(wave_S) + (self.fill == "repeat"))[: self.samples]
        return np.pad(wave_S, (0, max(0, self.samples - len(wave_S))))

    def _log_mel(self, wave_S: np.ndarray) -> np.ndarray:
        """float32 (T, M): 10 log10 of the mel power above silence; windows centred on multiples of the hop, edges mirrored."""
        padded = np.pad(wave_S, self.window // 2, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.window)[:: self.hop]
        hann = np.hanning(self.window + 1)[:-1]
        bank = _mel_bank(self.window, self.mels, self.lowest_hz, self.highest_hz, self.rate_hz, not self.fusion)
        power = [np.abs(np.fft.rfft(windows[row : row + ROWS] * hann)) ** 2 @ bank for row in range(0, len(windows), ROWS)]
        log_mel = 10 * np.log10(np.maximum(np.concatenate(power), FLOOR)) - SILENCE_DB
        return log_mel.astype(np.float32)  # type: ignore[no-any-return]

    def _glimpses(self, mel_TM: np.ndarray) -> list[np.ndarray]:
        """The whole, shrunk, then the middle window of each third of the places where one can begin."""
        whole = torch.from_numpy(mel_TM)[None, None]
        shrunk = F.interpolate(whole, size=(self.frames, self.mels), mode="bilinear", align_corners=False)[0, 0].numpy()
        thirds = np.array_split(np.arange(len(mel_TM) - self.frames + 1), 3)
        starts = [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]
        return [shrunk, *(mel_TM[start : start + self.frames] for start in starts)]


@dataclass(frozen=True)
class PeWave:
    """Preprocess of PE-AV: {"wave": float32 (1, S), "samples": int64 ()}: mono, filled up with silence.

    Attributes:
        rate_hz: of the samples.
        hop: the tower's step in samples; the sound is mirrored at its end to a whole number of steps.
        steps: S in steps; of a longer sound the middle is taken.
    """

    rate_hz: int
    hop: int
    steps: int

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """Anything `decode_audio` takes; channels are averaged."""
        sound, room = decode_audio(media), self.steps * self.hop
        wanted = round(room / self.rate_hz * sound.rate_hz)
        first = max(0, (sound.num_samples - wanted) // 2)
        wave_S = resample(sound.samples(first, first + wanted), sound.rate_hz, self.rate_hz).mean(0)[:room]
        if rest := -len(wave_S) % self.hop:
            wave_S = np.pad(wave_S, (0, rest), mode="reflect")
        samples = np.array(len(wave_S), np.int64)
        return {"wave": np.pad(wave_S, (0, room - len(wave_S)))[None].astype(np.float32), "samples": samples}


@cache
def _mel_bank(window: int, mels: int, lowest_hz: float, highest_hz: float, rate_hz: int, slaney: bool) -> np.ndarray:
    """float64 (window // 2 + 1, M): triangles on Slaney's scale, each of area 1, or on HTK's, each of height 1."""
    norm, scale = ("slaney", "slaney") if slaney else (None, "htk")
    bank = torchaudio.functional.melscale_fbanks(window // 2 + 1, lowest_hz, highest_hz, mels, rate_hz, norm, scale)
    return bank.double().numpy()  # type: ignore[no-any-return]
