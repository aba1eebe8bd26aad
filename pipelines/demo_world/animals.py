"""Ten animals, drawn. In: an empty sprite. Out: the sprite with the animal on it, facing right or the viewer."""

from __future__ import annotations

import math

from pipelines.demo_world.canvas import Sprite


def _eye(s: Sprite, x: float, y: float, size: float = 0.06, pupil: float = 0.5) -> None:
    """A white eye with a dark pupil, centred at x, y."""
    s.ellipse((x - size, y - size, x + size, y + size), "white")
    s.ellipse((x - size * pupil, y - size * pupil, x + size * pupil, y + size * pupil), "dark")


def bird(s: Sprite) -> None:
    """A round songbird with a raised wing, a tail and a beak."""
    s.line([(0.42, 0.72), (0.4, 0.92), (0.48, 0.92)])
    s.line([(0.52, 0.72), (0.52, 0.92), (0.6, 0.92)])
    s.polygon([(0.26, 0.55), (0.02, 0.42 + s.wobble()), (0.05, 0.66)], "shade")
    s.ellipse((0.2, 0.4, 0.7, 0.76))
    s.polygon([(0.78, 0.29), (0.98, 0.36 + s.wobble()), (0.78, 0.42)], "dark")
    s.ellipse((0.54, 0.19, 0.83, 0.49))
    s.ellipse((0.4, 0.52, 0.66, 0.74), "light")
    s.polygon([(0.29, 0.5), (0.56, 0.52), (0.24 + s.wobble(), 0.18)], "shade")
    _eye(s, 0.71, 0.31, 0.045)


def cricket(s: Sprite) -> None:
    """A long body, one big bent hind leg, two feelers."""
    s.ellipse((0.15, 0.48, 0.75, 0.66))
    s.polygon([(0.2, 0.52), (0.05, 0.44 + s.wobble()), (0.55, 0.5), (0.5, 0.58)], "light")
    s.line([(0.55, 0.62), (0.6, 0.85), (0.66, 0.86)], "dark", 0.022)
    s.line([(0.68, 0.62), (0.75, 0.85), (0.81, 0.86)], "dark", 0.022)
    s.line([(0.84, 0.45), (0.98, 0.15 + s.wobble())], "dark", 0.018)
    s.line([(0.8, 0.44), (0.85, 0.1)], "dark", 0.018)
    s.line([(0.47, 0.61), (0.28 + s.wobble(), 0.27)], "shade", 0.065)
    s.line([(0.28, 0.27), (0.14, 0.86), (0.22, 0.87)], "shade", 0.035)
    s.ellipse((0.68, 0.4, 0.9, 0.62), "shade")
    _eye(s, 0.82, 0.49, 0.045)


def frog(s: Sprite) -> None:
    """A wide face seen from the front, eyes on top, big feet."""
    s.ellipse((0.04, 0.72, 0.32, 0.92), "shade")
    s.ellipse((0.68, 0.72, 0.96, 0.92), "shade")
    s.ellipse((0.2, 0.2, 0.44, 0.48))
    s.ellipse((0.56, 0.2, 0.8, 0.48))
    s.ellipse((0.15, 0.38, 0.85, 0.85))
    s.ellipse((0.3, 0.64, 0.7, 0.84), "light")
    _eye(s, 0.32, 0.33, 0.075)
    _eye(s, 0.68, 0.33, 0.075)
    s.line([(0.26, 0.57), (0.38, 0.63), (0.5, 0.65 + s.wobble()), (0.62, 0.63), (0.74, 0.57)], "dark", 0.03)


def bee(s: Sprite) -> None:
    """Two wings over a striped body with a sting."""
    s.ellipse((0.34, 0.12, 0.56, 0.5), "white")
    s.ellipse((0.52, 0.12, 0.76, 0.5), "white")
    s.polygon([(0.23, 0.51), (0.06, 0.575), (0.23, 0.64)], "dark")
    s.ellipse((0.2, 0.4, 0.8, 0.75))
    for x in (0.31, 0.45, 0.59):
        half = 0.165 * math.sqrt(max(0.0, 1 - ((x + 0.03 - 0.5) / 0.3) ** 2))
        s.box((x, 0.575 - half, x + 0.065, 0.575 + half), "dark")
    s.ellipse((0.71, 0.44, 0.93, 0.68), "dark")
    _eye(s, 0.84, 0.54, 0.04)
    s.line([(0.8, 0.47), (0.84, 0.3 + s.wobble())], "dark", 0.022)
    s.line([(0.86, 0.47), (0.95, 0.32 + s.wobble())], "dark", 0.022)


def cat(s: Sprite) -> None:
    """A face with pointed ears, slit eyes and whiskers."""
    for side in (-1, 1):
        s.polygon([(0.5 + side * 0.31, 0.5), (0.5 + side * 0.31 + s.wobble(), 0.08), (0.5 + side * 0.05, 0.32)])
        s.polygon([(0.5 + side * 0.26, 0.4), (0.5 + side * 0.27, 0.17), (0.5 + side * 0.12, 0.33)], "light")
    s.ellipse((0.18, 0.28, 0.82, 0.88))
    for x in (0.37, 0.63):
        s.ellipse((x - 0.065, 0.44, x + 0.065, 0.6), "white")
        s.ellipse((x - 0.022, 0.45, x + 0.022, 0.59), "dark")
    s.polygon([(0.45, 0.64), (0.55, 0.64), (0.5, 0.7)], "dark")
    s.line([(0.4, 0.76), (0.46, 0.77), (0.5, 0.71), (0.54, 0.77), (0.6, 0.76)], "dark", 0.02)
    for side in (-1, 1):
        for rise in (-0.07, 0.0, 0.07):
            s.line([(0.5 + side * 0.14, 0.7 + rise * 0.4), (0.5 + side * 0.48, 0.69 + rise)], "dark", 0.016)


def dog(s: Sprite) -> None:
    """A face with long hanging ears, a light muzzle and its tongue out."""
    s.ellipse((0.22, 0.16, 0.78, 0.82))
    s.ellipse((0.07, 0.2, 0.31, 0.74 + s.wobble()), "shade")
    s.ellipse((0.69, 0.2, 0.93, 0.74 + s.wobble()), "shade")
    s.polygon([(0.44, 0.76), (0.56, 0.76), (0.55, 0.93), (0.5, 0.96), (0.45, 0.93)], "white")
    s.ellipse((0.32, 0.5, 0.68, 0.84), "light")
    s.ellipse((0.41, 0.5, 0.59, 0.63), "dark")
    s.line([(0.5, 0.62), (0.5, 0.72), (0.4, 0.76)], "dark", 0.022)
    s.line([(0.5, 0.72), (0.6, 0.76)], "dark", 0.022)
    _eye(s, 0.39, 0.4, 0.055, 0.7)
    _eye(s, 0.61, 0.4, 0.055, 0.7)


def cow(s: Sprite) -> None:
    """A spotted body on four legs, a horned head with a white muzzle."""
    s.line([(0.1, 0.36), (0.03, 0.46), (0.03, 0.66 + s.wobble())], "shade", 0.03)
    for x in (0.12, 0.25, 0.48, 0.61):
        s.box((x, 0.6, x + 0.08, 0.9), "shade")
        s.box((x, 0.86, x + 0.08, 0.91), "dark")
    s.box((0.1, 0.34, 0.7, 0.66))
    s.ellipse((0.38, 0.6, 0.54, 0.72), "light")
    s.ellipse((0.14, 0.37, 0.32, 0.53), "white")
    s.ellipse((0.38, 0.42, 0.56, 0.6), "white")
    s.polygon([(0.69, 0.26), (0.6, 0.08), (0.76, 0.22)], "white")
    s.polygon([(0.82, 0.22), (0.96, 0.06), (0.9, 0.27)], "white")
    s.ellipse((0.54, 0.26, 0.68, 0.36), "shade")
    s.ellipse((0.62, 0.2, 0.94, 0.6))
    s.ellipse((0.68, 0.43, 0.98, 0.63), "white")
    s.ellipse((0.86, 0.48, 0.92, 0.55), "dark")
    s.ellipse((0.74, 0.48, 0.8, 0.55), "dark")
    s.ellipse((0.75, 0.29, 0.82, 0.37), "dark")


def duck(s: Sprite) -> None:
    """A boat-shaped body with a folded wing, a neck and a flat bill."""
    s.polygon([(0.2, 0.66), (0.03, 0.42 + s.wobble()), (0.32, 0.54)])
    s.box((0.6, 0.28, 0.76, 0.62))
    s.ellipse((0.1, 0.46, 0.84, 0.88))
    s.polygon([(0.76, 0.22), (0.99, 0.24), (0.99, 0.32), (0.76, 0.35)], "white")
    s.ellipse((0.52, 0.1, 0.83, 0.41))
    s.line([(0.8, 0.285), (0.98, 0.28)], "dark", 0.016)
    s.ellipse((0.26, 0.54, 0.6, 0.76 + s.wobble()), "shade")
    s.line([(0.36, 0.66), (0.46, 0.72), (0.56, 0.66)], "body", 0.02)
    _eye(s, 0.71, 0.22, 0.04)


def owl(s: Sprite) -> None:
    """An upright body with ear tufts, enormous eyes and a light belly."""
    for side in (-1, 1):
        s.polygon([(0.5 + side * 0.26, 0.3), (0.5 + side * 0.29 + s.wobble(), 0.03), (0.5 + side * 0.04, 0.2)])
    s.ellipse((0.22, 0.13, 0.78, 0.93))
    s.ellipse((0.17, 0.42, 0.36, 0.84), "shade")
    s.ellipse((0.64, 0.42, 0.83, 0.84), "shade")
    s.ellipse((0.35, 0.54, 0.65, 0.9), "light")
    for x in (0.42, 0.54):
        s.line([(x - 0.03, 0.66), (x + 0.02, 0.7), (x + 0.07, 0.66)], "shade", 0.02)
    _eye(s, 0.37, 0.35, 0.135)
    _eye(s, 0.63, 0.35, 0.135)
    s.polygon([(0.45, 0.42), (0.55, 0.42), (0.5, 0.55)], "dark")
    s.line([(0.4, 0.91), (0.4, 0.97)])
    s.line([(0.6, 0.91), (0.6, 0.97)])


def snake(s: Sprite) -> None:
    """A waving body with spots, a head and a forked tongue."""
    bends = 14 * s.r.uniform(0.93, 1.07)
    middle = [(x, 0.62 + 0.17 * math.sin(bends * x)) for x in (0.04 + 0.74 * i / 30 for i in range(31))]
    s.line(middle[:6], "body", 0.06)
    s.line(middle[3:], "body", 0.12)
    for x, y in middle[4::4]:
        s.ellipse((x - 0.028, y - 0.028, x + 0.028, y + 0.028), "dark")
    x, y = middle[-1]
    s.line([(x + 0.15, y - 0.01), (x + 0.21, y - 0.02), (x + 0.25, y - 0.07)], "dark", 0.018)
    s.line([(x + 0.21, y - 0.02), (x + 0.26, y + 0.02)], "dark", 0.018)
    s.ellipse((x - 0.07, y - 0.11, x + 0.17, y + 0.08), "shade")
    _eye(s, x + 0.07, y - 0.05, 0.04)


ANIMALS = {
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
