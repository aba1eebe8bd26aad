"""Ray Train around the plain loop of encoders/training. In: what should learn from which pairs. Out: towers, and how it went.

Each worker trains on a GPU if the cluster has one, else on one CPU. Checkpoints of every epoch go below `--out`, so that a
training whose worker or driver was killed goes on where it was when the same command is run again. They stay until the space is
saved (`drop_checkpoints`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.fs as pafs
import ray.train
import torch
from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import RayTrainError

from encoders.encoder import Encoder
from encoders.space import Space, trained
from encoders.training.gradcache import BadBatchError
from encoders.training.loop import Trained, results_of
from encoders.training.recipe import Recipe, TrainingError
from encoders.training.start import Start, plain
from encoders.weights import DTYPES, Dtype
from jobs.training_worker import Split, Task, read_state, work
from pipelines.cluster import Resources
from pipelines.pairs import Pairs
from pipelines.storage import filesystem

LISTED = 100  # dropped pairs that a report names; it counts them all
FAILURES = 2  # deaths of workers that a training survives


@dataclass(frozen=True)
class Plan:
    """What one training does.

    Attributes:
        query: learns.
        target: what it is matched with; learns too, unless it is trained already: then it is frozen.
        recipe: how.
        held_out: how many pairs are kept out of training: half of them choose the best epoch, half are for the scores.
        dtype: that the weights are rounded to before they are scored and named.
        start: of the query's tower.
        workers: how many share each batch.
        shuffle_pairs: train on wrong partners, as a control: scores must fall to chance.
        logs: a local folder for TensorBoard and MLflow, or "".
    """

    query: Encoder
    target: Encoder
    recipe: Recipe
    held_out: int
    dtype: Dtype
    start: Start = field(default_factory=Start)
    workers: int = 1
    shuffle_pairs: bool = False
    logs: str = ""

    def check(self, num_pairs: int) -> None:
        """Refuse what cannot be trained, before anything is read.

        Raises:
            TrainingError: too few pairs for one batch beside the held-out ones, or a batch that cannot be shared.
        """
        if self.held_out < 0 or self.workers < 1:
            raise TrainingError(f"--held-out {self.held_out}, --workers {self.workers}: at least 0 pairs and 1 worker")
        self.recipe.share(self.workers)
        if num_pairs - self.held_out < self.recipe.batch_size:
            raise TrainingError(
                f"{num_pairs} usable pairs, {self.held_out} of them held out for the scores, do not fill one batch of "
                f"{self.recipe.batch_size}; bring more pairs, or lower --batch-size or --held-out"
            )


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes:
        encoders: those that learnt, with their weights, of the best epoch.
        trained: how it went, over all epochs.
        split: of the pairs.
        best: the point of the learning curve that was chosen: by recall on the validation pairs, or else the last.
    """

    encoders: list[Encoder]
    trained: Trained
    split: Split
    best: Mapping[str, Any]


def split_pairs(rows: np.ndarray, groups: np.ndarray, held_out: int, seed: int) -> Split:
    """Which rows train, which choose the epoch, which are for the scores.

    An image is never in two of them: of each image that is held out one pair is taken, and its others are left aside.

    Args:
        rows: usable rows of the manifest, rising.
        groups: by row of the manifest; equal ones share an image.
        held_out: how many pairs to hold out.
    """
    order = np.random.default_rng(seed).permutation(rows)
    _, first = np.unique(groups[order], return_index=True)  # one row of each image
    held = order[np.sort(first)[:held_out]]
    training = rows[~np.isin(groups[rows], groups[held])]
    return Split(training, np.sort(held[: held_out // 2]), np.sort(held[held_out // 2 :]))


def checked_split(plan: Plan, rows: np.ndarray, groups: np.ndarray, there: Resources) -> Split:
    """`split_pairs` of a plan that can be carried out.

    Raises:
        TrainingError: too few pairs or images, or more workers than there is room for.
    """
    split = split_pairs(rows, groups, plan.held_out, plan.recipe.seed)
    plan.check(len(split.training) + plan.held_out)
    if len(np.unique(groups[split.training])) < 2:
        raise TrainingError("all pairs share one image, so there is nothing to tell it from; bring pairs of several images")
    if plan.workers > (there.gpus or there.cpus):
        kind = f"{there.gpus} GPUs" if there.gpus else f"{there.cpus} CPUs"
        raise TrainingError(
            f"--workers {plan.workers}, but the cluster has {kind}; each worker takes one, so it would wait forever"
        )
    return split


def fit(plan: Plan, pairs: Pairs, vectors: np.ndarray | None, data: Mapping[str, Any], out: str) -> Outcome:
    """Train on the cluster, or go on with what was begun.

    Args:
        plan: what.
        pairs: features of the query, and of the target if `vectors` is None.
        vectors: float32, by row of the manifest: the frozen side, computed already.
        data: what the card says of the pairs.
        out: of the job; a folder below it, which all nodes reach, holds the checkpoints.

    Raises:
        TrainingError: too few pairs, or a loss that is not finite.
        OSError: workers died more often than is borne.
    """
    split = checked_split(plan, pairs.usable, pairs.groups, Resources.of_cluster())
    name = _name(plan, split, pairs.names)
    folder = f"{out.rstrip('/')}/.training/{name}"
    task = Task(
        name, plan.query, plan.target, plan.start, plan.recipe, split, pairs.groups,
        None if vectors is None else ray.put(vectors), plan.shuffle_pairs,
        plan.logs and str(Path(plan.logs).absolute()),  # a worker stands in a folder of its own
    )  # fmt: skip
    result = _run(task, plan, pairs, folder)
    trained_: Trained | TrainingError = result.return_value
    if isinstance(trained_, TrainingError):
        if result.checkpoint is None:
            drop_checkpoints(out)
        raise _told(trained_, pairs, f"{folder}/run" if result.checkpoint else "")
    by_recall = bool(len(split.validation))
    best = result.get_best_checkpoint("recall", "max") if by_recall else result.checkpoint
    state = read_state(best)
    weights, logit_scale = results_of(state)
    point = state["history"][-1]
    about = {"data": {**data, "count": len(split.training)}, "best": point, "history": trained_.history}
    return Outcome(_finished(plan, task, weights, logit_scale, about), trained_, split, point)


def drop_checkpoints(out: str) -> None:
    """Remove what `fit` has kept below `out`; before the space is saved that would cost the training if the job is killed."""
    store, path = filesystem(f"{out.rstrip('/')}/.training")
    store.rm(path, recursive=True)


def summary(pairs: Pairs, outcome: Outcome, space: Space) -> dict[str, Any]:
    """The report of a training job."""
    split, went = outcome.split, outcome.trained
    images = len(np.unique(pairs.groups[pairs.usable]))
    return {
        "space": space.uri,
        "fingerprint": space.fingerprint,
        "license": space.license,
        "modalities": list(space.modalities),
        "pairs": {"found": pairs.found, "dropped": len(pairs.dropped), "used": pairs.count},
        "images": images,
        "dropped": [asdict(dropped) for dropped in pairs.dropped[:LISTED]],
        "held_out": {"validation": len(split.validation), "test": len(split.test), "test_rows": split.test.tolist()},
        "steps": went.steps,
        "losses": went.losses,
        "logit_scale": outcome.encoders[0].logit_scale,
        "best": dict(outcome.best),
        "history": went.history,
        "notes": went.notes,
    }


def _run(task: Task, plan: Plan, pairs: Pairs, folder: str) -> Any:
    """Ray Train's result; a training of this name that has been begun is gone on with."""
    store, path = filesystem(folder)
    store.makedirs(path, exist_ok=True)
    keep: dict[str, Any] = {"num_to_keep": 1}
    if len(task.split.validation):
        keep |= {"checkpoint_score_attribute": "recall", "checkpoint_score_order": "max"}
    trainer: Any = TorchTrainer(
        cast(Any, work),
        train_loop_config={"task": task},
        datasets={"pairs": pairs.features},
        dataset_config=DataConfig(datasets_to_split=[]),  # each node keeps all pairs
        scaling_config=ScalingConfig(num_workers=plan.workers, use_gpu=Resources.of_cluster().gpus > 0),
        run_config=RunConfig(
            name="run",
            storage_path=path,
            storage_filesystem=pafs.PyFileSystem(pafs.FSSpecHandler(store)),
            checkpoint_config=CheckpointConfig(**keep),
            failure_config=FailureConfig(max_failures=FAILURES),
        ),
    )
    try:
        return trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _failure(error, plan) from error


def _failure(error: ray.train.TrainingFailedError, plan: Plan) -> Exception:
    """Why Ray Train gave up: an OSError where the infrastructure stopped it and the same command goes on, or a bug of ours."""
    failures = getattr(error, "worker_failures", {}).values() or [error]
    causes = [getattr(one, "health_check_failure", one) for one in failures]  # of a dead worker Ray Train wraps the reason
    if any(isinstance(cause, ray.exceptions.OutOfMemoryError) for cause in causes):
        return OSError(
            f"a worker needs more memory than there is, {FAILURES + 1} times: lower recipe.micro_batch (it is "
            f"{plan.recipe.micro_batch or plan.recipe.share(plan.workers)}) and run the command again, it goes on from the "
            "newest checkpoint"
        )
    if dead := [cause for cause in causes if isinstance(cause, (ray.exceptions.RayError, RayTrainError, OSError))]:
        return OSError(f"workers could not go on, {FAILURES + 1} times: {dead[0]}; run the same command again, it goes on")
    return RuntimeError(f"a worker failed: {causes[0]}")


def _name(plan: Plan, split: Split, names: Sequence[str]) -> str:
    """What makes two trainings the same, names of pairs among it; not how many workers do it, nor with how much at once."""
    start = plan.start.origin.fingerprint if plan.start.origin else ""
    recipe = asdict(replace(plan.recipe, micro_batch=0))
    sides = [[e.architecture, dict(e.settings), e.fingerprint] for e in (plan.query, plan.target)]
    told = json.dumps([sides, start, plan.start.lora_rank, recipe, plan.shuffle_pairs], sort_keys=True, default=list).encode()
    rows = b"".join(np.ascontiguousarray(part).tobytes() for part in (split.training, split.validation))
    return hashlib.sha256(told + rows + json.dumps(list(names)).encode()).hexdigest()[:16]


def _finished(
    plan: Plan, task: Task, weights: list[dict[str, torch.Tensor]], logit_scale: float, about: Mapping[str, Any]
) -> list[Encoder]:
    """The encoders that learnt, with weights, fingerprint, temperature and a card that says how they came about."""
    card: dict[str, Any] = {
        **about,
        "recipe": asdict(plan.recipe),
        "shuffled_pairs": plan.shuffle_pairs,
        "frozen": {plan.target.modality: plan.target.fingerprint} if plan.target.fingerprint else {},
    }
    if plan.start.origin is not None:
        origin = plan.start.origin
        card["started_from"] = {"architecture": origin.architecture, "fingerprint": origin.fingerprint}
        card["started_from"] |= {"lora_rank": plan.start.lora_rank} if plan.start.lora_rank else {}
    made = []
    for encoder, tower, state in zip(task.learners, task.begun(), weights, strict=True):
        tower.load_state_dict(state)
        made.append(trained(encoder, plain(tower), logit_scale, card, DTYPES[plan.dtype]))
    return made


def _told(error: TrainingError, pairs: Pairs, kept: str) -> TrainingError:
    """The error with what was in the batch, and where the last good checkpoint is."""
    words = [str(error)]
    if isinstance(error, BadBatchError):
        listed = ", ".join(f"{row} ({pairs.names[row]})" for row in error.rows[:8])
        words.append(f"Rows of the pairs: {listed}{', ...' if len(error.rows) > 8 else ''}")
    if kept:
        words.append(f"The last good checkpoint is kept below {kept}")
    return TrainingError(". ".join(words))
