"""A small generated world in seven modalities, for people and tests with no data. In: seeds. Out: scenes, media, corpora."""

from pipelines.demo_world.corpus import corpus_metadata, write_corpus
from pipelines.demo_world.files import MODALITIES
from pipelines.demo_world.inertia import imu
from pipelines.demo_world.picture import depth_mm, image, thermal_ck, video
from pipelines.demo_world.scene import (
    CAPTION_OPENINGS,
    CAPTION_WORDS,
    COLOURS,
    MOTION_WORDS,
    MOTIONS,
    PLACE_WORDS,
    PLACES,
    THING_WORDS,
    THINGS,
    Scene,
    caption,
    grid,
    scene,
)
from pipelines.demo_world.sound import ambience, audio

__all__ = [
    "CAPTION_OPENINGS",
    "CAPTION_WORDS",
    "COLOURS",
    "MODALITIES",
    "MOTIONS",
    "MOTION_WORDS",
    "PLACES",
    "PLACE_WORDS",
    "THINGS",
    "THING_WORDS",
    "Scene",
    "ambience",
    "audio",
    "caption",
    "corpus_metadata",
    "depth_mm",
    "grid",
    "image",
    "imu",
    "scene",
    "thermal_ck",
    "video",
    "write_corpus",
]
