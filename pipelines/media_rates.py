"""What media of a pairs manifest cost, measured on a few. In: an encoder and its column. Out: seconds a medium, features.

In this process, a medium at a time, on one thread as on the workers; on a GPU, where there is one, the tower runs on that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from encoders.embedder import Embedder
from encoders.encoder import Encoder
from pipelines.cluster import Resources
from pipelines.pairs import Member

TRIED = 16  # media of a modality
BUDGET_S = 5.0  # for their preparation, and again for the tower; what has begun is finished
BATCH = 32  # of the tower
OTHER_DEVICE = "the towers were tried on another device than the run's: ask on a node like those of the run"


@dataclass(frozen=True)
class Rate:
    """Of one modality.

    Attributes:
        media: that there are.
        tried: of these.
        bad: of those tried, that cannot be used.
        prepare_s: to read, decode and preprocess one.
        tower_s: of its tower; None: not measured.
    """

    media: int
    tried: int
    bad: int
    prepare_s: float
    tower_s: float | None = None


def try_media(member: Member, values: Sequence[Any], with_tower: bool) -> tuple[Rate, dict[str, np.ndarray]]:
    """Prepare a few media, and run the tower on them.

    Args:
        member: what prepares them.
        values: of its column; None where there is none.
        with_tower: whether to run the encoder's tower, which must be trained.

    Returns:
        The rate, and the features of those that can be used, batched; {} where none can.
    """
    present = [value for value in values if value is not None]
    if not present:
        return Rate(0, 0, 0, 0.0), {}
    chosen = [present[k] for k in np.random.default_rng(0).permutation(len(present))[:TRIED]]
    with one_thread():
        member(chosen[0])  # what a decoder loads when it is first used is no cost of a medium
        made, began = [], time.perf_counter()
        for value in chosen:
            made.append(member(value))
            if time.perf_counter() - began > BUDGET_S:
                break
        prepare_s = (time.perf_counter() - began) / len(made)
        good = [features for features, problem in made if not problem]
        features = {name: np.stack([one[name] for one in good]) for name in member.encoder.features} if good else {}
        tower_s = _tower_s(member.encoder, features) if good and with_tower else None
    return Rate(len(present), len(made), len(made) - len(good), prepare_s, tower_s), features


def _tower_s(encoder: Encoder, features: Mapping[str, np.ndarray]) -> float:
    """Seconds of an item, in a batch that is as full as the time allows."""
    embedder, size = Embedder(encoder, BATCH), 1
    embedder(_repeated(features, 1))  # loads the weights
    while True:
        batch, began = _repeated(features, size), time.perf_counter()
        embedder(batch)
        seconds = time.perf_counter() - began
        if size == BATCH or BATCH * seconds / size > BUDGET_S:
            return seconds / size
        size = BATCH


def _repeated(features: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """So many rows, some of them again."""
    rows = np.arange(count) % len(next(iter(features.values())))
    return {name: values[rows] for name, values in features.items()}


def in_all(parts: Mapping[str, float], there: Resources) -> dict[str, Any]:
    """What the parts of a run take together, and the bottleneck in words; neither, if the run has GPUs and the trial had none.

    Args:
        parts: what, in words, and the seconds it takes.
        there: the resources of the run.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if bool(there.gpus) != torch.cuda.is_available():
        return {"device": device, "seconds_of": dict(parts), "seconds": None, "bottleneck": OTHER_DEVICE}
    total, name = sum(parts.values()), max(parts, key=parts.__getitem__, default="")
    limit = f"most of it is {name}: {parts[name]:,.1f} of {total:,.1f} s" if total else None
    return {"device": device, "seconds_of": dict(parts), "seconds": total, "bottleneck": limit}


@contextmanager
def one_thread() -> Iterator[None]:
    """As many as a worker takes on CPUs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
