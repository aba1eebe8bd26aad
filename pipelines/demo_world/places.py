"""Six places, drawn, and their weather. In: an empty backdrop, or a finished picture. Out: the same, drawn upon.

Distances go from the ground at one's feet (8 m) to the sky (20 m); temperatures from snow (254 K) to a street (305 K).
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from pipelines.demo_world.canvas import RGB, Backdrop

STRIPS = 6  # the ground comes nearer in steps
SKY_M, GROUND_FAR_M, GROUND_STEP_M = 20.0, 17.7, 1.4
DROPS, FLAKES = 45, 40
WHITE_CAP = (248, 250, 253)


def _ground(b: Backdrop, horizon: float, colour: RGB, kelvin: float) -> None:
    """From the horizon down, brighter and nearer in every strip."""
    red, green, blue = colour
    for i in range(STRIPS):
        top = horizon + (1 - horizon) * i / STRIPS
        brighter = 0.9 + 0.03 * i
        strip = (int(red * brighter), int(green * brighter), int(blue * brighter))
        b.box((0, top, 1, 1), strip, GROUND_FAR_M - GROUND_STEP_M * i, kelvin)


def sea(b: Backdrop, horizon: float) -> None:
    """Water with crests under a blue sky."""
    b.box((0, 0, 1, 1), b.like((150, 205, 240)), SKY_M, 277)
    _ground(b, horizon, b.like((30, 110, 170)), 281)
    for _ in range(9):
        x, y = b.r.uniform(-0.1, 0.9), b.r.uniform(horizon, 1)
        b.line([(x, y), (x + 0.08, y - 0.025), (x + 0.16, y)], (225, 240, 250), 0.016, 12.0, 287)


def rain(b: Backdrop, horizon: float) -> None:
    """Grey clouds over a grey plain."""
    b.box((0, 0, 1, 1), b.like((110, 118, 130)), SKY_M, 279)
    _ground(b, horizon, b.like((85, 90, 95)), 283)
    for _ in range(4):
        x, y = b.r.uniform(-0.1, 1), b.r.uniform(-0.05, 0.15)
        b.ellipse((x, y, x + 0.35, y + 0.13), b.like((80, 85, 95)), 19.2, 275)


def forest(b: Backdrop, horizon: float) -> None:
    """Seven trees on a meadow, near and far."""
    b.box((0, 0, 1, 1), b.like((165, 205, 160)), 19.6, 287)
    _ground(b, horizon, b.like((70, 115, 55)), 289)
    for _ in range(7):
        x, distance_m = b.r.uniform(-0.05, 1), b.r.uniform(7.4, 15.8)
        b.box((x, 0.1, x + 0.05, horizon + 0.12), b.like((85, 60, 40)), distance_m, 291)
        b.ellipse((x - 0.1, -0.1, x + 0.15, b.r.uniform(0.2, 0.4)), b.like((45, 110, 50)), distance_m, 288)


def city(b: Backdrop, horizon: float) -> None:
    """A row of houses with lit windows along a street."""
    b.box((0, 0, 1, 1), b.like((195, 195, 210)), SKY_M, 291)
    left = -0.05
    while left < 1:
        width, top, distance_m = b.r.uniform(0.12, 0.22), b.r.uniform(0.08, 0.4), b.r.uniform(9.7, 15.8)
        b.box((left, top, left + width, horizon + 0.02), b.like((120, 115, 125), 25), distance_m, 303)
        for y in np.arange(top + 0.04, horizon - 0.04, 0.08):
            for x in np.arange(left + 0.03, left + width - 0.04, 0.06):
                b.box((x, y, x + 0.025, y + 0.035), (250, 235, 150), distance_m, 309)
        left += width + 0.01
    _ground(b, horizon, b.like((70, 70, 75)), 305)
    for x in (0.05, 0.4, 0.75):
        b.box((x, 0.85, x + 0.12, 0.87), (235, 235, 235), 8.9, 305)


def cave(b: Backdrop, _horizon: float) -> None:
    """Dark rock around a lighter hollow, stalactites above."""
    b.box((0, 0, 1, 1), b.like((48, 40, 42), 8), 5.1, 273.5)
    shift = b.r.uniform(-0.1, 0.1)
    b.ellipse((0.12 + shift, 0.1, 0.88 + shift, 1.3), b.like((88, 78, 75), 8), 15.0, 276.5)
    for _ in range(6):
        x, tip = b.r.uniform(0, 1), b.r.uniform(0.15, 0.35)
        b.polygon([(x, 0), (x + 0.1, 0), (x + 0.05, tip)], b.like((35, 30, 32), 6), 5.9, 272.5)


def snow(b: Backdrop, horizon: float) -> None:
    """Two mountains over a white field."""
    b.box((0, 0, 1, 1), b.like((205, 215, 230)), SKY_M, 258)
    for _ in range(2):
        x, top = b.r.uniform(0, 0.8), b.r.uniform(0.08, 0.3)
        b.polygon([(x - 0.3, horizon + 0.02), (x + 0.1, top), (x + 0.5, horizon + 0.02)], b.like((150, 165, 190)), 16.9, 256)
        b.polygon(
            [(x, top + 0.25 * (horizon - top)), (x + 0.1, top), (x + 0.2, top + 0.25 * (horizon - top))], WHITE_CAP, 16.9, 254
        )
    _ground(b, horizon, b.like((238, 242, 248), 6), 254)


BACKDROPS = {"sea": sea, "rain": rain, "forest": forest, "city": city, "cave": cave, "snow": snow}


def fall(place: str, picture: Image.Image, time_s: float, r: np.random.Generator) -> None:
    """Draw the falling rain or snow of a place over a picture; drops cross it in about a second, flakes in four."""
    side = picture.width
    pen = ImageDraw.Draw(picture)
    if place == "rain":
        for x, y in r.uniform(0, 1, (DROPS, 2)):
            x, y = (x - 0.33 * time_s) % 1.0, (y + 1.0 * time_s) % 1.0
            end = ((x - 0.03) * side, (y + 0.09) * side)
            pen.line([(x * side, y * side), end], fill=(190, 205, 225), width=max(1, side // 128))
    elif place == "snow":
        for x, y, size in r.uniform(0, 1, (FLAKES, 3)):
            x, y = x * side, (y + 0.25 * time_s) % 1.0 * side
            radius = (0.005 + 0.008 * size) * side
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(255, 255, 255))
