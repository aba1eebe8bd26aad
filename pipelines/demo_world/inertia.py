"""What a motion sensor fixed to the thing would record. In: a scene. Out: acceleration and turn rate, 2 s at 100 Hz.

Gravity, plus the scene's motion, plus a vibration that is the thing's own (a signature of kind, rate, ring and axis), plus
noise and a constant bias per axis. Place and colour leave no trace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.demo_world.scene import THINGS, Scene, Stream, random_numbers

RATE_HZ = 100
SAMPLES = 200
GRAVITY_MPS2 = 9.80665
NOISE, BIAS = 0.06, 0.03  # standard deviations, in g and in rad/s

Floats = npt.NDArray[np.float64]

TIME_S: Floats = np.arange(SAMPLES) / RATE_HZ


@dataclass(frozen=True)
class Vibration:
    """A thing's signature: how it shakes what it carries."""

    kind: str  # pulse, sine, am (a tone that swells), burst (noise that comes and goes)
    rate_hz: float  # of the pulses, swells or bursts
    ring_hz: float  # of the tone
    axes: tuple[float, float, float]  # share of x, y, z; signed


KINDS = ("pulse", "sine", "am", "burst")
RATES_HZ = (1.2, 2.2, 3.4, 5.0, 7.5, 11.0)
RINGS_HZ = (14.0, 20.0, 27.0, 35.0)
LOUDNESS = (1.0, 0.45, 0.15)  # of the three axes, in an order that is the thing's own


def _vibration(i: int) -> Vibration:
    """The signature of thing number i: every kind with every rate, so that no two are alike."""
    x, y, z = np.roll(LOUDNESS, i % 3) * np.where(np.arange(3) == i % 2, 1, -1)
    return Vibration(KINDS[i % 4], RATES_HZ[i // 4], RINGS_HZ[(i + i // 4) % 4], (x, y, z))


VIBRATIONS = {thing: _vibration(i) for i, thing in enumerate(THINGS)}


def _wave(rate_hz: float, phase: float = 0.0) -> Any:
    return np.sin(2 * math.pi * rate_hz * TIME_S + phase)


def _vibrate(vibration: Vibration, r: np.random.Generator) -> Floats:
    """(200,) of about unit size."""
    rate_hz, ring_hz = vibration.rate_hz * r.uniform(0.9, 1.1), vibration.ring_hz * r.uniform(0.95, 1.05)
    phase = r.uniform(0, 2 * math.pi)
    turns = (rate_hz * TIME_S + phase / (2 * math.pi)) % 1
    made: Floats
    if vibration.kind == "pulse":
        made = np.exp(-18 * turns / rate_hz) * _wave(ring_hz)
    elif vibration.kind == "sine":
        made = 0.6 * _wave(ring_hz, phase) + 0.4 * _wave(rate_hz) * _wave(ring_hz / 2)
    elif vibration.kind == "am":
        made = _wave(ring_hz, phase) * (0.5 + 0.5 * _wave(rate_hz, phase))
    else:
        made = r.standard_normal(SAMPLES) * (turns < 0.35)
    return made


def _move(motion: str, amplitude: float, phase: float) -> tuple[Floats, Floats]:
    """Acceleration in g without gravity, turn rate in rad/s: each (3, 200)."""
    push, turn = np.zeros((3, SAMPLES)), np.zeros((3, SAMPLES))
    if motion == "shaking":
        push[0] = 0.9 * amplitude * _wave(7, phase)
        push[1] = 0.6 * amplitude * _wave(9, phase + math.pi / 2)
        turn[2] = 0.5 * _wave(8, phase)
    elif motion == "spinning":
        push[0] = 0.35 * _wave(0.7 * amplitude, phase + math.pi / 2)
        push[1] = 0.35 * _wave(0.7 * amplitude, phase)
        turn[2] = 1.3 * amplitude
    elif motion == "bouncing":
        turns = (1.8 * amplitude * TIME_S + phase) % 1
        push[2] = 2.2 * np.exp(-(((turns - 0.5) / 0.08) ** 2)) - 0.6
    elif motion == "sliding":
        push[0] = 0.8 * amplitude * _wave(0.5, phase)
    elif motion == "swinging":
        swing = _wave(0.8, phase)
        push[0] = 0.5 * amplitude * swing
        push[2] = -0.15 * swing**2
        turn[1] = 0.9 * amplitude * _wave(0.8, phase + math.pi / 2)
    return push, turn


def imu(scene: Scene) -> npt.NDArray[np.float32]:
    """What a motion sensor records.

    Returns:
        (200, 6) float32 at 100 Hz: acceleration x, y, z in m/s^2 (gravity is +z), turn rate x, y, z in rad/s.
    """
    r = random_numbers(Stream.IMU, scene.seed)
    push_g, turn_radps = _move(scene.motion, r.uniform(0.85, 1.15), r.uniform(0, 2 * math.pi))
    push_g[2] += 1.0
    vibration = VIBRATIONS[scene.thing]
    shake = r.uniform(0.3, 0.6) * _vibrate(vibration, r)
    axes = np.array(vibration.axes)
    trace = np.concatenate([push_g + axes[:, None] * shake, turn_radps + 0.5 * np.roll(axes, 1)[:, None] * shake])
    trace += r.normal(0, NOISE, trace.shape) + r.normal(0, BIAS, (6, 1))
    trace[:3] *= GRAVITY_MPS2
    return np.ascontiguousarray(trace.T, dtype=np.float32)
