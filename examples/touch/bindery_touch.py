"""Touch: what a finger pad feels that slides over a thing for a second -> 3 x 512 -> vector.

An eighth modality in one file: how its files are told, read, shown and embedded. It works from an installed package (this
folder has a `pyproject.toml`) and as a file of `encoders/towers/` alike. A `.touch` file is `BTOUCH`, the number of channels
(uint16), samples a second (float32), then float32 samples, a row of channels after the other; all little-endian.

T samples, C channels (force across and along the surface in N, shaking in m/s^2), B batch, D dimension.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from encoders.blocks import SeriesStem, TokenTower
from encoders.encoder import Encoder, Feature, register
from encoders.errors import DecodeError
from encoders.media.previews import series_preview
from encoders.media.series import resampled
from encoders.media.sniff import recognise
from encoders.media.types import Facts, Media, read_media
from encoders.training.augment import roll_time

MAGIC, MIME, SUFFIX = b"BTOUCH", "application/x-touch", ".touch"
HEADER = struct.Struct("<6sHf")
CHANNELS = 3
RATE_HZ = 512.0  # the tower's
SAMPLES = 512  # 1 s: the beginning of a longer trace; a shorter one is repeated
WIDTH, DEPTH = 128, 2

recognise("touch", MIME, magic=[MAGIC], extensions=[SUFFIX])


@dataclass(frozen=True)
class Touch:
    """float32 (T, 3) at `rate_hz`. With `duration_s` and `part` it can be cut into windows: `--segment touch=1`."""

    samples: np.ndarray
    rate_hz: float

    @property
    def duration_s(self) -> float:
        """Seconds that the samples cover."""
        return len(self.samples) / self.rate_hz

    def part(self, start_s: float, end_s: float) -> Touch:
        """The samples between two times."""
        kept = self.samples[round(start_s * self.rate_hz) : round(end_s * self.rate_hz)]
        if not len(kept):
            raise DecodeError(f"{start_s:g} to {end_s:g} s is no part of a touch of {self.duration_s:g} s")
        return replace(self, samples=kept)


def encode(samples_TC: np.ndarray, rate_hz: float) -> bytes:
    """A `.touch` file."""
    return HEADER.pack(MAGIC, samples_TC.shape[1], rate_hz) + samples_TC.astype("<f4").tobytes()


def decode(media: Media) -> Touch:
    """Bytes, a path, a URI, an open file, or a `Touch` as it is.

    Raises:
        DecodeError: it is no `.touch` file, or cut off, or holds numbers that are none.
    """
    if isinstance(media, Touch):
        return media
    data = read_media(media)
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise DecodeError(f"no touch: the file begins with {data[:6]!r}, not {MAGIC!r}")
    _, channels, rate_hz = HEADER.unpack_from(data)
    count, rest = divmod(len(data) - HEADER.size, 4 * CHANNELS)
    if channels != CHANNELS or rest or not count or not 10 <= rate_hz <= 1e5:
        raise DecodeError(
            f"a touch has {CHANNELS} channels at 10 to 100000 Hz; this has {channels} at {rate_hz:g}, or is cut off"
        )
    samples_TC = np.frombuffer(data, "<f4", offset=HEADER.size).reshape(count, CHANNELS)
    if not np.isfinite(samples_TC).all():
        raise DecodeError("a sample is no number: NaN or infinite")
    return Touch(samples_TC, rate_hz)


def preprocess(media: Media) -> dict[str, np.ndarray]:
    """Anything `decode` takes -> {"touch": float32 (3, 512)}."""
    touch = decode(media)
    step = touch.rate_hz / RATE_HZ
    places = np.arange(max(1, min(SAMPLES, int(len(touch.samples) / step)))) * step
    samples_TC = touch.samples if step == 1 else resampled(touch.samples, places, step)
    return {"touch": np.ascontiguousarray(np.resize(samples_TC[:SAMPLES], (SAMPLES, CHANNELS)).T, np.float32)}


def describe(touch: Touch) -> Facts:
    """What the table tells of it: its type, its length, three lines to look at."""
    return Facts(mime=MIME, duration_s=touch.duration_s, preview=series_preview([touch.samples]))


class TouchTower(TokenTower):
    """Three convolutions over time, 64 tokens, two blocks."""

    def __init__(self, dim: int) -> None:
        super().__init__(SeriesStem(CHANNELS, WIDTH), tokens=SAMPLES // 8, width=WIDTH, depth=DEPTH, dim=dim)

    def forward(self, touch: torch.Tensor) -> torch.Tensor:
        """float32 (B, 3, 512) -> (B, D), not normalised."""
        return self.encode(touch)


@register("touch/trace")
def touch_trace(dim: int = 128) -> Encoder:
    """Touch, for a space of this dimension."""
    return Encoder(
        architecture="touch/trace",
        modality="touch",
        dim=dim,
        settings={"dim": dim},
        features={"touch": Feature("float32", (CHANNELS, SAMPLES))},
        decode=decode,
        preprocess=preprocess,
        describe=describe,
        build_tower=partial(TouchTower, dim),
        augment=roll_time,
    )
