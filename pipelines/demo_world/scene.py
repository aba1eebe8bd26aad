"""What happens in a scene, and how it is said. In: a seed. Out: a `Scene`, captions, word lists, held-out scenes.

A scene is one of 24 things in one of 6 places, in one of 8 colours, moving in one of 6 ways. Everything that is ever made of
it (pictures, sound, words, motion) is a pure function of the scene, so any part can be made anywhere, in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

import numpy as np

THING_WORDS = MappingProxyType(
    {
        "bell": ["bell", "church bell"],
        "drum": ["drum"],
        "bird": ["bird", "songbird"],
        "cricket": ["cricket"],
        "frog": ["frog", "toad"],
        "clock": ["clock"],
        "ambulance": ["ambulance"],
        "helicopter": ["helicopter", "chopper"],
        "train": ["train", "locomotive"],
        "car": ["car", "automobile"],
        "bee": ["bee"],
        "cat": ["cat", "kitten"],
        "dog": ["dog", "puppy"],
        "cow": ["cow"],
        "duck": ["duck"],
        "owl": ["owl"],
        "phone": ["phone", "telephone"],
        "guitar": ["guitar"],
        "kettle": ["kettle", "teapot"],
        "campfire": ["campfire", "fire"],
        "ship": ["ship", "boat"],
        "rocket": ["rocket", "spaceship"],
        "robot": ["robot"],
        "snake": ["snake"],
    }
)
PLACE_WORDS = MappingProxyType(
    {
        "sea": ["by the sea", "at the beach", "on the shore", "near the ocean waves"],
        "rain": ["in the rain", "on a rainy day", "in a rain storm"],
        "forest": ["in the forest", "in the woods", "among trees"],
        "city": ["in the city", "in town", "on a city street"],
        "cave": ["in a cave", "inside a dark cave", "underground"],
        "snow": ["in the snow", "on a snowy mountain", "in a winter storm"],
    }
)
MOTION_WORDS = MappingProxyType(
    {
        "still": ["standing still", "not moving", "at rest"],
        "shaking": ["shaking", "trembling", "that shakes"],
        "spinning": ["spinning", "spinning around", "that spins"],
        "bouncing": ["bouncing", "bouncing up and down", "that bounces"],
        "sliding": ["sliding", "sliding sideways", "that slides"],
        "swinging": ["swinging", "swinging back and forth", "that swings"],
    }
)
CAPTION_OPENINGS = ("", "a picture of ", "a photo of ", "this is ", "there is ", "look at ", "i see ")

THINGS = tuple(THING_WORDS)
PLACES = tuple(PLACE_WORDS)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
MOTIONS = tuple(MOTION_WORDS)

ARTICLES = ("a", "a", "the", "one")  # "a" becomes "an" where it must
VOWELS = "aeiou"
NAMELESS = "something"
NAMED = MappingProxyType({"thing": 0.97, "place": 0.60, "colour": 0.50, "motion": 0.45})  # how often a caption says it
EXTRA_STILL = 2  # "still" has 1 + 2 of 8 parts, every other motion one

ROUND = len(THINGS) * len(PLACES)  # 144 scenes: one for each thing in each place
HELD_OUT_SEED = 9_000_000
DEMO_SEED = 8_000_000


class Stream(IntEnum):
    """Independent random numbers for each purpose, so that one modality never depends on whether another was made."""

    SCENE = 0
    CAPTION = 1
    SHOT = 2
    DRAWING = 3
    IMAGE_NOISE = 4
    DEPTH_NOISE = 5
    THERMAL_NOISE = 6
    WEATHER = 7
    SOUND = 8
    AMBIENCE = 9
    IMU = 10
    FORMAT = 11
    LIGHT = 12


def random_numbers(stream: Stream, seed: int, n: int = 0) -> np.random.Generator:
    """The random numbers of one purpose of one scene."""
    return np.random.default_rng([seed, int(stream), n])


@dataclass(frozen=True)
class Scene:
    """One thing, somewhere, in a colour, in motion; `seed` decides everything else."""

    seed: int
    thing: str
    place: str
    colour: str
    motion: str

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: a scene's seed is 0 or more")
        for name, known in (("thing", THINGS), ("place", PLACES), ("colour", COLOURS), ("motion", MOTIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is not in this world; choose from {', '.join(known)}")


def scene(seed: int, **fixed: str) -> Scene:
    """The scene of a seed.

    Args:
        seed: 0 or more.
        fixed: any of thing, place, colour, motion, to set them instead of drawing them.

    Raises:
        ValueError: a negative seed, or a name that is not in this world.
    """
    unknown = set(fixed) - {"thing", "place", "colour", "motion"}
    if unknown:
        raise ValueError(f"a scene has no {sorted(unknown)[0]!r}; what can be fixed: thing, place, colour, motion")
    if seed < 0:
        raise ValueError(f"seed is {seed}: a scene's seed is 0 or more")
    r = random_numbers(Stream.SCENE, seed)
    drawn = {
        "thing": THINGS[int(r.integers(len(THINGS)))],
        "place": PLACES[int(r.integers(len(PLACES)))],
        "colour": COLOURS[int(r.integers(len(COLOURS)))],
        "motion": MOTIONS[max(0, int(r.integers(len(MOTIONS) + EXTRA_STILL)) - EXTRA_STILL)],
    }
    return Scene(seed, **(drawn | fixed))


def grid(rounds: int, first_seed: int = HELD_OUT_SEED) -> list[Scene]:
    """Held-out scenes: every thing in every place, once per round (144 each), with the other attributes drawn.

    Raises:
        ValueError: fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}: ask for at least one round of {ROUND} scenes")
    combinations = [(thing, place) for _ in range(rounds) for thing in THINGS for place in PLACES]
    return [scene(first_seed + i, thing=thing, place=place) for i, (thing, place) in enumerate(combinations)]


def caption(scene: Scene, n: int = 0) -> str:
    """The scene in words; every `n` says it differently, naming some of its attributes (`NAMED`), never a wrong one."""
    r = random_numbers(Stream.CAPTION, scene.seed, n)

    def one_of(words: Sequence[str]) -> str:
        return words[int(r.integers(len(words)))]

    def is_named(attribute: str) -> bool:
        return float(r.random()) < NAMED[attribute]

    opening = one_of(CAPTION_OPENINGS)
    colour = scene.colour if is_named("colour") else ""
    if is_named("thing"):
        article, thing = one_of(ARTICLES), one_of(THING_WORDS[scene.thing])
    else:
        article, thing = "", NAMELESS
    motion = one_of(MOTION_WORDS[scene.motion]) if is_named("motion") else ""
    place = one_of(PLACE_WORDS[scene.place]) if is_named("place") else ""
    if article == "a" and (colour or thing)[0] in VOWELS:
        article = "an"
    return " ".join(f"{opening} {article} {colour} {thing} {motion} {place}".split())


def _caption_words() -> tuple[str, ...]:
    said = [*CAPTION_OPENINGS, *ARTICLES, "an", NAMELESS, *COLOURS]
    for words in (THING_WORDS, PLACE_WORDS, MOTION_WORDS):
        said += [*words, *(phrase for phrases in words.values() for phrase in phrases)]
    return tuple(sorted(set(" ".join(said).split())))


CAPTION_WORDS = _caption_words()  # every word that a caption can contain, and the names of things, places and motions
