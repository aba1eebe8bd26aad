"""Pre-train an image and a text tower together: the beginning of a space that other modalities are then bound to.

python -m jobs.pretrain --pairs pairs.parquet --out URI [--name NAME] [--epochs 12] ...
In: a pairs manifest with the columns `image` and `caption`. Out: a space directory with two modalities, a report.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from encoders.encoder import Encoder, build_encoder
from encoders.space import Space, space_fingerprint
from encoders.towers.demo_text import words
from encoders.training.recipe import Recipe
from encoders.weights import DTYPES, Dtype
from jobs.config import DryRun, JsonReport, planned, refuse_to_overwrite, run_job
from jobs.rehearsal import rehearse
from jobs.trainer import Plan, drop_checkpoints, fit, summary
from jobs.training_logs import check_logs
from jobs.verdict import score_held_out
from pipelines.cluster import start_ray
from pipelines.pairs import prepare_pairs, read_manifest


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(Recipe):
    """How to pre-train: the section `recipe` of the config file.

    Args:
        epochs: how often each pair is seen.
        dtype: of the stored weights.
        logs: a local folder for TensorBoard and MLflow.
    """

    epochs: int = 12
    dtype: Dtype = "float32"
    logs: str = ""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(DryRun):
    """Pre-train an image and a text tower together, from pairs of pictures and captions.

    Args:
        pairs: a pairs manifest, Parquet: URIs in the column `image`, words in the column `caption`.
        out: where the space goes, a folder or URI that holds none yet.
        name: of the space; by default the last part of `out`.
        license: of the weights.
        image: architecture of the image tower.
        text: architecture of the text tower; one with a `vocabulary` gets the captions' words.
        epochs: short for recipe.epochs.
        batch_size: short for recipe.batch_size, pairs a step; each is told from all the others.
        workers: how many share each batch: one a GPU, or one a CPU where there are none.
        held_out: pairs kept out of training: half choose the best epoch, half are for the scores.
        recipe: the rest.
    """

    pairs: str
    out: str
    name: str = ""
    license: str = "unknown"
    image: str = "demo/image"
    text: str = "demo/text"
    epochs: int | None = None
    batch_size: int | None = None
    workers: int = 1
    held_out: int = 256
    recipe: PretrainRecipe = PretrainRecipe()


def pretrain(config: PretrainConfig) -> JsonReport:
    """Train, and save the space.

    Raises:
        ValueError: bad input, before anything is trained; or a loss that is not finite.
    """
    refuse_to_overwrite(config.out)
    check_logs(config.recipe.logs)
    manifest = read_manifest(config.pairs, ["image", "text"])
    image, text = build_encoder(config.image), _with_words(build_encoder(config.text), manifest)
    recipe = config.recipe.with_short(config.epochs, config.batch_size)
    plan = Plan(image, text, recipe, config.held_out, recipe.dtype, workers=config.workers, logs=recipe.logs)
    plan.check(len(manifest))
    if config.dry_run:
        return planned("pretrain", {"out": config.out, **rehearse(plan, manifest, config.pairs, False, {})})
    start_ray()
    pairs = prepare_pairs(manifest, config.pairs, {"image": image, "text": text})
    outcome = fit(plan, pairs, None, {"pairs": config.pairs}, config.out)
    image, text = outcome.encoders
    name = config.name or config.out.rstrip("/").rpartition("/")[2]
    fingerprint = space_fingerprint(image.fingerprint, image.dim)
    space = Space(name, image.dim, fingerprint, config.license, {"image": image, "text": text})
    saved = space.save(config.out, DTYPES[recipe.dtype])
    drop_checkpoints(config.out)
    scores = score_held_out(saved, config.pairs, outcome.split.test, config.out).values
    return JsonReport({**summary(pairs, outcome, saved), "evaluation": scores})


def _with_words(text: Encoder, manifest: pa.Table) -> Encoder:
    """A text encoder with a vocabulary setting learns the words of the captions, and no others."""
    if "vocabulary" not in text.settings:
        return text
    captions = manifest["caption"].drop_null().to_pylist()
    vocabulary = sorted({word for caption in captions for word in words(caption)})
    return build_encoder(text.architecture, {**text.settings, "vocabulary": vocabulary})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from a command line."""
    return run_job(PretrainConfig, pretrain, argv)


if __name__ == "__main__":
    sys.exit(main())
