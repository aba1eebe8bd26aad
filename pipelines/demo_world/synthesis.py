"""Parts that sounds are made of. In: frequencies, times, random numbers. Out: waveforms, float64, 2 s at 16 kHz.

Everything is computed in float64, so that the last-digit differences between processors vanish when a sound is written as
16-bit samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

RATE_HZ = 16_000
DURATION_S = 2.0
SAMPLES = 32_000
LOWEST_HZ = 30.0  # a tilted noise is flat below

Wave = npt.NDArray[np.float64]

TIME_S: Wave = np.arange(SAMPLES) / RATE_HZ
BIN_HZ: Wave = np.arange(SAMPLES // 2 + 1) / DURATION_S


def seconds(duration_s: float) -> Wave:
    """The sample times of something short."""
    return np.arange(int(duration_s * RATE_HZ)) / RATE_HZ


def tone(frequency_hz: float | Wave, time_s: Wave = TIME_S, phase: float = 0.0) -> Wave:
    """A sine of a constant frequency, or of one that changes from sample to sample."""
    made: Wave = np.sin(turns(frequency_hz, time_s) + phase)
    return made


def turns(frequency_hz: float | Wave, time_s: Wave) -> Wave:
    """The angle, in radians, of something that turns at a frequency."""
    if isinstance(frequency_hz, np.ndarray):
        return 2 * math.pi * np.cumsum(frequency_hz) / RATE_HZ
    return 2 * math.pi * frequency_hz * time_s


def harmonics(frequency_hz: float | Wave, numbers: Iterable[int], decay: float, time_s: Wave = TIME_S) -> Wave:
    """Sines at whole multiples of a frequency, each 1 / number^decay as loud."""
    angle = turns(frequency_hz, time_s)
    twice_cosine, before, sine = 2 * np.cos(angle), np.zeros(len(angle)), np.sin(angle)
    made, wanted = np.zeros(len(angle)), set(numbers)
    for number in range(1, max(wanted) + 1):
        if number in wanted:
            made += sine / number**decay
        before, sine = sine, twice_cosine * sine - before  # sin((n+1)x) = 2 cos(x) sin(nx) - sin((n-1)x)
    return made


def swell(rate_hz: float, phase: float) -> Wave:
    """Rises and falls: the upper half of a sine, 0 in between."""
    made: Wave = np.clip(tone(rate_hz, phase=phase), 0, 1)
    return made


def arch(samples: int) -> Wave:
    """In and out, smoothly: 0, 1, 0."""
    made: Wave = np.hanning(samples)
    return made


def fade(time_s: Wave, per_s: float) -> Wave:
    """Dies away, by e in 1 / per_s seconds."""
    made: Wave = np.exp(-per_s * time_s)
    return made


@lru_cache(maxsize=64)
def _band(low_hz: float, high_hz: float, tilt: float) -> Wave:
    gain: Wave = ((low_hz <= BIN_HZ) & (high_hz >= BIN_HZ)) * np.maximum(BIN_HZ, LOWEST_HZ) ** tilt
    gain.setflags(write=False)
    return gain


def noise(r: np.random.Generator, low_hz: float, high_hz: float, tilt: float = 0.0) -> Wave:
    """Noise between two frequencies, of standard deviation 1; amplitude goes with frequency^tilt."""
    made: Wave = np.fft.irfft(np.fft.rfft(r.standard_normal(SAMPLES)) * _band(low_hz, high_hz, tilt), SAMPLES)
    return to_unit(made)


def events(times_s: Iterable[float], make: Callable[[], Wave]) -> Wave:
    """Something short, made anew at each time; what starts after the end or before the start is left out."""
    made = np.zeros(SAMPLES)
    for time_s in times_s:
        start = int(time_s * RATE_HZ)
        if 0 <= start < SAMPLES:
            event = make()[: SAMPLES - start]
            made[start : start + len(event)] += event
    return made


def repeats(r: np.random.Generator, period_s: float, jitter: float = 0.1) -> list[float]:
    """Times about a period apart; jitter is a share of the period."""
    first = r.uniform(0, period_s)
    later = [first + period_s * (i + r.uniform(-jitter, jitter)) for i in range(1, int(DURATION_S / period_s) + 1)]
    return [first, *later]


def to_unit(wave: Wave) -> Wave:
    """The wave at standard deviation 1."""
    made: Wave = wave / (wave.std() + 1e-6)
    return made
