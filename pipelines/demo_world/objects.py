"""Fourteen things that are no animals, drawn. In: an empty sprite. Out: the sprite with the thing on it."""

from __future__ import annotations

import math

from pipelines.demo_world.canvas import Sprite


def _wheel(s: Sprite, x: float, y: float, radius: float) -> None:
    s.ellipse((x - radius, y - radius, x + radius, y + radius), "dark")
    hub = 0.42 * radius
    s.ellipse((x - hub, y - hub, x + hub, y + hub), "white")


def bell(s: Sprite) -> None:
    """A church bell with a rim, a clapper and a crown."""
    s.box((0.44, 0.08, 0.56, 0.22), "shade")
    s.ellipse((0.43, 0.76, 0.57, 0.92), "dark")
    left, right = 0.29 + s.wobble(), 0.71 + s.wobble()
    s.polygon([(left, 0.72), (0.34, 0.36), (0.43, 0.2), (0.57, 0.2), (0.66, 0.36), (right, 0.72)])
    s.polygon([(0.4, 0.66), (0.42, 0.36), (0.47, 0.28), (0.47, 0.66)], "light")
    s.box((0.2, 0.69, 0.8, 0.79), "shade")


def drum(s: Sprite) -> None:
    """A drum with a white skin, zigzag cords and two sticks."""
    s.ellipse((0.18, 0.62, 0.82, 0.88), "shade")
    s.box((0.18, 0.4, 0.82, 0.75))
    s.ellipse((0.18, 0.6, 0.82, 0.84))
    s.line([(0.19, 0.44), (0.34, 0.8), (0.5, 0.48), (0.66, 0.8), (0.81, 0.44)], "white", 0.03)
    s.ellipse((0.16, 0.28, 0.84, 0.53), "shade")
    s.ellipse((0.2, 0.3, 0.8, 0.5), "white")
    for x, tip in ((0.08 + s.wobble(), 0.44), (0.92 + s.wobble(), 0.56)):
        s.line([(x, 0.08), (tip, 0.39)], "dark", 0.035)
        s.ellipse((tip - 0.035, 0.36, tip + 0.035, 0.43), "dark")


def clock(s: Sprite) -> None:
    """A round alarm clock with two hands and two bells on top."""
    s.line([(0.25, 0.8), (0.16, 0.96)], "dark", 0.05)
    s.line([(0.75, 0.8), (0.84, 0.96)], "dark", 0.05)
    s.ellipse((0.14, 0.02, 0.42, 0.28), "shade")
    s.ellipse((0.58, 0.02, 0.86, 0.28), "shade")
    s.ellipse((0.11, 0.1, 0.89, 0.9))
    s.ellipse((0.2, 0.19, 0.8, 0.81), "white")
    for hour in range(12):
        x, y = 0.5 + 0.255 * math.cos(hour * math.pi / 6), 0.5 + 0.26 * math.sin(hour * math.pi / 6)
        dot = 0.024 if hour % 3 == 0 else 0.011
        s.ellipse((x - dot, y - dot, x + dot, y + dot), "dark")
    for length, width in ((0.22, 0.035), (0.15, 0.05)):
        angle = s.r.uniform(0, 2 * math.pi)
        s.line([(0.5, 0.5), (0.5 + length * math.cos(angle), 0.5 + length * math.sin(angle))], "dark", width)
    s.ellipse((0.465, 0.465, 0.535, 0.535), "dark")


def ambulance(s: Sprite) -> None:
    """A van with a white cross, a cab window and a hot flashing light."""
    s.box((0.34, 0.19, 0.5, 0.31), "white", kelvin=330)
    s.box((0.06, 0.28, 0.68, 0.75))
    s.polygon([(0.66, 0.4), (0.82, 0.4), (0.95, 0.58), (0.95, 0.75), (0.66, 0.75)])
    s.polygon([(0.7, 0.45), (0.8, 0.45), (0.89, 0.58), (0.7, 0.58)], "white")
    s.box((0.07, 0.66, 0.94, 0.7), "shade")
    s.box((0.31, 0.34, 0.41, 0.64), "white")
    s.box((0.21, 0.44, 0.51, 0.54), "white")
    _wheel(s, 0.25, 0.76, 0.1)
    _wheel(s, 0.75, 0.76, 0.1)


def helicopter(s: Sprite) -> None:
    """A round cabin with a window, a tail with a small rotor, a large rotor above, skids below."""
    s.line([(0.2 + s.wobble(), 0.19), (0.99 + s.wobble(), 0.19)], "dark", 0.045)
    s.line([(0.62, 0.19), (0.62, 0.38)], "dark", 0.045)
    s.line([(0.55, 0.72), (0.52, 0.86)], "dark", 0.025)
    s.line([(0.75, 0.72), (0.77, 0.86)], "dark", 0.025)
    s.line([(0.36, 0.86), (0.88, 0.86), (0.93, 0.82)], "dark", 0.035)
    s.polygon([(0.48, 0.48), (0.06, 0.42), (0.06, 0.5), (0.46, 0.64)])
    s.polygon([(0.04, 0.5), (0.02, 0.32), (0.1, 0.32), (0.14, 0.48)], "shade")
    s.line([(0.0, 0.46), (0.16, 0.36)], "dark", 0.025)
    s.ellipse((0.4, 0.35, 0.92, 0.76))
    s.ellipse((0.64, 0.4, 0.88, 0.62), "white")
    s.line([(0.45, 0.64), (0.86, 0.66)], "shade", 0.03)


def train(s: Sprite) -> None:
    """A steam engine: boiler, cab, funnel with hot smoke, wheels on a rail."""
    s.ellipse((0.02 + s.wobble(), 0.0, 0.26, 0.16), "white", kelvin=335)
    s.ellipse((0.14, 0.06, 0.34, 0.22), "white", kelvin=335)
    s.polygon([(0.19, 0.26), (0.34, 0.26), (0.31, 0.34), (0.31, 0.48), (0.22, 0.48), (0.22, 0.34)], "dark", kelvin=345)
    s.box((0.42, 0.36, 0.52, 0.48), "shade")
    s.polygon([(0.14, 0.72), (0.12, 0.58), (0.0, 0.78)], "dark")
    s.box((0.1, 0.45, 0.72, 0.72))
    s.box((0.1, 0.45, 0.17, 0.72), "shade")
    s.box((0.58, 0.22, 0.9, 0.74), "shade")
    s.box((0.54, 0.17, 0.94, 0.24), "dark")
    s.box((0.65, 0.3, 0.83, 0.46), "white")
    for x, radius in ((0.2, 0.085), (0.4, 0.085), (0.7, 0.12)):
        _wheel(s, x, 0.87 - radius, radius)
    s.line([(0.2, 0.8), (0.4, 0.8), (0.7, 0.75)], "light", 0.025)
    s.line([(0.02, 0.89), (0.98, 0.89)], "dark", 0.03)


def car(s: Sprite) -> None:
    """A saloon car from the side: two windows, two wheels, a lamp."""
    s.polygon([(0.2, 0.52), (0.33 + s.wobble(), 0.28), (0.67 + s.wobble(), 0.28), (0.8, 0.52)])
    s.polygon([(0.05, 0.54), (0.12, 0.48), (0.86, 0.48), (0.95, 0.57), (0.95, 0.74), (0.05, 0.74)])
    s.polygon([(0.28, 0.49), (0.37, 0.34), (0.49, 0.34), (0.49, 0.49)], "white")
    s.polygon([(0.53, 0.49), (0.53, 0.34), (0.65, 0.34), (0.73, 0.49)], "white")
    s.box((0.05, 0.66, 0.95, 0.7), "shade")
    s.box((0.53, 0.55, 0.6, 0.575), "dark")
    s.ellipse((0.88, 0.54, 0.96, 0.63), "white")
    _wheel(s, 0.26, 0.74, 0.11)
    _wheel(s, 0.74, 0.74, 0.11)


def phone(s: Sprite) -> None:
    """A desk telephone: a base with a dial, the handset across its top."""
    s.polygon([(0.36, 0.4), (0.64, 0.4), (0.7, 0.52), (0.86, 0.88), (0.14, 0.88), (0.3, 0.52)], kelvin=303)
    s.box((0.12, 0.84, 0.88, 0.92), "shade")
    s.line([(0.1, 0.36 + s.wobble()), (0.22, 0.24), (0.5, 0.18), (0.78, 0.24), (0.9, 0.36 + s.wobble())], "shade", 0.11)
    s.ellipse((0.01, 0.28, 0.25, 0.47), "shade")
    s.ellipse((0.75, 0.28, 0.99, 0.47), "shade")
    s.box((0.36, 0.27, 0.41, 0.42), "dark")
    s.box((0.59, 0.27, 0.64, 0.42), "dark")
    s.ellipse((0.31, 0.46, 0.69, 0.82), "white")
    for hole in range(10):
        x, y = 0.5 + 0.135 * math.cos(hole * math.pi / 5), 0.64 + 0.13 * math.sin(hole * math.pi / 5)
        s.ellipse((x - 0.024, y - 0.024, x + 0.024, y + 0.024), "dark")
    s.ellipse((0.44, 0.58, 0.56, 0.7))


def guitar(s: Sprite) -> None:
    """Two bouts with a sound hole, a neck with a head, strings and a bridge."""
    s.polygon([(0.43, 0.0), (0.57, 0.0), (0.55, 0.13), (0.45, 0.13)], "dark")
    for y in (0.03, 0.09):
        s.line([(0.38, y), (0.62, y)], "dark", 0.03)
    s.ellipse((0.31, 0.38, 0.69, 0.7))
    s.ellipse((0.24, 0.54, 0.76, 0.97))
    s.ellipse((0.34, 0.41, 0.66, 0.68))  # no outline between the two bouts
    s.ellipse((0.41, 0.57, 0.59, 0.75), "dark")
    s.box((0.46, 0.1, 0.54, 0.6), "shade")
    for fret in range(6):
        s.line([(0.46, 0.16 + 0.07 * fret), (0.54, 0.16 + 0.07 * fret)], "light", 0.012)
    s.box((0.38, 0.83, 0.62, 0.875), "dark")
    for x in (0.48, 0.52):
        s.line([(x, 0.08), (x, 0.85)], "white", 0.008)


def kettle(s: Sprite) -> None:
    """A pot with a spout that steams, an arched handle and a lid."""
    s.ellipse((0.86, 0.14 + s.wobble(), 0.97, 0.28), "white", kelvin=325)
    s.ellipse((0.8, 0.02, 0.89, 0.14), "white", kelvin=320)
    s.line([(0.24, 0.46), (0.26, 0.2 + s.wobble()), (0.36, 0.12), (0.58, 0.12), (0.68, 0.2), (0.7, 0.46)], "dark", 0.055)
    s.polygon([(0.66, 0.56), (0.88, 0.34), (0.99, 0.38), (0.74, 0.76)])
    s.ellipse((0.16, 0.36, 0.78, 0.92))
    s.box((0.24, 0.86, 0.7, 0.93), "shade")
    s.ellipse((0.3, 0.33, 0.64, 0.46), "shade")
    s.ellipse((0.42, 0.25, 0.52, 0.37), "dark")
    s.ellipse((0.25, 0.5, 0.36, 0.7), "light")


def campfire(s: Sprite) -> None:
    """Flames with a light heart over crossed logs."""
    left, middle, right = 0.27 + s.wobble(), 0.5 + s.wobble(), 0.75 + s.wobble()
    s.polygon(
        [
            (0.24, 0.82),
            (0.16, 0.6),
            (left, 0.32),
            (0.39, 0.5),
            (middle, 0.04),
            (0.63, 0.48),
            (right, 0.26),
            (0.84, 0.6),
            (0.76, 0.82),
        ]
    )
    s.polygon(
        [(0.34, 0.82), (0.34, 0.64), (0.42, 0.56), (middle, 0.3 + s.wobble()), (0.58, 0.55), (0.66, 0.64), (0.66, 0.82)],
        "light",
    )
    s.polygon([(0.42, 0.82), (0.44, 0.68), (0.5, 0.56), (0.56, 0.68), (0.58, 0.82)], "white")
    s.line([(0.1, 0.93), (0.9, 0.74)], "dark", 0.1, kelvin=310)
    s.line([(0.1, 0.74), (0.9, 0.93)], "dark", 0.1, kelvin=310)
    s.line([(0.13, 0.74), (0.87, 0.915)], "shade", 0.03, kelvin=310)


def ship(s: Sprite) -> None:
    """A hull with portholes, a deck house, a warm funnel and a mast with a flag."""
    s.box((0.245, 0.12, 0.28, 0.6), "dark")
    s.polygon([(0.28, 0.12), (0.47, 0.2 + s.wobble()), (0.28, 0.28)], "light")
    s.box((0.5, 0.16, 0.63, 0.44), "shade", kelvin=325)
    s.box((0.5, 0.22, 0.63, 0.28), "white", kelvin=325)
    s.box((0.3, 0.4, 0.74, 0.62), "white")
    for x in (0.35, 0.48, 0.61):
        s.box((x, 0.46, x + 0.08, 0.54), "dark")
    s.polygon([(0.03, 0.58), (0.97, 0.58), (0.8, 0.88), (0.2, 0.88)])
    s.polygon([(0.14, 0.78), (0.86, 0.78), (0.8, 0.88), (0.2, 0.88)], "shade")
    for x in (0.26, 0.42, 0.58, 0.74):
        s.ellipse((x - 0.03, 0.65, x + 0.03, 0.71), "white")


def rocket(s: Sprite) -> None:
    """A pointed body with a window, two fins and a hot flame."""
    s.polygon([(0.38, 0.72), (0.62, 0.72), (0.5 + s.wobble(), 0.99)], "light", kelvin=350)
    s.polygon([(0.38, 0.46), (0.14 + s.wobble(), 0.78), (0.38, 0.7)], "shade")
    s.polygon([(0.62, 0.46), (0.86 + s.wobble(), 0.78), (0.62, 0.7)], "shade")
    s.polygon([(0.35, 0.72), (0.34, 0.32), (0.41, 0.14), (0.5, 0.02), (0.59, 0.14), (0.66, 0.32), (0.65, 0.72)])
    s.polygon([(0.395, 0.18), (0.41, 0.14), (0.5, 0.02), (0.59, 0.14), (0.605, 0.18)], "shade")
    s.ellipse((0.4, 0.27, 0.6, 0.47), "dark")
    s.ellipse((0.43, 0.3, 0.57, 0.44), "white")
    s.box((0.36, 0.63, 0.64, 0.68), "shade")


def robot(s: Sprite) -> None:
    """A square head with an aerial and lamp eyes, a chest with a warm light, arms and legs."""
    s.line([(0.5, 0.14), (0.5, 0.05)], "dark", 0.03)
    s.ellipse((0.455, 0.0, 0.545, 0.09), "light")
    s.line([(0.24, 0.55), (0.06, 0.7 + s.wobble())], "shade", 0.075)
    s.line([(0.76, 0.55), (0.94, 0.7 + s.wobble())], "shade", 0.075)
    s.box((0.3, 0.84, 0.44, 0.97), "dark")
    s.box((0.56, 0.84, 0.7, 0.97), "dark")
    s.box((0.43, 0.43, 0.57, 0.52), "dark")
    s.box((0.27, 0.12, 0.73, 0.45))
    s.box((0.21, 0.5, 0.79, 0.86), "shade")
    for x in (0.39, 0.61):
        s.box((x - 0.065, 0.19, x + 0.065, 0.31), "white")
        s.box((x - 0.03, 0.22, x + 0.03, 0.28), "dark")
    s.box((0.36, 0.36, 0.64, 0.41), "white")
    for x in (0.43, 0.5, 0.57):
        s.line([(x, 0.36), (x, 0.41)], "dark", 0.014)
    s.ellipse((0.39, 0.56, 0.61, 0.78), "light", kelvin=330)


OBJECTS = {
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
