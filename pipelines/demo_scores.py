"""What a space knows of the demo world. In: a space, a held-out corpus of files. Out: vectors and scores in [0, 1].

A modality can only know what leaves a trace in it: sound has no colour, a motion sensor no place. Chance is .04 for the 24
things, .17 for the 6 places, .13 for the 8 colours.  N items, D dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from encoders.evaluation import Sample
from encoders.media.types import URI
from encoders.space import Space
from encoders.training.evaluate import accuracy, classifier, precision_at_1, recall
from pipelines.demo_world import COLOURS, MOTION_WORDS, PLACE_WORDS, PLACES, THING_WORDS, THINGS
from pipelines.identity import canonical_uri
from pipelines.pairs import read_manifest

ROUND = len(THINGS) * len(PLACES)  # scenes of one round of the held-out grid: each thing in each place
VISIBLE: Mapping[str, Sequence[str]] = {
    "image": ("thing", "place", "colour", "motion"),
    "video": ("thing", "place", "colour", "motion"),
    "text": ("thing", "place", "colour", "motion"),
    "audio": ("thing", "place"),
    "depth": ("thing", "place"),
    "thermal": ("thing", "place"),
    "imu": ("thing", "motion"),
}


def _say(words: Mapping[str, Sequence[str]], templates: Sequence[str]) -> dict[str, list[str]]:
    return {name: [template.format(word) for template in templates for word in said] for name, said in words.items()}


PROMPTS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "thing": _say(THING_WORDS, ("a {}", "a picture of {}", "there is a {}")),
    "place": _say(PLACE_WORDS, ("something {}", "a picture of something {}")),
    "colour": _say({colour: [colour] for colour in COLOURS}, ("{} something", "a picture of {} something")),
    "motion": _say(MOTION_WORDS, ("something {}", "a picture of something {}")),
}


def embed_held_out(space: Space, manifest_uri: str) -> Sample:
    """Embed the files of a corpus of `grid` scenes by its pairs.parquet, as any user's files."""
    manifest = read_manifest(manifest_uri, [], [*space.modalities, *PROMPTS])
    base = manifest_uri.rpartition("/")[0]
    vectors = {}
    for modality in space.modalities:
        if modality == "text":
            vectors[modality] = space.embed("text", manifest["caption"].to_pylist(), batch_size=256)
        elif modality in manifest.column_names:
            uris = [URI(canonical_uri(uri, base)) for uri in manifest[modality].to_pylist()]
            vectors[modality] = space.embed(modality, uris, batch_size=64)
    return Sample(vectors, labels={attribute: manifest[attribute].to_pylist() for attribute in PROMPTS})


def zero_shot_scores(space: Space, held_out: Sample, modality: str) -> dict[str, float]:
    """How often the words for what a medium shows are the nearest ones, for each attribute that its modality can know."""
    scores = {}
    for attribute in VISIBLE[modality]:
        names = list(PROMPTS[attribute])
        truth = [names.index(str(name)) for name in held_out.labels[attribute]]
        scores[attribute] = accuracy(held_out.vectors[modality], classifier(space, PROMPTS[attribute]), truth)
    return scores


def text_retrieval_scores(space: Space, held_out: Sample, modality: str) -> dict[str, float]:
    """Text -> medium: "a THING PLACE" among one medium for each of the 144 combinations, mean over the rounds of the grid."""
    queries = space.embed(
        "text", [f"a {thing} {PLACE_WORDS[place][0]}" for thing in THINGS for place in PLACES], batch_size=256
    )
    galleries = np.split(held_out.vectors[modality], len(held_out.vectors[modality]) // ROUND)
    rounds = [recall(queries, gallery) for gallery in galleries]
    return {name: float(np.mean([scores[name] for scores in rounds])) for name in rounds[0]}


def cross_modal_score(held_out: Sample, query: str, gallery: str) -> float:
    """How often the nearest item of another scene shows the same thing: precision at 1; .04 at chance."""
    return precision_at_1(held_out.vectors[query], held_out.vectors[gallery], held_out.labels["thing"])
