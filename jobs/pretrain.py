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
from encoders.training.loop import Recipe
from jobs.config import JsonReport, refuse_to_overwrite, run_job
from jobs.trainer import DTYPES, Dtype, Plan, finished, fit, summary
from pipelines.cluster import start_ray
from pipelines.pairs import prepare_pairs, read_manifest

TEMPERATURE = 0.07  # at the start; it is learnt


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pre-train an image and a text tower together, from pairs of pictures and captions.

    Args:
        pairs: a pairs manifest, Parquet: URIs in the column `image`, words in the column `caption`.
        out: where the space goes, a folder or URI that holds none yet.
        name: of the space; by default the last part of `out`.
        license: of the weights.
        image: architecture of the image tower.
        text: architecture of the text tower; one with a `vocabulary` gets the captions' words.
        epochs: how often each pair is seen.
        batch_size: pairs a step; each is told from all the others.
        learning_rate: of the matrices (Muon); the other weights (AdamW) take a tenth of it.
        held_out: pairs kept out of training, for the scores.
        seed: of weights, order and augmentation.
        dtype: of the stored weights.
    """

    pairs: str
    out: str
    name: str = ""
    license: str = "unknown"
    image: str = "demo/image"
    text: str = "demo/text"
    epochs: int = 12
    batch_size: int = 128
    learning_rate: float = 0.02
    held_out: int = 256
    seed: int = 0
    dtype: Dtype = "float32"


def pretrain(config: PretrainConfig) -> JsonReport:
    """Train, and save the space.

    Raises:
        ValueError: bad input, before anything is trained; or a loss that is not finite.
    """
    refuse_to_overwrite(config.out)
    manifest = read_manifest(config.pairs, ["image", "text"])
    image, text = build_encoder(config.image), _with_words(build_encoder(config.text), manifest)
    recipe = Recipe(
        epochs=config.epochs,
        batch_size=config.batch_size,
        temperature=TEMPERATURE,
        muon_lr=config.learning_rate,
        adamw_lr=config.learning_rate / 10,
        seed=config.seed,
    )
    plan = Plan(query=image, target=text, witnesses=(), recipe=recipe, held_out=config.held_out, dtype=config.dtype)
    plan.check(len(manifest))
    start_ray()
    pairs = prepare_pairs(manifest, config.pairs, {"image": image, "text": text})
    outcome = fit(plan, pairs, config.out)
    image, text = finished(plan, outcome, {"pairs": config.pairs, "count": pairs.count - config.held_out})
    name = config.name or config.out.rstrip("/").rpartition("/")[2]
    fingerprint = space_fingerprint(image.fingerprint, image.dim)
    space = Space(name, image.dim, fingerprint, config.license, {"image": image, "text": text})
    return JsonReport(summary(pairs, outcome, space.save(config.out, DTYPES[config.dtype])))


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
