"""Make the space that ships as "demo", from nothing: scenes as files, a pre-trained image and text tower, four bindings.

python -m jobs.make_demo_space --out DIR
In: nothing. Out: a space directory of seven modalities, float16, and a report with its scores on held-out scenes.
It takes ten to twenty minutes on two cores and some 500 MB of temporary files. Video has the image tower's weights.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from encoders.encoder import Encoder, build_encoder
from encoders.space import Space, load_space, trained
from encoders.training.recipe import Recipe
from jobs.bind import BindConfig, BindRecipe, bind
from jobs.config import DryRun, JsonReport, planned, refuse_to_overwrite, run_job
from jobs.pretrain import PretrainConfig, PretrainRecipe, pretrain
from pipelines.demo_scores import cross_modal_score, embed_held_out, text_retrieval_scores, zero_shot_scores
from pipelines.demo_world import caption, grid, scene, write_corpus
from pipelines.demo_world.scene import ROUND
from pipelines.log import say

LICENSE = "Apache-2.0"
HELD_OUT = 256  # pairs of each binding, for its own scores; not the held-out grid
TOWER_SCENES = 8000
TOWER_CAPTIONS, TOWER_EPOCHS = 3, 4  # of each scene, and of each caption: words need variety more than pictures do
BOUND_SCENES = 4000
GRID_ROUNDS = 6
MINUTES, TEMPORARY_BYTES = (10, 20), 500_000_000  # as this module's docstring says


@dataclass(frozen=True)
class Binding:
    """One modality: its scenes' first seed (no two trainings share a scene), and how often each is seen."""

    first_seed: int
    epochs: int


BINDINGS = {
    "audio": Binding(1_000_000, 8),
    "imu": Binding(2_000_000, 8),
    "depth": Binding(3_000_000, 16),  # harder to tell apart without colour
    "thermal": Binding(4_000_000, 16),
}


@dataclass(frozen=True, kw_only=True)
class MakeDemoSpaceConfig(DryRun):
    """Make the demo space from nothing.

    Args:
        out: where it goes, a folder or URI that holds no space yet.
    """

    out: str


def make_demo_space(config: MakeDemoSpaceConfig) -> JsonReport:
    """Write corpora, train, score on held-out files, save."""
    refuse_to_overwrite(config.out)
    if config.dry_run:
        return planned("make_demo_space", _plan(config.out))
    with tempfile.TemporaryDirectory(prefix="bindery-demo-") as folder:
        step = f"{folder}/space-image"
        pretrain(_pretraining(_captioned(_corpus(f"{folder}/tower", 0, TOWER_SCENES, ["image"])), step))
        for modality, binding in BINDINGS.items():
            pairs = _corpus(f"{folder}/{modality}", binding.first_seed, BOUND_SCENES + HELD_OUT, ["image", modality])
            before, step = step, f"{folder}/space-{modality}"
            bind(_binding(modality, pairs, before, step, binding.epochs))
        space = _with_video(load_space(step)).save(f"{folder}/space-video", torch.float16)
        scores = _scores(space, folder)
        space = replace(space, encoders={m: _described(encoder, scores) for m, encoder in space.encoders.items()})
        saved = space.save(config.out, torch.float16)
    return JsonReport({"space": config.out, "fingerprint": saved.fingerprint, "scores": scores})


def _plan(out: str) -> dict[str, Any]:
    """The trainings there would be; how long they take was measured once."""
    recipes: dict[str, Recipe] = {"image and text": PretrainRecipe(epochs=TOWER_EPOCHS)}
    recipes |= {modality: BindRecipe(epochs=binding.epochs) for modality, binding in BINDINGS.items()}
    pairs = {name: TOWER_SCENES * TOWER_CAPTIONS if name == "image and text" else BOUND_SCENES for name in recipes}
    return {
        "out": out,
        "scenes": TOWER_SCENES + len(BINDINGS) * (BOUND_SCENES + HELD_OUT),
        "trainings": {
            name: {"pairs": pairs[name], "epochs": recipe.epochs, "steps": recipe.epochs * recipe.batches(pairs[name])}
            for name, recipe in recipes.items()
        },
        "scored_on": GRID_ROUNDS * ROUND,
        "minutes_on_two_cores": MINUTES,
        "temporary_bytes": TEMPORARY_BYTES,
    }


def _corpus(folder: str, first_seed: int, scenes: int, modalities: Sequence[str]) -> str:
    """Write the scenes as files; the path of their pairs."""
    say(f"writing {scenes} scenes: {', '.join(modalities)}")
    write_corpus(folder, [scene(first_seed + i) for i in range(scenes)], modalities)
    return f"{folder}/pairs.parquet"


def _captioned(pairs: str) -> str:
    """The same pictures with several captions each, a row for each caption; the path of these pairs."""
    rows = [
        {"image": row["image"], "caption": caption(scene(row["scene"]), n)}
        for row in pq.read_table(pairs, columns=["image", "scene"]).to_pylist()
        for n in range(TOWER_CAPTIONS)
    ]
    captioned = pairs.replace("pairs.parquet", "captioned.parquet")
    pq.write_table(pa.Table.from_pylist(rows), captioned)
    return captioned


def _pretraining(pairs: str, out: str) -> PretrainConfig:
    """Nothing held out: a picture with one of its captions left out would not be unseen. The grid scores it."""
    recipe = PretrainRecipe(epochs=TOWER_EPOCHS, dtype="float16")
    return PretrainConfig(pairs=pairs, out=out, name="demo", license=LICENSE, held_out=0, recipe=recipe)


def _binding(modality: str, pairs: str, space: str, out: str, epochs: int) -> BindConfig:
    return BindConfig(
        modality=modality, pairs=pairs, space=space, out=out, held_out=HELD_OUT, encoder=f"demo/{modality}",
        recipe=BindRecipe(epochs=epochs, dtype="float16"),
    )  # fmt: skip


def _with_video(space: Space) -> Space:
    """The space with a video encoder: the mean of frames as the image tower sees them."""
    image = space.encoder("image")
    encoder = build_encoder("demo/video")
    tower = encoder.build_tower()
    tower.load_state_dict(image.tower.state_dict())
    video = trained(encoder, tower, image.logit_scale, {"made_from": {"image": image.fingerprint}}, torch.float16)
    return replace(space, encoders={**space.encoders, "video": video})


def _scores(space: Space, folder: str) -> dict[str, Any]:
    """What the cards tell of each modality, on the held-out grid, from files."""
    say("scoring on held-out scenes")
    write_corpus(f"{folder}/grid", grid(GRID_ROUNDS), [m for m in space.modalities if m != "text"])
    held_out = embed_held_out(space, f"{folder}/grid/pairs.parquet")
    scores: dict[str, Any] = {}
    for modality in space.modalities:
        scores[modality] = {
            "zero_shot": zero_shot_scores(space, held_out, modality),
            "text_retrieval_of_144": text_retrieval_scores(space, held_out, modality),
            "same_thing_at_1": {other: cross_modal_score(held_out, modality, other) for other in space.modalities},
        }
    return scores


def _described(encoder: Encoder, scores: Mapping[str, Any]) -> Encoder:
    """The encoder with its scores on the card, and without the temporary path of its pairs."""
    card = dict(encoder.card)
    if "data" in card:
        card["data"] = {**card["data"], "pairs": "pipelines.demo_world"}
    return replace(encoder, card={**card, "held_out_grid": scores[encoder.modality]})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from a command line."""
    return run_job(MakeDemoSpaceConfig, make_demo_space, argv)


if __name__ == "__main__":
    sys.exit(main())
