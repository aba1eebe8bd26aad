"""Comic marks that show a motion in a still picture. In: finished layers, where the thing is. Out: the layers, marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from pipelines.demo_world.canvas import Point

PAPER, INK = (250, 250, 250), (20, 20, 25)


@dataclass(frozen=True)
class Spot:
    """Where the thing rests in the picture, in pixels: its middle and half its side; and which way it faces."""

    x: float
    y: float
    half: float
    mirrored: bool


class Marker:
    """A white pen with a dark edge."""

    def __init__(self, picture: Image.Image) -> None:
        self.side = picture.width
        self.pen = ImageDraw.Draw(picture)
        self.width = max(1, self.side // 64)

    def line(self, points: Sequence[Point]) -> None:
        """A line through points, in pixels."""
        self.pen.line(list(points), fill=INK, width=2 * self.width)
        self.pen.line(list(points), fill=PAPER, width=self.width)

    def arrow_arc(self, spot: Spot, start_deg: float) -> None:
        """A third of a circle around the thing, with a ball at its end."""
        around, radius, end_deg = 1.12 * spot.half, 0.05 * self.side, start_deg + 110
        box = [spot.x - around, spot.y - around, spot.x + around, spot.y + around]
        self.pen.arc(box, start_deg, end_deg, fill=INK, width=3 * self.width)
        self.pen.arc(box, start_deg, end_deg, fill=PAPER, width=2 * self.width)
        x = spot.x + 1.1 * spot.half * math.cos(math.radians(end_deg))
        y = spot.y + 1.1 * spot.half * math.sin(math.radians(end_deg))
        self.pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=PAPER, outline=INK, width=self.width)


def shaking(m: Marker, s: Spot) -> None:
    """Zigzags at both sides."""
    for side in (-1, 1):
        for away in (1.0, 1.16):
            x = s.x + side * s.half * away
            m.line([(x + (-1) ** (i + 1) * 0.035 * m.side, s.y + s.half * (0.24 * i - 0.6)) for i in range(6)])


def spinning(m: Marker, s: Spot) -> None:
    """Two arcs around it."""
    m.arrow_arc(s, 200)
    m.arrow_arc(s, 20)


def bouncing(m: Marker, s: Spot) -> None:
    """A shadow on the ground and bent lines at both sides."""
    ground = min(0.96 * m.side, s.y + 1.15 * s.half + 0.06 * m.side)
    m.pen.ellipse([s.x - 0.7 * s.half, ground - 0.03 * m.side, s.x + 0.7 * s.half, ground + 0.03 * m.side], fill=INK)
    for side in (-1, 1):
        m.line([(s.x + side * s.half * away, s.y + s.half * down) for away, down in ((0.95, 0.9), (1.05, 0.1), (0.95, -0.7))])


def sliding(m: Marker, s: Spot) -> None:
    """Speed lines from the edge that it comes from."""
    start, end = (0.0, 0.24 * m.side) if s.mirrored else (float(m.side), 0.76 * m.side)
    for i in range(4):
        y = s.y + s.half * (0.48 * i - 0.7)
        m.line([(start, y), (end, y)])


MARKS: dict[str, Callable[[Marker, Spot], None]] = {
    "shaking": shaking,
    "spinning": spinning,
    "bouncing": bouncing,
    "sliding": sliding,
}


def string(colour: Image.Image, depth: Image.Image, level: int, top: Point, end: Point) -> None:
    """The string of a swinging thing; drawn before the thing, so that it ends behind it."""
    width = max(1, colour.width // 64)
    pen = ImageDraw.Draw(colour)
    pen.line([top, end], fill=INK, width=3 * width)
    pen.line([top, end], fill=PAPER, width=2 * width)
    ImageDraw.Draw(depth).line([top, end], fill=level, width=2 * width)
