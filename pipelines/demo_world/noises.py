"""The sounds of machines, instruments and fire. In: random numbers, a pitch factor about 1. Out: 2 s at any loudness."""

from __future__ import annotations

import numpy as np

from pipelines.demo_world.synthesis import (
    DURATION_S,
    TIME_S,
    Wave,
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

BELL_PARTIALS = (
    (0.5, 0.5, 2),
    (1, 1, 3),
    (1.19, 0.7, 4),
    (2.0, 0.6, 5),
    (2.74, 0.5, 7),
    (5.2, 0.3, 12),
)  # ratio, gain, fade per s
GUITAR_HZ = (147, 196, 247, 294, 330)
ROBOT_HZ = (440, 587, 784, 988, 1319)
WHISTLE_HZ = (311, 370, 466)


def bell(r: Random, pitch: float) -> Wave:
    """Strokes of a bell: inharmonic partials, the high ones gone first."""

    def stroke() -> Wave:
        time_s = seconds(1.4)
        made = np.zeros(len(time_s))
        for ratio, gain, per_s in BELL_PARTIALS:
            made += gain * tone(520 * pitch * ratio, time_s) * fade(time_s, per_s)
        return made

    return events(repeats(r, r.uniform(0.8, 1.2)), stroke)


def drum(r: Random, pitch: float) -> Wave:
    """Beats: a low thump that falls, with a click."""

    def beat() -> Wave:
        time_s = seconds(0.35)
        thump = np.sin(2 * np.pi * (95 * pitch * time_s + fade(time_s, 25))) * fade(time_s, 12)
        return thump + 0.35 * r.standard_normal(len(time_s)) * fade(time_s, 45)

    return events(repeats(r, r.uniform(0.28, 0.45)), beat)


def clock(r: Random, pitch: float) -> Wave:
    """Ticks, very regular."""

    def tick() -> Wave:
        time_s = seconds(0.04)
        return (tone(2300 * pitch, time_s) + r.standard_normal(len(time_s))) * fade(time_s, 160)

    return events(repeats(r, r.uniform(0.45, 0.55), 0.01), tick)


def ambulance(r: Random, pitch: float) -> Wave:
    """A siren of two notes in turn."""
    low = (TIME_S * r.uniform(1.3, 1.9) + r.uniform()) % 1 < 0.5
    return harmonics(np.where(low, 700.0, 930.0) * pitch, (1, 2, 3, 5), 1)


def helicopter(r: Random, _pitch: float) -> Wave:
    """Low noise, chopped by the rotor."""
    return noise(r, 30, 900, -0.5) * swell(r.uniform(10, 14), r.uniform(0, 6)) ** 3


def train(r: Random, pitch: float) -> Wave:
    """Chuffs of steam, and a whistle of three notes."""
    chuffs = noise(r, 300, 4000, -0.3) * swell(r.uniform(3.2, 4.6), r.uniform(0, 6)) ** 2
    start_s = r.uniform(0, 1.2)
    blowing = np.clip((TIME_S - start_s) / 0.05, 0, 1) * (start_s + 0.7 > TIME_S)
    low, middle, high = (tone(frequency_hz * pitch) for frequency_hz in WHISTLE_HZ)
    return chuffs + 0.8 * blowing * (low + middle + high)


def car(r: Random, pitch: float) -> Wave:
    """An engine whose speed goes up and down."""
    speed = 1 + 0.25 * tone(r.uniform(0.2, 0.5), phase=r.uniform(0, 6))
    return harmonics(62 * pitch * speed, range(1, 16), 0.8) + 0.2 * noise(r, 50, 1500, -0.5)


def phone(r: Random, pitch: float) -> Wave:
    """Rings: two tones in fast turn."""
    ringing = (TIME_S * r.uniform(0.6, 0.9) + r.uniform()) % 1 < 0.6
    first = (TIME_S * 40) % 2 < 1
    return np.where(first, tone(1330 * pitch), tone(1660 * pitch)) * ringing


def guitar(r: Random, pitch: float) -> Wave:
    """Plucked notes of a chord."""

    def pluck() -> Wave:
        note_hz, time_s = float(r.choice(GUITAR_HZ)) * pitch, seconds(0.7)
        made = np.zeros(len(time_s))
        for number in range(1, 9):
            made += tone(note_hz * number, time_s) * fade(time_s, 2 + 1.5 * number) / number
        return made * np.clip(400 * time_s, 0, 1)

    return events(repeats(r, r.uniform(0.25, 0.4)), pluck)


def kettle(r: Random, pitch: float) -> Wave:
    """A whistle that rises, and steam."""
    whistle_hz = 2500 * pitch + 500 * TIME_S / DURATION_S + 20 * tone(7)
    return tone(whistle_hz) + 0.5 * noise(r, 1500, 5500)


def campfire(r: Random, _pitch: float) -> Wave:
    """A low roar with crackles."""

    def crackle() -> Wave:
        return r.uniform(0.5, 3) * r.standard_normal(120) * np.exp(-np.arange(120) / r.uniform(8, 30))

    return 0.25 * noise(r, 60, 800, -0.5) + events(r.uniform(0, DURATION_S, int(r.uniform(18, 32))), crackle)


def ship(r: Random, pitch: float) -> Wave:
    """One long blast of a two-note horn."""
    start_s = r.uniform(0, 0.6)
    blowing = np.clip((TIME_S - start_s) / 0.15, 0, 1) * np.clip((start_s + 1.4 - TIME_S) / 0.15, 0, 1)
    return (harmonics(88 * pitch, range(1, 7), 0.5) + harmonics(111 * pitch, range(1, 6), 0.5)) * blowing


def rocket(r: Random, _pitch: float) -> Wave:
    """A roar that flutters, with a hiss."""
    return noise(r, 25, 2500, -0.9) * (1 + 0.3 * noise(r, 1, 12)) + 0.3 * noise(r, 1000, 7000, -0.4)


def robot(r: Random, pitch: float) -> Wave:
    """Bleeps on random notes, eight a second."""

    def bleep() -> Wave:
        time_s = seconds(0.09)
        return np.sign(tone(float(r.choice(ROBOT_HZ)) * pitch, time_s)) * np.clip(300 * time_s, 0, 1)

    return events(np.arange(r.uniform(0, 0.1), DURATION_S, 0.125), bleep)


NOISES = {
    "bell": bell,
    "drum": drum,
    "clock": clock,
    "ambulance": ambulance,
    "helicopter": helicopter,
    "train": train,
    "car": car,
    "phone": phone,
    "guitar": guitar,
    "kettle": kettle,
    "campfire": campfire,
    "ship": ship,
    "rocket": rocket,
    "robot": robot,
}
