"""Bind a modality to a space: train its tower against the frozen image tower, and text, sound and all else come for free.

python -m jobs.bind audio --pairs pairs.parquet --space URI --out URI
In: a pairs manifest with the columns `image` and the modality's; a space. Out: that space with one more modality, a report
with scores on held-out pairs, against the pictures and, never seen together in training, against the captions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from encoders.encoder import Encoder, build_encoder, list_encoders
from encoders.space import Space, load_space
from encoders.training.loop import Recipe
from jobs.config import JsonReport, refuse_to_overwrite, run_job
from jobs.trainer import DTYPES, Dtype, Plan, finished, fit, summary
from pipelines.cluster import start_ray
from pipelines.pairs import column_of, prepare_pairs, read_manifest

TEMPERATURE = 0.05  # at the start; it is learnt


@dataclass(frozen=True, kw_only=True)
class BindConfig:
    """Bind a modality to a space by training its tower against the frozen image tower.

    Args:
        modality: to bind, e.g. audio.
        pairs: a pairs manifest, Parquet: URIs in the columns `image` and the modality's; `caption` is used for scores only.
        space: to bind to: a shipped one, a folder or URI.
        out: where the space with the new modality goes, a folder or URI that holds none yet.
        architecture: of the tower; by default the only one there is for the modality and the space's dimension.
        epochs: how often each pair is seen.
        batch_size: pairs a step; each is told from all the others.
        learning_rate: of the matrices (Muon); the other weights (AdamW) take a tenth of it.
        held_out: pairs kept out of training, for the scores.
        seed: of weights, order and augmentation.
        dtype: of the stored weights.
        shuffle_pairs: train on wrong partners, as a control: the scores must fall to chance.
    """

    modality: str
    pairs: str
    space: str
    out: str
    architecture: str = ""
    epochs: int = 8
    batch_size: int = 128
    learning_rate: float = 0.02
    held_out: int = 256
    seed: int = 0
    dtype: Dtype = "float32"
    shuffle_pairs: bool = False


def bind(config: BindConfig) -> JsonReport:
    """Train, and save the space with the new modality; an encoder that was there for it is replaced.

    Raises:
        ValueError: bad input, before anything is trained; or a loss that is not finite.
    """
    refuse_to_overwrite(config.out)
    space = load_space(config.space)
    plan = _plan(config, space)
    witnesses = [encoder.modality for encoder in plan.witnesses]
    manifest = read_manifest(config.pairs, [config.modality, "image"], witnesses)
    there = tuple(encoder for encoder in plan.witnesses if column_of(encoder.modality) in manifest.column_names)
    plan = replace(plan, witnesses=there)
    plan.check(len(manifest))
    start_ray()
    encoders = {encoder.modality: encoder for encoder in (plan.query, plan.target, *plan.witnesses)}
    pairs = prepare_pairs(manifest, config.pairs, encoders)
    outcome = fit(plan, pairs, config.out)
    (bound,) = finished(plan, outcome, {"pairs": config.pairs, "count": pairs.count - config.held_out})
    wider = replace(space, encoders={**space.encoders, config.modality: bound})
    return JsonReport(summary(pairs, outcome, wider.save(config.out, DTYPES[config.dtype])))


def _plan(config: BindConfig, space: Space) -> Plan:
    if config.modality == "image":
        raise ValueError("the image tower is what all others are bound to; choose another modality, or `pretrain` a new space")
    recipe = Recipe(
        epochs=config.epochs,
        batch_size=config.batch_size,
        temperature=TEMPERATURE,
        muon_lr=config.learning_rate,
        adamw_lr=config.learning_rate / 10,
        seed=config.seed,
    )
    return Plan(
        query=_architecture(config, space.dim),
        target=space.encoder("image"),
        witnesses=tuple(space.encoders[m] for m in ("text",) if m in space.encoders and m != config.modality),
        recipe=recipe,
        held_out=config.held_out,
        dtype=config.dtype,
        shuffle_pairs=config.shuffle_pairs,
    )


def _architecture(config: BindConfig, dim: int) -> Encoder:
    """The untrained encoder to train."""
    names = [config.architecture] if config.architecture else list_encoders(config.modality)
    fitting = [encoder for encoder in map(build_encoder, names) if encoder.modality == config.modality and encoder.dim == dim]
    if len(fitting) != 1:
        found = ", ".join(encoder.architecture for encoder in fitting) or "none"
        raise ValueError(
            f"--architecture {config.architecture or '(not given)'}: of {', '.join(names) or 'no architecture'}, {found} fits "
            f"{config.modality} in {dim} dimensions; name the one to train with --architecture"
        )
    return fitting[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from a command line."""
    return run_job(BindConfig, bind, argv, positional=("modality",))


if __name__ == "__main__":
    sys.exit(main())
