"""The sounds of living things. In: random numbers, a pitch factor about 1. Out: 2 s of sound at any loudness."""

from __future__ import annotations

import math

import numpy as np

from pipelines.demo_world.synthesis import (
    RATE_HZ,
    Wave,
    arch,
    events,
    fade,
    harmonics,
    noise,
    repeats,
    seconds,
    swell,
    tone,
)

Random = np.random.Generator


def bird(r: Random, pitch: float) -> Wave:
    """Short whistles that glide and trill around 3-4 kHz."""

    def chirp() -> Wave:
        time_s = seconds(r.uniform(0.06, 0.12))
        start_hz = r.uniform(3000, 4200) * pitch
        return tone(start_hz + r.uniform(-9000, 9000) * time_s + 600 * tone(28, time_s), time_s) * arch(len(time_s))

    return events(repeats(r, r.uniform(0.16, 0.26), 0.5), chirp)


def cricket(r: Random, pitch: float) -> Wave:
    """A high tone, chopped fast, in trains with pauses."""
    chopped = swell(r.uniform(24, 32), 0.0)
    singing = tone(r.uniform(1.6, 2.4), phase=r.uniform(0, 6)) > -0.2
    return tone(4700 * pitch) * chopped * singing


def frog(r: Random, pitch: float) -> Wave:
    """Croaks: a low buzz that rattles."""

    def croak() -> Wave:
        time_s = seconds(r.uniform(0.25, 0.4))
        rattle = tone(38, time_s) > 0.1
        return harmonics(210 * pitch, range(1, 10), 0.6, time_s) * rattle * arch(len(time_s))

    return events(repeats(r, r.uniform(0.5, 0.75)), croak)


def bee(r: Random, pitch: float) -> Wave:
    """A buzz that wavers in pitch and loudness."""
    waver = 0.05 * tone(r.uniform(3, 6)) + 0.03 * noise(r, 0.5, 6)
    loudness = 0.7 + 0.3 * tone(r.uniform(0.7, 1.5), phase=r.uniform(0, 6))
    return harmonics(225 * pitch * (1 + waver), range(1, 14), 0.7) * loudness


def cat(r: Random, pitch: float) -> Wave:
    """Miaows: up and down again."""

    def miaow() -> Wave:
        duration_s = r.uniform(0.6, 0.85)
        time_s = seconds(duration_s)
        pitch_hz = (520 + 260 * np.sin(math.pi * (time_s / duration_s) ** 0.7)) * pitch
        return harmonics(pitch_hz, range(1, 6), 0.7) * arch(len(time_s))

    return events(repeats(r, r.uniform(0.95, 1.3)), miaow)


def dog(r: Random, pitch: float) -> Wave:
    """Barks: falling, rough, sudden."""

    def bark() -> Wave:
        time_s = seconds(0.16)
        rough = harmonics((480 - 900 * time_s) * pitch, range(1, 8), 0.5) + 1.2 * r.standard_normal(len(time_s))
        return rough * fade(time_s, 14) * np.clip(80 * time_s, 0, 1)

    return events(repeats(r, r.uniform(0.33, 0.5), 0.25), bark)


def cow(r: Random, pitch: float) -> Wave:
    """Long low moos."""

    def moo() -> Wave:
        duration_s = r.uniform(1.1, 1.4)
        time_s = seconds(duration_s)
        pitch_hz = (135 + 35 * np.sin(math.pi * time_s / duration_s)) * pitch
        return harmonics(pitch_hz, range(1, 9), 0.6) * arch(len(time_s)) ** 0.5

    return events(repeats(r, r.uniform(1.4, 1.8)), moo)


def duck(r: Random, pitch: float) -> Wave:
    """Quacks: falling, nasal."""

    def quack() -> Wave:
        time_s = seconds(0.2)
        return np.sign(tone((340 - 250 * time_s) * pitch)) * (0.6 + 0.4 * tone(1150, time_s)) * arch(len(time_s))

    return events(repeats(r, r.uniform(0.3, 0.42), 0.2), quack)


def owl(r: Random, pitch: float) -> Wave:
    """Hoots in pairs: one short, one long."""

    def hoot() -> Wave:
        time_s = seconds(0.85)
        pitch_hz = (390 - 30 * time_s) * pitch
        loudness = np.zeros(len(time_s))
        short, long, start = arch(int(0.22 * RATE_HZ)), arch(int(0.5 * RATE_HZ)), int(0.34 * RATE_HZ)
        loudness[: len(short)] = 0.7 * short
        loudness[start : start + len(long)] = long
        return (tone(pitch_hz) + 0.15 * tone(2 * pitch_hz)) * loudness

    return events(repeats(r, r.uniform(1.0, 1.3)), hoot)


def snake(r: Random, _pitch: float) -> Wave:
    """Hisses that come and go."""
    return noise(r, 4500, 8000) * (0.15 + swell(r.uniform(0.7, 1.2), r.uniform(0, 6)))


VOICES = {
    "bird": bird,
    "cricket": cricket,
    "frog": frog,
    "bee": bee,
    "cat": cat,
    "dog": dog,
    "cow": cow,
    "duck": duck,
    "owl": owl,
    "snake": snake,
}
