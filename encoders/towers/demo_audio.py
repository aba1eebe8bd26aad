"""Demo audio encoder: 2 s of sound -> log-mel, 64 bins x 96 frames -> vector.

S samples, M mel bins, T frames, B batch, D dim.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import torch

from encoders.blocks import ConvStem, TokenTower, size_named, sized
from encoders.encoder import Encoder, Feature, register
from encoders.media.audio import decode_audio, describe_audio
from encoders.media.types import Media
from encoders.training.augment import roll_time_and_pitch

DIM = 128
RATE_HZ = 16_000
DURATION_S = 2.0  # the middle of a longer sound; a shorter one is repeated
WINDOW, HOP = 512, 320  # samples; 32 ms and 20 ms
MELS, FRAMES = 64, 96  # frames 0 to 95 of the 101 in 2 s
LOWEST_HZ, HIGHEST_HZ = 40.0, 8_000.0
FLOOR = 1e-6  # added to the power before the logarithm
BLAS_ROWS = 12  # at a time: so small a product stays on one thread, where the idle ones would spin longer than it takes


@cache
def _mel_bank() -> np.ndarray:
    """float32 (WINDOW // 2 + 1, M): triangles on the 2595 log10(1 + f / 700) scale, each of sum 1."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST_HZ))
    edges_hz = 700 * (10 ** (np.linspace(low, high, MELS + 2) / 2595) - 1)
    bins_hz = np.fft.rfftfreq(WINDOW, 1 / RATE_HZ)[:, None]
    rising = (bins_hz - edges_hz[:-2]) / np.diff(edges_hz)[:-1]
    falling = (edges_hz[2:] - bins_hz) / np.diff(edges_hz)[1:]
    bank = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    return bank / (bank.sum(0) + FLOOR)  # type: ignore[no-any-return]


@cache
def _window() -> np.ndarray:
    return np.hanning(WINDOW).astype(np.float32)


def log_mel(wave_S: np.ndarray) -> np.ndarray:
    """2 s of mono float32 at 16 kHz -> float16 (M, T) of mean 0 and deviation 1 over the clip."""
    padded = np.pad(wave_S, WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:FRAMES]
    spectrum = np.fft.rfft(windows * _window(), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    rows = power.reshape(-1, BLAS_ROWS, power.shape[1]) @ _mel_bank()
    mel_MT = np.log(rows.reshape(FRAMES, MELS) + FLOOR).T
    return ((mel_MT - mel_MT.mean()) / (mel_MT.std() + 1e-5)).astype(np.float16)  # type: ignore[no-any-return]


def preprocess(media: Media) -> dict[str, np.ndarray]:
    """Anything `decode_audio` takes -> {"log_mel": float16 (64, 96)}."""
    return {"log_mel": log_mel(decode_audio(media).middle(DURATION_S, RATE_HZ).mean(0))}


class DemoAudioTower(TokenTower):
    """Conv stem over the spectrogram, 24 tokens, two blocks."""

    def __init__(self, size: str) -> None:
        s = size_named(size)
        super().__init__(
            ConvStem(1, s.stem, s.width), tokens=MELS // 16 * FRAMES // 16, width=s.width, depth=s.depth, dim=DIM, heads=s.heads
        )

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        """float16 (B, M, T) -> (B, D), not normalised."""
        return self.encode(log_mel.unsqueeze(1))


@register("demo/audio")
def demo_audio(size: str = "tiny") -> Encoder:
    """The demo world's audio encoder.

    Args:
        size: "tiny", "small" or "base" (encoders/blocks.py).
    """
    return Encoder(
        architecture="demo/audio",
        modality="audio",
        dim=DIM,
        settings=sized(size),
        features={"log_mel": Feature("float16", (MELS, FRAMES))},
        decode=decode_audio,
        preprocess=preprocess,
        describe=describe_audio,
        build_tower=partial(DemoAudioTower, size),
        augment=roll_time_and_pitch,
    )
