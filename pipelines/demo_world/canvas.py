"""What things and places are drawn on. In: shapes with a colour, a distance, a temperature. Out: layers of pixels.

Shapes are given in shares of the canvas: (0, 0) is its top left corner, (1, 1) its bottom right. Every shape goes to all the
layers at once, which is why colour, depth and heat always show the same scene. Depth and heat are 8-bit levels while they are
drawn: 0..255 is `NEAR_M`..`FAR_M` and `COLD_K`..`HOT_K`, linearly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom
RGB = tuple[int, int, int]

NEAR_M, FAR_M = 0.5, 20.0
COLD_K, HOT_K = 250.0, 350.0

MARGIN = 0.12  # around a sprite, so that turning it cuts nothing off
OUTLINE = 0.016  # of a sprite, as a share of its side
DARK, WHITE = (25, 25, 30), (245, 245, 240)


def depth_level(distance_m: float) -> int:
    """Metres -> 8-bit level."""
    return round(255 * float(np.clip((distance_m - NEAR_M) / (FAR_M - NEAR_M), 0, 1)))


def heat_level(kelvin: float) -> int:
    """Kelvin -> 8-bit level."""
    return round(255 * float(np.clip((kelvin - COLD_K) / (HOT_K - COLD_K), 0, 1)))


class Layers(NamedTuple):
    """One picture in three ways, of one size: colour (RGB), distance and temperature (L, levels)."""

    colour: Image.Image
    depth: Image.Image
    heat: Image.Image

    def copy(self) -> Layers:
        """Layers of their own, to draw on."""
        return Layers(*(layer.copy() for layer in self))


class Backdrop:
    """Where a place is drawn: the whole picture, with a distance and a temperature for each shape."""

    def __init__(self, side_px: int, r: np.random.Generator) -> None:
        self.r = r
        self.side_px = side_px
        size = (side_px, side_px)
        self.layers = Layers(Image.new("RGB", size), Image.new("L", size), Image.new("L", size))
        self._pens = [ImageDraw.Draw(layer) for layer in self.layers]

    def like(self, colour: RGB, spread: int = 14) -> RGB:
        """A colour near this one."""
        red, green, blue = (int(np.clip(v + self.r.integers(-spread, spread + 1), 0, 255)) for v in colour)
        return red, green, blue

    def box(self, box: Box, colour: RGB, distance_m: float, kelvin: float) -> None:
        """A filled rectangle."""
        for pen, ink in self._inks(colour, distance_m, kelvin):
            pen.rectangle([v * self.side_px for v in box], fill=ink)

    def ellipse(self, box: Box, colour: RGB, distance_m: float, kelvin: float) -> None:
        """A filled ellipse."""
        for pen, ink in self._inks(colour, distance_m, kelvin):
            pen.ellipse([v * self.side_px for v in box], fill=ink)

    def polygon(self, points: Sequence[Point], colour: RGB, distance_m: float, kelvin: float) -> None:
        """A filled polygon."""
        for pen, ink in self._inks(colour, distance_m, kelvin):
            pen.polygon([(x * self.side_px, y * self.side_px) for x, y in points], fill=ink)

    def line(self, points: Sequence[Point], colour: RGB, width: float, distance_m: float, kelvin: float) -> None:
        """A line of a width."""
        for pen, ink in self._inks(colour, distance_m, kelvin):
            place = [(x * self.side_px, y * self.side_px) for x, y in points]
            pen.line(place, fill=ink, width=max(1, round(width * self.side_px)))

    def _inks(self, colour: RGB, distance_m: float, kelvin: float) -> list[tuple[ImageDraw.ImageDraw, RGB | int]]:
        return list(zip(self._pens, (colour, depth_level(distance_m), heat_level(kelvin)), strict=True))


class Sprite:
    """Where a thing is drawn: colour, heat and a silhouette, with an outline around it.

    Inks: "body" is the scene's colour, "shade" and "light" are made from it, "dark" and "white" are the same for all.
    """

    def __init__(self, side_px: int, body: RGB, kelvin: float, r: np.random.Generator) -> None:
        self.r = r
        self.kelvin = kelvin
        self._unit_px = side_px
        self._margin_px = MARGIN * side_px
        self._outline_px = max(1.0, OUTLINE * side_px)
        size = (round(side_px + 2 * self._margin_px),) * 2
        self.colour = Image.new("RGB", size, DARK)  # what shows around the shapes is the outline
        self.heat = Image.new("L", size, heat_level(kelvin))
        self.mask = Image.new("L", size, 0)
        self._pens = ImageDraw.Draw(self.colour), ImageDraw.Draw(self.heat), ImageDraw.Draw(self.mask)
        red, green, blue = body
        self._inks = {
            "body": body,
            "shade": (int(red * 0.6), int(green * 0.6), int(blue * 0.6)),
            "light": (int(red * 0.55 + 115), int(green * 0.55 + 115), int(blue * 0.55 + 115)),
            "dark": DARK,
            "white": WHITE,
        }

    def wobble(self, spread: float = 0.03) -> float:
        """A small number, another one each time, so that no two things are drawn alike."""
        return float(self.r.uniform(-spread, spread))

    def ellipse(self, box: Box, ink: str = "body", kelvin: float | None = None) -> None:
        """A filled ellipse."""
        grown, place = self._box(box)
        colour, heat, mask = self._pens
        colour.ellipse(place, fill=self._inks[ink])
        heat.ellipse(place, fill=self._level(kelvin))
        mask.ellipse(grown, fill=255)

    def box(self, box: Box, ink: str = "body", kelvin: float | None = None) -> None:
        """A filled rectangle."""
        grown, place = self._box(box)
        colour, heat, mask = self._pens
        colour.rectangle(place, fill=self._inks[ink])
        heat.rectangle(place, fill=self._level(kelvin))
        mask.rectangle(grown, fill=255)

    def polygon(self, points: Sequence[Point], ink: str = "body", kelvin: float | None = None) -> None:
        """A filled polygon."""
        place = self._points(points)
        colour, heat, mask = self._pens
        colour.polygon(place, fill=self._inks[ink])
        heat.polygon(place, fill=self._level(kelvin))
        mask.polygon(place, fill=255)
        mask.line([*place, place[0], place[1]], fill=255, width=round(2 * self._outline_px), joint="curve")

    def line(self, points: Sequence[Point], ink: str = "dark", width: float = 0.03, kelvin: float | None = None) -> None:
        """A line of a width, rounded where it bends."""
        place = self._points(points)
        width_px = max(1, round(width * self._unit_px))
        grown_px = width_px + round(2 * self._outline_px) if ink != "dark" else width_px  # dark lines are outline already
        colour, heat, mask = self._pens
        colour.line(place, fill=self._inks[ink], width=width_px, joint="curve")
        heat.line(place, fill=self._level(kelvin), width=width_px, joint="curve")
        mask.line(place, fill=255, width=grown_px, joint="curve")

    def mirror(self) -> None:
        """Left becomes right."""
        flip = Image.Transpose.FLIP_LEFT_RIGHT
        self.colour, self.heat, self.mask = (layer.transpose(flip) for layer in (self.colour, self.heat, self.mask))

    def _level(self, kelvin: float | None) -> int:
        return heat_level(self.kelvin if kelvin is None else kelvin)

    def _points(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._unit_px + self._margin_px, y * self._unit_px + self._margin_px) for x, y in points]

    def _box(self, box: Box) -> tuple[list[float], list[float]]:
        """The box in pixels: with the outline, and without."""
        left, top, right, bottom = (v * self._unit_px + self._margin_px for v in box)
        o = self._outline_px
        return [left - o, top - o, right + o, bottom + o], [left, top, right, bottom]
