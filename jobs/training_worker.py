"""What a worker of Ray Train does: the plain loop of encoders/training, on its part of each batch. In: a task. Out: a result.

Every worker has all pairs within reach (pipelines/features.py) and takes its part of each batch of one common order, so the
weights that come out do not depend on how many workers there are, but for rounding. N pairs, D dimension.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from ray.train import Checkpoint
from ray.train.torch import get_device

from encoders.encoder import Augment, Encoder
from encoders.training.augment import OF_PICTURES, in_turn
from encoders.training.evaluate import recall
from encoders.training.gradcache import BadBatchError
from encoders.training.loop import Entry, Trained, Training, train
from encoders.training.recipe import Recipe, TrainingError
from encoders.training.sides import Frozen, Learner, Recomputed, Side
from encoders.training.start import Start, begin
from encoders.training.workers import Workers
from jobs.training_logs import Logs, Pace
from pipelines.features import map_features, write_features

STATE = "training.pt"  # in a checkpoint
EMBED_BATCH = 256
READ_ROWS = 256


@dataclass(frozen=True)
class Split:
    """Rows of the manifest, by what they are for; no image is in two of them.

    Attributes:
        training: rising.
        validation: choose the best epoch.
        test: nobody looks at in training.
    """

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Task:
    """What the workers of one training need to know.

    Attributes:
        name: of the training; the same name goes on with the same training.
        query: learns.
        target: what it is matched with; learns too, unless it is trained already: then it is frozen.
        start: of the query's tower.
        recipe: how.
        split: of the pairs.
        groups: int64 by row of the manifest; equal ones share an image.
        vectors: reference to float32 (rows of the manifest, D), the frozen side; None: it is computed from its features.
        shuffle_pairs: train on wrong partners.
        logs: local folder, or "".
    """

    name: str
    query: Encoder
    target: Encoder
    start: Start
    recipe: Recipe
    split: Split
    groups: np.ndarray
    vectors: Any
    shuffle_pairs: bool
    logs: str

    @property
    def learners(self) -> tuple[Encoder, ...]:
        """The encoders that are in training."""
        return tuple(encoder for encoder in (self.query, self.target) if not encoder.fingerprint)

    @property
    def read(self) -> tuple[Encoder, ...]:
        """The encoders whose features are needed."""
        return (self.query, self.target) if self.vectors is None else (self.query,)

    @property
    def rows(self) -> np.ndarray:
        """Rows of the manifest that workers hold, rising."""
        return np.sort(np.concatenate([self.split.training, self.split.validation]))

    def begun(self) -> list[torch.nn.Module]:
        """The towers in training, in the order of `learners`, before their first step."""
        starts = {self.query.modality: self.start}
        return [begin(e, starts.get(e.modality, Start()), self.recipe.seed) for e in self.learners]


def work(config: dict[str, Task]) -> Trained | TrainingError:
    """The training function of a worker.

    What is wrong with pairs or settings is handed back, not raised: it would only be tried again.
    """
    task = config["task"]
    device = get_device()
    assert isinstance(device, torch.device), "one device a worker"
    try:
        return _Worker(task, device).run()
    except TrainingError as error:
        return error


def in_bfloat16(recipe: Recipe, device: torch.device) -> bool:
    """Whether towers are trained under autocast."""
    return recipe.precision == "bfloat16" or (recipe.precision == "auto" and device.type == "cuda")


def augmentation(encoder: Encoder, recipe: Recipe) -> Augment | None:
    """What training does to an encoder's batches: what the recipe names, or else what the encoder does."""
    names = recipe.augment
    if names is not None and encoder.modality == "image":
        names = [name for name in names if name in OF_PICTURES]
    return encoder.augment if names is None else in_turn(names)


class _Worker:
    """One worker: its device, its fellows, the two sides."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self._task, self._workers = task, Workers(device)
        self._lead = self._workers.rank == 0
        recipe, rows = task.recipe, task.rows
        self._bfloat16 = in_bfloat16(recipe, device)
        self._features = _features(task, self._workers)
        self._device = device
        self._vectors_ND = None if task.vectors is None else torch.from_numpy(ray.get(task.vectors)[rows]).to(device)
        towers = [tower.to(device) for tower in task.begun()]
        if self._workers.count > 1 and device.type == "cuda":
            sync: Any = torch.nn.SyncBatchNorm.convert_sync_batchnorm
            towers = [sync(tower) for tower in towers]
        self._towers = {encoder.modality: tower for encoder, tower in zip(task.learners, towers, strict=True)}

    def run(self) -> Trained:
        """Train, from the newest checkpoint if there is one."""
        task, rows = self._task, self._task.rows
        training_N = torch.from_numpy(np.searchsorted(rows, task.split.training))
        groups_N = torch.from_numpy(task.groups[task.split.training])
        partners_N = training_N
        if task.shuffle_pairs:
            order = torch.randperm(len(groups_N), generator=torch.Generator().manual_seed(task.recipe.seed + 1))
            groups_N, partners_N = groups_N[order], partners_N[order]
        pace = Pace(" + ".join(encoder.modality for encoder in task.learners))
        with Logs(task.logs if self._lead else "", task.name, asdict(task.recipe)) as logs:

            def on_point(training: Training, entry: Entry) -> None:
                if self._lead:
                    logs.write(entry)
                    pace.tell(training, entry)

            def after_epoch(training: Training, entry: Entry) -> None:
                entry |= self._recall(training)
                on_point(training, entry)
                _report(training, entry, self._lead)

            try:
                return train(
                    self._side(task.query, training_N),
                    self._side(task.target, partners_N),
                    task.recipe,
                    after_epoch,
                    workers=self._workers,
                    groups_N=groups_N,
                    on_point=on_point,
                    resume=_saved(),
                )
            except BadBatchError as error:
                raise BadBatchError(str(error), task.split.training[error.rows].tolist()) from error

    def _side(
        self, encoder: Encoder, places_N: torch.Tensor, augmented: bool = True, tower: torch.nn.Module | None = None
    ) -> Side:
        """One side of the pairs at these places among the task's rows."""
        if encoder is self._task.target and self._vectors_ND is not None:
            return Frozen(self._vectors_ND[places_N.to(self._device)])
        features = self._features[encoder.modality]
        augment = augmentation(encoder, self._task.recipe) if augmented else None
        if encoder.modality in self._towers:
            return Learner(tower or self._towers[encoder.modality], features, augment, self._bfloat16, places_N)
        return Recomputed(encoder.tower.to(self._device), features, augment, self._bfloat16, places_N)

    @torch.no_grad()
    def _recall(self, training: Training) -> dict[str, float]:
        """On the validation pairs: `recall`, the mean of R@1, R@5 and R@10 both ways, and each of these; {} without any."""
        places_N = torch.from_numpy(np.searchsorted(self._task.rows, self._task.split.validation))
        if not len(places_N):
            return {}
        towers = {encoder.modality: tower for encoder, tower in zip(self._task.learners, training.results, strict=True)}
        both = []
        for encoder in (self._task.query, self._task.target):
            side = self._side(encoder, places_N, augmented=False, tower=towers.get(encoder.modality))
            parts = torch.split(torch.arange(len(places_N)), EMBED_BATCH)
            both.append(torch.cat([side.vectors(side.batch(rows_B, torch.Generator())) for rows_B in parts]).cpu().numpy())
        there, back = recall(both[0], both[1]), recall(both[1], both[0])
        found = {f"{way}_{name}": value for way, scores in (("there", there), ("back", back)) for name, value in scores.items()}
        return {"recall": float(np.mean(list(found.values()))), **found}


def _features(task: Task, workers: Workers) -> dict[str, dict[str, torch.Tensor]]:
    """modality -> feature -> rows of the task, mapped into memory; one worker of each node writes them for all."""
    shared = Path(tempfile.gettempdir(), f"bindery-features-{ray.get_runtime_context().get_job_id()}-{task.name}")
    if ray.train.get_context().get_local_rank() == 0:
        shutil.rmtree(shared, ignore_errors=True)
        shard = ray.train.get_dataset_shard("pairs")
        write_features(shared, task.rows, task.read, shard.iter_batches(batch_size=READ_ROWS, batch_format="numpy"))
    workers.wait()
    mapped = map_features(shared, task.read)
    workers.wait()
    shutil.rmtree(shared, ignore_errors=True)
    return {m: {name: torch.from_numpy(values) for name, values in features.items()} for m, features in mapped.items()}


def _saved() -> dict[str, Any] | None:
    """The newest checkpoint of this training, if it has been begun before."""
    checkpoint = ray.train.get_checkpoint()
    return None if checkpoint is None else read_state(checkpoint)


def read_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """The `Training.state_dict` that a checkpoint holds."""
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(Path(folder, STATE), map_location="cpu", weights_only=True)
    return state


def _report(training: Training, entry: Entry, lead: bool) -> None:
    """Tell Ray Train of the end of an epoch; the lead hands it a checkpoint."""
    metrics = {name: value for name, value in entry.items() if isinstance(value, int | float)}
    if not lead:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(training.state_dict(), Path(folder, STATE))
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))
