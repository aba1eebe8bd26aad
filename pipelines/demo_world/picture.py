"""Pictures of a scene: colour, depth, heat, moving. In: a scene. Out: arrays of 128 x 128 pixels.

All of them are views of one stage: the place as backdrop, the thing as a sprite at some size, place, angle and time of its
motion. Drawn at twice the size and averaged down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from pipelines.demo_world import marks
from pipelines.demo_world.animals import ANIMALS
from pipelines.demo_world.canvas import COLD_K, FAR_M, HOT_K, NEAR_M, RGB, Backdrop, Layers, Sprite, depth_level
from pipelines.demo_world.motion import PERIOD_S, Pose, pose
from pipelines.demo_world.objects import OBJECTS
from pipelines.demo_world.places import BACKDROPS, fall
from pipelines.demo_world.scene import Scene, Stream, random_numbers

SIDE_PX = 128
DRAWN_PX = 2 * SIDE_PX
FRAMES, DURATION_S = 8, 2.0
FRAMES_PER_S = 4
HORIZON = (0.45, 0.62)  # share of the picture's height
GHOSTS = ((-0.3, 0.2), (-0.2, 0.3), (-0.1, 0.45))  # when, in periods of the motion, and how opaque
BRIGHTNESS = (0.85, 1.12)
IMAGE_NOISE = 4.0  # standard deviation, in 8-bit steps; depth and heat likewise
DEPTH_NOISE, HEAT_NOISE, HEAT_OFFSET = 5.0, 6.0, 10.0
HEAT_BLUR_PX = 2.4

THING_PAINTERS = ANIMALS | OBJECTS
COLOUR_RGB: dict[str, RGB] = {
    "red": (214, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (240, 215, 50),
    "green": (60, 160, 60),
    "blue": (45, 90, 210),
    "purple": (135, 60, 170),
    "pink": (245, 130, 180),
    "brown": (125, 80, 45),
}
SURFACE_K = {
    "bell": 285,
    "drum": 290,
    "bird": 322,
    "cricket": 295,
    "frog": 292,
    "clock": 288,
    "ambulance": 310,
    "helicopter": 315,
    "train": 325,
    "car": 312,
    "bee": 305,
    "cat": 324,
    "dog": 323,
    "cow": 326,
    "duck": 318,
    "owl": 320,
    "phone": 300,
    "guitar": 286,
    "kettle": 335,
    "campfire": 350,
    "ship": 300,
    "rocket": 340,
    "robot": 305,
    "snake": 290,
}


@dataclass(frozen=True)
class Shot:
    """How the thing is in the picture; sizes and places as shares of its side."""

    size: float
    x: float
    y: float
    amplitude: float
    phase: float
    time_s: float
    mirrored: bool


def shot(scene: Scene) -> Shot:
    """The shot of a scene."""
    r = random_numbers(Stream.SHOT, scene.seed)
    return Shot(
        size=r.uniform(0.5, 0.8),
        x=r.uniform(0.4, 0.6),
        y=r.uniform(0.5, 0.62),
        amplitude=r.uniform(0.85, 1.15),
        phase=r.uniform(0, 2 * np.pi),
        time_s=r.uniform(0, DURATION_S),
        mirrored=bool(r.random() < 0.5),
    )


class Stage:
    """A scene, set up once for all its pictures."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.shot = shot(scene)
        r = random_numbers(Stream.DRAWING, scene.seed)
        backdrop = Backdrop(DRAWN_PX, r)
        BACKDROPS[scene.place](backdrop, r.uniform(*HORIZON))
        self.backdrop = backdrop.layers
        red, green, blue = (int(np.clip(v + r.integers(-18, 19), 0, 255)) for v in COLOUR_RGB[scene.colour])
        kelvin = SURFACE_K[scene.thing] + r.uniform(-5, 5)
        self.sprite = Sprite(round(self.shot.size * DRAWN_PX), (red, green, blue), kelvin, r)
        THING_PAINTERS[scene.thing](self.sprite)
        if self.shot.mirrored:
            self.sprite.mirror()
        self.level = depth_level(12.0 - 13.0 * (self.shot.size - 0.45) + r.uniform(-0.6, 0.6))  # larger is nearer

    def image(self) -> npt.NDArray[np.uint8]:
        """See `image`."""
        return self._photograph(self._layers.colour, 0)

    def video(self) -> npt.NDArray[np.uint8]:
        """See `video`."""
        return np.stack([self._photograph(self.at(n / FRAMES_PER_S, only_colour=True).colour, n) for n in range(FRAMES)])

    def depth_mm(self) -> npt.NDArray[np.uint16]:
        """See `depth_mm`."""
        level = np.asarray(self._layers.depth.reduce(2), np.float32)
        noise = random_numbers(Stream.DEPTH_NOISE, self.scene.seed).standard_normal(level.shape, dtype=np.float32)
        share = np.clip(level + np.float32(DEPTH_NOISE) * noise, 0, 255) / np.float32(255)
        millimetres: npt.NDArray[np.uint16] = np.rint(1000 * (NEAR_M + (FAR_M - NEAR_M) * share)).astype(np.uint16)
        return millimetres

    def thermal_ck(self) -> npt.NDArray[np.uint16]:
        """See `thermal_ck`."""
        heat = self._layers.heat.reduce(2).filter(ImageFilter.GaussianBlur(HEAT_BLUR_PX))
        r = random_numbers(Stream.THERMAL_NOISE, self.scene.seed)
        noise = np.float32(HEAT_NOISE) * r.standard_normal((SIDE_PX, SIDE_PX), dtype=np.float32)
        level = np.asarray(heat, np.float32) + noise + np.float32(r.uniform(-HEAT_OFFSET, HEAT_OFFSET))
        share = np.clip(level, 0, 255) / np.float32(255)
        centikelvin: npt.NDArray[np.uint16] = np.rint(100 * (COLD_K + (HOT_K - COLD_K) * share)).astype(np.uint16)
        return centikelvin

    @cached_property
    def _layers(self) -> Layers:
        """What the still pictures show."""
        return self.at(self.shot.time_s)

    def at(self, time_s: float, *, only_colour: bool = False) -> Layers:
        """The scene at a time, `DRAWN_PX` wide; heat without the thing where only colour is wanted."""
        layers, shot = self.backdrop.copy(), self.shot
        motion = self.scene.motion
        now = pose(motion, time_s, shot.amplitude, shot.phase)
        if motion == "swinging":
            end = ((shot.x + now.right) * DRAWN_PX, (shot.y + now.down) * DRAWN_PX)
            marks.string(layers.colour, layers.depth, self.level, (shot.x * DRAWN_PX, 0), end)
        drawn = [(self.sprite.colour, layers.colour)]
        if not only_colour:
            drawn.append((self.sprite.heat, layers.heat))
        for periods, opacity in GHOSTS if motion != "still" else ():
            then = pose(motion, time_s + periods * PERIOD_S[motion], shot.amplitude, shot.phase)
            self._paste(drawn, then, opacity)
        mask, corner = self._paste(drawn, now)
        layers.depth.paste(self.level, corner, mask)  # ghosts leave warmth but are at no distance
        if motion in marks.MARKS:
            spot = marks.Spot(shot.x * DRAWN_PX, shot.y * DRAWN_PX, shot.size * DRAWN_PX / 2, shot.mirrored)
            marks.MARKS[motion](marks.Marker(layers.colour), spot)
        fall(self.scene.place, layers.colour, time_s, random_numbers(Stream.WEATHER, self.scene.seed))
        return layers

    def _photograph(self, drawn: Image.Image, n: int) -> npt.NDArray[np.uint8]:
        """(128, 128, 3) uint8: what was drawn, in the light of its scene, with the noise of frame n."""
        picture = np.asarray(drawn.reduce(2), np.float32)
        light = random_numbers(Stream.LIGHT, self.scene.seed).uniform(*BRIGHTNESS)
        noise = random_numbers(Stream.IMAGE_NOISE, self.scene.seed, n).standard_normal(picture.shape, dtype=np.float32)
        return np.clip(picture * np.float32(light) + np.float32(IMAGE_NOISE) * noise, 0, 255).astype(np.uint8)

    def _paste(
        self, drawn: list[tuple[Image.Image, Image.Image]], pose: Pose, opacity: float = 1.0
    ) -> tuple[Image.Image, tuple[int, int]]:
        """Put (what, into what) at a pose, transparent where opacity is below 1; the silhouette that was used, and where."""
        smooth = Image.Resampling.BILINEAR if opacity == 1 else Image.Resampling.NEAREST

        def turned(layer: Image.Image) -> Image.Image:
            return layer.rotate(pose.turn_deg, smooth) if pose.turn_deg else layer

        mask = turned(self.sprite.mask)
        if opacity < 1:
            mask = mask.point([int(opacity * v) for v in range(256)])
        x = int((self.shot.x + pose.right) * DRAWN_PX - mask.width / 2)
        y = int((self.shot.y + pose.down) * DRAWN_PX - mask.height / 2)
        for what, into in drawn:
            into.paste(turned(what), (x, y), mask)
        return mask, (x, y)


def image(scene: Scene) -> npt.NDArray[np.uint8]:
    """A picture of the scene: (128, 128, 3) uint8, RGB."""
    return Stage(scene).image()


def video(scene: Scene) -> npt.NDArray[np.uint8]:
    """The scene moving: (8, 128, 128, 3) uint8, RGB, 4 frames a second."""
    return Stage(scene).video()


def depth_mm(scene: Scene) -> npt.NDArray[np.uint16]:
    """How far everything in the picture is: (128, 128) uint16, millimetres, 500 (near) to 20000 (the sky)."""
    return Stage(scene).depth_mm()


def thermal_ck(scene: Scene) -> npt.NDArray[np.uint16]:
    """How warm everything in the picture is: (128, 128) uint16, centikelvin (0.01 K), 25000 to 35000."""
    return Stage(scene).thermal_ck()
