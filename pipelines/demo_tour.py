"""A tour of an index of the demo world. In: the index, a folder for the questions' files. Out: questions and answers.

Each answer says how often such questions are answered right, measured over the whole index.  N items, D dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import soundfile

from encoders.algebra import best_match, fuse, retrieve, zero_shot
from pipelines.demo_world import PLACE_WORDS, PLACES, THINGS, ambience, scene
from pipelines.demo_world.corpus import write_corpus
from pipelines.hits import Hits
from pipelines.index import Index

SEED = 8_000_000  # the questions' scenes are none of the index's
SOUND_RATE_HZ = 16_000
SHOWN = 4  # hits of an answer
ORDER = ("image", "video", "audio", "depth", "thermal", "imu", "text")
_COLUMNS = ("uri", "modality", "mime", "size_bytes", "duration_s", "text", "preview", "thing", "place")


@dataclass(frozen=True)
class Part:
    """One part of a question: words, or a file of a modality; `words` say what the file holds."""

    modality: str
    words: str
    path: Path | None = None


@dataclass(frozen=True)
class Answer:
    """A question and what the index says.

    Attributes:
        title: what this shows.
        told: how it works, for a stranger.
        asked: the parts of the question.
        wanted: what a right hit shows, {"thing": "dog"}; the truth, which no search ever sees.
        measured: how often such questions are answered right.
        hits: what was found; None where the answer is `labels`.
        labels: words and their probability, best first.
    """

    title: str
    told: str
    asked: Sequence[Part]
    wanted: Mapping[str, str]
    measured: str
    hits: Hits | None = None
    labels: Sequence[tuple[str, float]] = field(default_factory=list)


def take_tour(index: Index, folder: Path) -> list[Answer]:
    """Ask everything; the questions' files are written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, sounds = _items(index, "image"), _items(index, "audio")
    return [
        _one_sentence(index),
        _words_find_sounds(index, sounds),
        _sound_finds_pictures(index, folder, sounds, pictures),
        _motion_in_words(index, folder),
        _picture_and_sound(index, folder, pictures),
    ]


def _one_sentence(index: Index) -> Answer:
    wanted = {"thing": "campfire", "place": "snow"}
    words = _sentence(**wanted)
    found = [index.search(words, modality=name, k=1, columns=_COLUMNS) for name in ORDER]
    return Answer(
        "One sentence, every kind of media",
        "All media lie in one space, so words can be compared with pictures, videos, sounds, depth maps, heat pictures, motion "
        "traces and other words alike. Here is the nearest item of each kind.",
        [Part("text", words)],
        wanted,
        "A motion trace cannot tell where it was recorded: there only the thing can be right.",
        Hits(pa.concat_tables([hits.to_arrow() for hits in found]), found[0].query),
    )


def _words_find_sounds(index: Index, sounds: pd.DataFrame) -> Answer:
    wanted = {"thing": "dog", "place": "rain"}
    words = _sentence(**wanted)
    asked_ND = index.space.embed("text", [_sentence(*truth) for truth in _truth(sounds)])
    first = sounds.iloc[best_match(asked_ND, _vectors(sounds))[0]]
    right = sum(found == own for found, own in zip(_truth(first), _truth(sounds), strict=True))
    return Answer(
        "Words find sounds",
        "The sound encoder has never met a word. It learnt from pictures and their sounds; pictures were learnt with words. "
        "That is enough for words to find sounds.",
        [Part("text", words)],
        wanted,
        f"Of {len(sounds)} such sentences, {right} find the sound of that thing in that place first; guessing would find 1.",
        index.search(words, modality="audio", k=SHOWN, columns=_COLUMNS),
    )


def _sound_finds_pictures(index: Index, folder: Path, sounds: pd.DataFrame, pictures: pd.DataFrame) -> Answer:
    wanted = {"thing": "train", "place": "forest"}
    path = _file(folder, "audio", SEED + 1, **wanted)
    first = pictures.iloc[best_match(_vectors(sounds), _vectors(pictures))[0]]
    right = sum(found == own for found, own in zip(_truth(first), _truth(sounds), strict=True))
    return Answer(
        "A sound finds pictures",
        "No words at all: the sound's vector is compared with those of the pictures.",
        [Part("audio", "a new recording: a train in the forest", path)],
        wanted,
        f"Of {len(sounds)} sounds, {right} find the picture of that thing in that place first; guessing would find 1.",
        index.search(audio=path, modality="image", k=SHOWN, columns=_COLUMNS),
    )


def _motion_in_words(index: Index, folder: Path) -> Answer:
    path = _file(folder, "imu", SEED + 2, thing="helicopter", motion="shaking")
    (odds,) = zero_shot(index.space, "imu", [path], THINGS, template="a {}")
    truth = _items(index, "imu").set_index("item_id")["thing"]
    said = index.zero_shot(THINGS, template="a {}", modality="imu").set_index("item_id")["label"]
    right = int((said == truth[said.index]).sum())
    return Answer(
        "A motion trace, in words",
        f"Six numbers, 100 times a second, from something that moves. Asked which of {len(THINGS)} words fits best.",
        [Part("imu", "a new trace: a shaking helicopter", path)],
        {"thing": "helicopter"},
        f"Of {len(said)} traces, {right} are named right; guessing would name {len(said) / len(THINGS):.0f}. No trace was ever "
        "learnt together with a word.",
        labels=sorted(odds.items(), key=lambda pair: -pair[1])[:6],
    )


def _picture_and_sound(index: Index, folder: Path, pictures: pd.DataFrame) -> Answer:
    picture = _file(folder, "image", SEED + 3, thing="owl", place="city")
    sound = folder / "sea.wav"
    soundfile.write(sound, ambience("sea", SEED + 3), SOUND_RATE_HZ)
    both, picture_alone, sound_alone, count = _measure_sums(index, folder, pictures)
    return Answer(
        "A picture plus a sound",
        "Two vectors are added up: the thing is to come from the picture, the place from the sound.",
        [Part("image", "an owl in the city", picture), Part("audio", "the sea, and nothing else", sound)],
        {"thing": "owl", "place": "sea"},
        f"Of {count} such sums, {both:.0%} find that thing in that place first; the picture alone does in {picture_alone:.0%}, "
        f"the sound alone in {sound_alone:.0%}.",
        index.search(image=picture, audio=sound, modality="image", k=SHOWN, columns=_COLUMNS),
    )


def _measure_sums(index: Index, folder: Path, pictures: pd.DataFrame) -> tuple[float, float, float, int]:
    """How often picture + ambience of another place find the right picture first, its own left out: sum, parts alone, count."""
    paths = [folder / f"ambience-{place}.wav" for place in PLACES]
    for place, path in zip(PLACES, paths, strict=True):
        soundfile.write(path, ambience(place, SEED + 4), SOUND_RATE_HZ)
    sounds = dict(zip(PLACES, index.space.embed("audio", paths), strict=True))
    pairs = [(row, place) for row in range(len(pictures)) for place in PLACES if place != pictures["place"].iloc[row]]
    rows = np.array([row for row, _ in pairs])
    picture_ND, sound_ND = _vectors(pictures)[rows], np.stack([sounds[place] for _, place in pairs])
    wanted = [(thing, place) for (thing, _), (_, place) in zip(_truth(pictures.iloc[rows]), pairs, strict=True)]

    def right(query_ND: np.ndarray) -> float:
        first = pictures.iloc[_nearest(query_ND, pictures, pictures["scene"].to_numpy()[rows])]
        return float(np.mean([found == pair for found, pair in zip(_truth(first), wanted, strict=True)]))

    return right(fuse([picture_ND, sound_ND])), right(picture_ND), right(sound_ND), len(pairs)


def _items(index: Index, modality: str) -> pd.DataFrame:
    """Every item of a modality: item_id, scene, thing, place, vector."""
    count = max(1, index.stats().items.get(modality, 0))
    return index.search("anything", modality=modality, k=count, columns=("scene", "thing", "place", "vector")).to_pandas()


def _truth(items: pd.DataFrame) -> list[tuple[str, str]]:
    """What each item shows: (thing, place)."""
    return list(zip(items["thing"], items["place"], strict=True))


def _vectors(items: pd.DataFrame) -> np.ndarray:
    return np.stack(items["vector"].to_list())


def _nearest(query_ND: np.ndarray, items: pd.DataFrame, own_scene_N: np.ndarray) -> np.ndarray:
    """The row of the nearest item of another scene, int64 (N,)."""
    order_N2, _ = retrieve(query_ND, _vectors(items), k=2)
    own_N = items["scene"].to_numpy()[order_N2[:, 0]] == own_scene_N
    return np.where(own_N, order_N2[:, 1], order_N2[:, 0])


def _sentence(thing: str, place: str) -> str:
    return f"a {thing} {PLACE_WORDS[place][0]}"


def _file(folder: Path, modality: str, seed: int, **fixed: str) -> Path:
    """A scene as an ordinary file of one modality."""
    write_corpus(str(folder / f"{modality}-{seed}"), [scene(seed, **fixed)], [modality])
    return next(path for path in (folder / f"{modality}-{seed}" / modality).iterdir())
