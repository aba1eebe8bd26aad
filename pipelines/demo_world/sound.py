"""What a scene sounds like. In: a scene. Out: 2 s of sound at 16 kHz.

The thing's sound over the ambience of its place, 2 to 12 dB quieter; in a cave it echoes. Colour and motion are silent.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pipelines.demo_world.noises import NOISES
from pipelines.demo_world.scene import PLACES, Scene, Stream, random_numbers
from pipelines.demo_world.synthesis import (
    DURATION_S,
    RATE_HZ,
    SAMPLES,
    Wave,
    events,
    fade,
    noise,
    seconds,
    swell,
    to_unit,
    tone,
)
from pipelines.demo_world.voices import VOICES

Random = np.random.Generator

SOUNDS = VOICES | NOISES
PITCH = (0.88, 1.14)
AMBIENCE_DB, HISS_DB, PEAK_DB = (2, 12), (20, 35), (0, 16)  # how far below the thing's sound; below full scale
AMBIENCE_HISS = 0.05
ECHO_SAMPLES, ECHO_PER_S, DIRECT = RATE_HZ // 2, 9, 8.0


def sea(r: Random) -> Wave:
    """Waves that roll in."""
    return noise(r, 80, 5000, -0.6) * (0.12 + swell(r.uniform(0.35, 0.55), r.uniform(0, 6)) ** 1.5)


def rain(r: Random) -> Wave:
    """A patter of drops in a hiss."""
    time_s = seconds(0.012)

    def drop() -> Wave:
        return r.uniform(0.5, 3) * tone(r.uniform(1800, 5000), time_s) * fade(time_s, 300)

    return 0.7 * noise(r, 2500, 8000, 0.1) + events(r.uniform(0, DURATION_S, 90), drop)


def forest(r: Random) -> Wave:
    """Leaves that rustle in gusts."""
    return noise(r, 900, 3500) * (0.15 + np.abs(noise(r, 0.5, 5)))


def city(r: Random) -> Wave:
    """Traffic far away, and the hum of the mains."""
    return noise(r, 30, 250, -0.3) + 0.4 * tone(50) + 0.7 * tone(100) + 0.3 * tone(200)


def cave(r: Random) -> Wave:
    """Drops that fall into water, with echoes."""
    time_s = seconds(0.07)

    def drip() -> Wave:
        one = tone(r.uniform(1000, 1600), time_s) * fade(time_s, 45)
        made = np.zeros(len(one) + int(0.33 * RATE_HZ))
        for echo in range(4):
            start = int(0.11 * echo * RATE_HZ)
            made[start : start + len(one)] += 0.6 ** (echo + 1) * one
        return made

    return 0.15 * noise(r, 60, 300) + events(r.uniform(0, DURATION_S, 5), drip)


def snow(r: Random) -> Wave:
    """Wind that howls, now lower, now higher."""
    middle_hz = r.uniform(350, 700)
    low, high = noise(r, 0.75 * middle_hz, 1.15 * middle_hz), noise(r, 1.3 * middle_hz, 1.8 * middle_hz)
    lower = 0.5 + 0.5 * tone(r.uniform(0.3, 0.7), phase=r.uniform(0, 6))
    return lower * low + 0.7 * (1 - lower) * high


AMBIENCES = {"sea": sea, "rain": rain, "forest": forest, "city": city, "cave": cave, "snow": snow}


def _echo(wave: Wave, r: Random) -> Wave:
    """The wave as a cave gives it back."""
    walls = r.standard_normal(ECHO_SAMPLES) * fade(np.arange(ECHO_SAMPLES) / RATE_HZ, ECHO_PER_S)
    walls[0] = DIRECT
    length = SAMPLES + ECHO_SAMPLES
    made: Wave = np.fft.irfft(np.fft.rfft(wave, length) * np.fft.rfft(walls, length))[:SAMPLES]
    return made


def _quieter(decibels: float) -> float:
    return math.pow(10, -decibels / 20)


def _at_peak(wave: Wave, peak: float) -> npt.NDArray[np.float32]:
    made: npt.NDArray[np.float32] = (wave * (peak / np.abs(wave).max())).astype(np.float32)
    return made


def audio(scene: Scene) -> npt.NDArray[np.float32]:
    """The scene's sound: (32000,) float32 in [-1, 1], mono, 2 s at 16 kHz."""
    r = random_numbers(Stream.SOUND, scene.seed)
    wave = to_unit(SOUNDS[scene.thing](r, r.uniform(*PITCH)))
    if scene.place == "cave":
        wave = to_unit(_echo(wave, r))
    wave = wave + _quieter(r.uniform(*AMBIENCE_DB)) * to_unit(AMBIENCES[scene.place](r))
    wave = wave + _quieter(r.uniform(*HISS_DB)) * r.standard_normal(SAMPLES)
    return _at_peak(wave, _quieter(r.uniform(*PEAK_DB)))


def ambience(place: str, seed: int) -> npt.NDArray[np.float32]:
    """A place with nothing in it: (32000,) float32 in [-1, 1], mono, 2 s at 16 kHz.

    Raises:
        ValueError: no such place.
    """
    if place not in AMBIENCES:
        raise ValueError(f"place {place!r} is not in this world; choose from {', '.join(PLACES)}")
    r = random_numbers(Stream.AMBIENCE, seed)
    wave = to_unit(AMBIENCES[place](r)) + AMBIENCE_HISS * r.standard_normal(SAMPLES)
    return _at_peak(wave, 1.0)
