"""Ray Train around the plain loop of encoders/training. In: what should learn from which pairs. Out: weights and scores.

One worker trains, on a GPU if the cluster has one, else on one CPU. It takes the features of all pairs into its memory (some
12 kB a pair in the demo space), embeds the frozen side once, and trains on what it holds: no epoch decodes anything again.
D dimension.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
import pyarrow.fs as pafs
import ray.train
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from encoders.embedder import Embedder
from encoders.encoder import Encoder, seeded_tower
from encoders.space import Space, trained
from encoders.training.evaluate import recall
from encoders.training.loop import Frozen, Learner, Recipe, Side, Trained, TrainingError, train
from pipelines.cluster import Resources
from pipelines.pairs import Pairs, feature_columns
from pipelines.storage import filesystem

EMBED_BATCH = 256
LISTED = 100  # dropped pairs that a report names; it counts them all
DTYPES = {"float32": torch.float32, "float16": torch.float16}

Dtype = Literal["float32", "float16"]
Features = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Plan:
    """What one training does.

    Attributes:
        query: learns.
        target: what it is matched with; learns too, unless it is trained already: then it is frozen.
        witnesses: trained encoders that never meet the query in training; held-out pairs are scored against them as well.
        recipe: how.
        held_out: how many pairs are kept out of training, for the scores.
        dtype: that the weights are rounded to before they are scored and named.
        shuffle_pairs: train on wrong partners, as a control: scores must fall to chance.
    """

    query: Encoder
    target: Encoder
    witnesses: tuple[Encoder, ...]
    recipe: Recipe
    held_out: int
    dtype: Dtype
    shuffle_pairs: bool = False

    @property
    def learners(self) -> tuple[Encoder, ...]:
        """The encoders that are in training."""
        return tuple(encoder for encoder in (self.query, self.target) if not encoder.fingerprint)

    def check(self, num_pairs: int) -> None:
        """Refuse what cannot be trained, before anything is read.

        Raises:
            TrainingError: too few pairs for one batch beside the held-out ones.
        """
        if self.held_out < 0:
            raise TrainingError(f"--held-out {self.held_out}: hold out 0 pairs or more")
        if num_pairs - self.held_out < self.recipe.batch_size:
            raise TrainingError(
                f"{num_pairs} usable pairs, {self.held_out} of them held out for the scores, do not fill one batch of "
                f"{self.recipe.batch_size}; bring more pairs, or lower --batch-size or --held-out"
            )


@dataclass(frozen=True)
class Outcome:
    """What a worker hands back.

    Attributes:
        weights: modality -> state dict of each tower that learnt, on the CPU.
        trained: how it went.
        scores: {"audio->image": {"R@1": ..., "R@5": ..., "R@10": ..., "of": gallery size}, ...} on the held-out pairs.
    """

    weights: Mapping[str, Features]
    trained: Trained
    scores: Mapping[str, Mapping[str, float]]


def fit(plan: Plan, pairs: Pairs, scratch: str) -> Outcome:
    """Train on the cluster.

    Args:
        plan: what.
        pairs: features for the query, the target and every witness.
        scratch: a folder or URI that all nodes reach, for Ray Train's own notes; removed at the end.

    Raises:
        TrainingError: too few pairs, or a loss that is not finite.
        ray.train.TrainingFailedError: a worker died.
    """
    plan.check(pairs.count)
    store, path = filesystem(f"{scratch.rstrip('/')}/.train-{uuid.uuid4().hex}")
    store.makedirs(path, exist_ok=True)
    trainer: Any = TorchTrainer(
        cast(Any, _work),
        train_loop_config={"plan": plan},
        datasets={"pairs": pairs.features},
        scaling_config=ScalingConfig(num_workers=1, use_gpu=Resources.of_cluster().gpus > 0),
        run_config=RunConfig(name="run", storage_path=path, storage_filesystem=pafs.PyFileSystem(pafs.FSSpecHandler(store))),
    )
    try:
        return trainer.fit().return_value  # type: ignore[no-any-return]
    except ray.train.WorkerGroupError as error:
        for failure in error.worker_failures.values():
            if isinstance(failure, TrainingError):
                raise TrainingError(str(failure)) from error
        raise
    finally:
        store.rm(path, recursive=True)


def finished(plan: Plan, outcome: Outcome, data: Mapping[str, Any]) -> list[Encoder]:
    """The encoders that learnt, with weights, fingerprint, temperature and a card that says how they came about."""
    card = {
        "data": dict(data),
        "recipe": asdict(plan.recipe),
        "shuffled_pairs": plan.shuffle_pairs,
        "final_loss": outcome.trained.losses[-1],
        "scores": {name: dict(score) for name, score in outcome.scores.items()},
        "frozen": {plan.target.modality: plan.target.fingerprint} if plan.target.fingerprint else {},
    }
    made = []
    for encoder in plan.learners:
        tower = encoder.build_tower()
        tower.load_state_dict(outcome.weights[encoder.modality])
        made.append(trained(encoder, tower, outcome.trained.logit_scale, card, DTYPES[plan.dtype]))
    return made


def summary(pairs: Pairs, outcome: Outcome, space: Space) -> dict[str, Any]:
    """The report of a training job."""
    return {
        "space": space.uri,
        "fingerprint": space.fingerprint,
        "modalities": list(space.modalities),
        "pairs": {"found": pairs.found, "dropped": len(pairs.dropped), "used": pairs.count},
        "dropped": [asdict(dropped) for dropped in pairs.dropped[:LISTED]],
        "steps": outcome.trained.steps,
        "losses": outcome.trained.losses,
        "logit_scale": outcome.trained.logit_scale,
        "scores": outcome.scores,
    }


def _work(config: dict[str, Plan]) -> Outcome:
    """The training function of the worker."""
    plan = config["plan"]
    device = get_device()
    if not isinstance(device, torch.device):
        raise TypeError(f"one device a worker, not {device}")
    columns = _collect(ray.train.get_dataset_shard("pairs"))
    features = {m.modality: _tensors(columns, m) for m in (plan.query, plan.target, *plan.witnesses)}
    order = torch.randperm(len(columns["row"]), generator=torch.Generator().manual_seed(plan.recipe.seed))
    held_N, train_N = order[: plan.held_out], order[plan.held_out :]
    towers = {e.modality: seeded_tower(e, plan.recipe.seed).to(device) for e in plan.learners}

    def side(encoder: Encoder) -> Side:
        mine = {name: values[train_N] for name, values in features[encoder.modality].items()}
        if encoder.modality in towers:
            return Learner(towers[encoder.modality], mine, encoder.augment)
        vectors_ND = torch.from_numpy(Embedder(encoder, EMBED_BATCH, str(device))(_arrays(mine))).to(device)
        return Frozen(vectors_ND[_wrong_order(len(vectors_ND), plan.recipe.seed)] if plan.shuffle_pairs else vectors_ND)

    went = train(side(plan.query), side(plan.target), plan.recipe, _progress(plan))
    weights = {modality: _cpu(tower.state_dict()) for modality, tower in towers.items()}
    held = {modality: {name: values[held_N] for name, values in mine.items()} for modality, mine in features.items()}
    return Outcome(weights, went, _scores(plan, towers, held) if len(held_N) else {})


def _scores(plan: Plan, towers: Mapping[str, torch.nn.Module], held: Mapping[str, Features]) -> dict[str, dict[str, float]]:
    """Retrieval on the held-out pairs, with the weights as they will be stored."""

    def vectors(encoder: Encoder) -> np.ndarray:
        if encoder.modality in towers:
            encoder = trained(encoder, towers[encoder.modality].cpu(), 1.0, {}, DTYPES[plan.dtype])
        return Embedder(encoder, EMBED_BATCH)(_arrays(held[encoder.modality]))

    query_ND = vectors(plan.query)
    scores = {}
    for other in (plan.target, *plan.witnesses):
        scores[f"{plan.query.modality}->{other.modality}"] = {**recall(query_ND, vectors(other)), "of": float(len(query_ND))}
    return scores


def _collect(shard: ray.data.DataIterator) -> dict[str, np.ndarray]:
    """All pairs of the shard, in the manifest's order whatever order the blocks came in."""
    batches: list[Any] = list(shard.iter_batches(batch_size=EMBED_BATCH, batch_format="numpy"))
    columns: dict[str, np.ndarray] = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    order = np.argsort(columns["row"])
    return {name: values[order] for name, values in columns.items()}


def _tensors(columns: Mapping[str, np.ndarray], encoder: Encoder) -> Features:
    return {name: torch.from_numpy(values) for name, values in feature_columns(columns, encoder.modality).items()}


def _arrays(features: Features) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in features.items()}


def _cpu(state: Mapping[str, torch.Tensor]) -> Features:
    return {name: values.detach().cpu() for name, values in state.items()}


def _wrong_order(count: int, seed: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed + 1))


def _progress(plan: Plan) -> Callable[[int, float], None]:
    learning = " + ".join(encoder.modality for encoder in plan.learners)

    def tell(epoch: int, loss: float) -> None:
        ray.train.report({"epoch": epoch, "loss": loss})
        sys.stderr.write(f"{learning}: epoch {epoch} of {plan.recipe.epochs}, loss {loss:.3f}\n")

    return tell
