"""How a thing moves. In: a motion's name, time, a shot's amplitude and phase. Out: where it is, how it is turned."""

from __future__ import annotations

import math
from dataclasses import dataclass

PERIOD_S = {"still": 0.0, "shaking": 0.14, "spinning": 1.4, "bouncing": 0.55, "sliding": 2.0, "swinging": 1.25}
SWING = 0.25  # length of the string, as a share of the picture


@dataclass(frozen=True)
class Pose:
    """Offset as a share of the picture's side (right and down are positive), rotation in degrees against the clock."""

    right: float = 0.0
    down: float = 0.0
    turn_deg: float = 0.0


def _wave(rate_hz: float, time_s: float, phase: float = 0.0) -> float:
    return math.sin(2 * math.pi * rate_hz * time_s + phase)


def pose(motion: str, time_s: float, amplitude: float, phase: float) -> Pose:
    """Where a moving thing is at a time; amplitude is about 1, phase in radians."""
    if motion == "shaking":
        right = 0.035 * amplitude * _wave(7, time_s, phase)
        down = 0.02 * amplitude * _wave(9, time_s, phase + math.pi / 2)
        return Pose(right, down, 4 * _wave(8, time_s))
    if motion == "spinning":
        return Pose(turn_deg=-math.degrees(2 * math.pi * 0.7 * time_s * amplitude + phase))
    if motion == "bouncing":
        return Pose(down=0.1 - 0.30 * amplitude * abs(_wave(0.9, time_s, phase)))
    if motion == "sliding":
        return Pose(right=0.26 * amplitude * _wave(0.5, time_s, phase))
    if motion == "swinging":
        angle = math.radians(38 * amplitude * _wave(0.8, time_s, phase))
        return Pose(SWING * math.sin(angle), -SWING * (1 - math.cos(angle)), -math.degrees(angle))
    return Pose()
