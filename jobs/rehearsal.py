"""What a training would take, before it starts. In: its plan, its pairs. Out: the split, steps, parameters, measured seconds.

A few pairs are prepared and a few steps trained in this process; Ray is not started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from encoders.training.sides import Frozen, Learner, Recomputed, Side
from encoders.training.step_time import step_seconds
from jobs.trainer import Plan, checked_split
from jobs.training_worker import Task, augmentation, in_bfloat16
from pipelines.cluster import Resources
from pipelines.features import bytes_of
from pipelines.media_rates import Rate, in_all, one_thread, try_media
from pipelines.pairs import Member, column_of, groups_of

# Fitted to three trainings on 1,064 pairs on two cores: of Python, Ray, its workers and the scores at the end; of recall and a
# checkpoint after each epoch.
START_S, EPOCH_S = 25.0, 1.5
UNUSABLE = "none of the pairs that were tried can be used"


def rehearse(plan: Plan, manifest: pa.Table, source: str, cached: bool, before: Mapping[str, float]) -> dict[str, Any]:
    """Try a few pairs.

    Args:
        plan: of the training.
        manifest: its pairs, as read from `source`.
        source: URI of the manifest.
        cached: whether the target's vectors come from a table.
        before: what has to be done before the training, in words, and the seconds it takes.

    Returns:
        For the report. Sizes of the split are those of pairs that can all be used, with no copies among the images.

    Raises:
        TrainingError: as of `fit`.
    """
    resources, groups = Resources.at_hand(), groups_of(manifest, source)
    rows = np.flatnonzero(np.all([manifest[column_of(e.modality)].is_valid() for e in (plan.query, plan.target)], axis=0))
    split = checked_split(plan, rows, groups, resources)
    task = Task("", plan.query, plan.target, plan.start, plan.recipe, split, groups, cached or None, plan.shuffle_pairs, "")
    recipe, found = plan.recipe, _measure(task, manifest, source.rpartition("/")[0] or ".", plan.recipe.share(plan.workers))
    steps = recipe.epochs * recipe.batches(len(split.training))
    parts = {"starting, and scoring at the end": START_S, **before, "ends of epochs": EPOCH_S * recipe.epochs}
    parts |= {f"preparing {m}": rate.media * rate.prepare_s / resources.cpus for m, rate in found.rates.items()}
    parts["training"] = steps * (found.step_s or 0.0)
    return {
        "pairs": len(rows),
        "images": len(np.unique(groups[rows])),
        "split": {name: len(getattr(split, name)) for name in ("training", "validation", "test")},
        **{name: getattr(recipe, name) for name in ("epochs", "batch_size")},
        "steps": steps,
        "workers": plan.workers,
        "encoders": {encoder.modality: encoder.architecture for encoder in task.learners},
        "parameters": found.parameters,
        "parameters_trained": found.parameters_trained,
        "feature_bytes": bytes_of(task.read) * len(manifest),
        "tried": {m: asdict(rate) for m, rate in found.rates.items()},
        "step_s": found.step_s,
        **in_all(parts, resources),
        **({} if found.step_s is not None else {"seconds": None, "bottleneck": UNUSABLE}),
    }


@dataclass(frozen=True)
class _Measured:
    """What a medium of each modality costs, how many weights there are, seconds of a step: None where no pair is usable."""

    rates: Mapping[str, Rate]
    parameters: int
    parameters_trained: int
    step_s: float | None


def _measure(task: Task, manifest: pa.Table, base: str, pairs: int) -> _Measured:
    """Prepare a few media of each modality, and train a few steps of so many pairs."""
    rates, features = dict[str, Rate](), dict[str, dict[str, np.ndarray]]()
    for encoder in task.read:
        m = encoder.modality
        rates[m], features[m] = try_media(Member(m, encoder, base), manifest[column_of(m)].to_pylist(), with_tower=False)
    towers = task.begun()
    weights = [(weight.numel(), weight.requires_grad) for tower in towers for weight in tower.parameters()]
    step_s = _step_s(task, towers, features, pairs) if all(features.values()) else None
    return _Measured(rates, sum(count for count, _ in weights), sum(count for count, trained in weights if trained), step_s)


def _step_s(task: Task, towers: list[torch.nn.Module], features: Mapping[str, Mapping[str, np.ndarray]], pairs: int) -> float:
    """Of a worker's share of a batch, on its one thread or GPU; pairs are the tried ones, again and again."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learning = {e.modality: tower.to(device) for e, tower in zip(task.learners, towers, strict=True)}
    bfloat16 = in_bfloat16(task.recipe, device)
    given = {m: {n: torch.from_numpy(v) for n, v in values.items()} for m, values in features.items()}
    count = min(len(values) for of_one in given.values() for values in of_one.values())
    vectors_ND = torch.nn.functional.normalize(torch.randn(count, task.target.dim, device=device), dim=-1)

    def side(encoder: Any, rows_N: torch.Tensor) -> Side:
        if encoder.modality not in given:
            return Frozen(vectors_ND[rows_N.to(device)])
        augment = augmentation(encoder, task.recipe)
        if encoder.modality in learning:
            return Learner(learning[encoder.modality], given[encoder.modality], augment, bfloat16, rows_N)
        return Recomputed(encoder.tower.to(device), given[encoder.modality], augment, bfloat16, rows_N)

    with one_thread():
        return step_seconds(
            lambda rows_N: (side(task.query, rows_N % count), side(task.target, rows_N % count)), task.recipe, pairs
        )
