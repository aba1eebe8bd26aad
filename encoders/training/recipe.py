"""How to train, in numbers. In: values as a user wrote them. Out: a recipe that can be followed, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from encoders.training.augment import AUGMENTS


class TrainingError(ValueError):
    """Training cannot start or go on with these pairs and settings; the message says what to change."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Args:
        epochs: how often each pair is seen.
        batch_size: pairs a step, of all workers together; each is told from all the others.
        micro_batch: pairs that go through a tower at once on a worker; the gradient is that of the whole batch (GradCache),
            for one more forward pass. 0: a worker's whole share of the batch. Halved by itself where memory does not suffice.
        loss: "infonce", or "cosine" for plain regression on the image's vector.
        temperature: of InfoNCE at the start.
        learn_temperature: whether it is learnt; its inverse never exceeds 100.
        optimiser: "muon" for the inner matrices and AdamW for the rest, or "adamw" for all.
        muon_lr: learning rate of the inner matrices under Muon.
        adamw_lr: learning rate of all other weights.
        weight_decay: of matrices; biases, norms, positions, embeddings and the temperature have none.
        warmup: share of all steps over which the learning rate rises; then it falls to zero as a cosine.
        clip: longest gradient of all towers together; longer ones are shortened to it.
        ema: share of the averaged weights that a step keeps, e.g. 0.999; the average is what is scored and saved. 0: none.
        precision: of the towers in training; "auto" is bfloat16 on a GPU and float32 on a CPU.
        augment: names of changes to a batch (encoders/training/augment.py), in order; None: those that the encoder names.
        seed: of weights, of the order of pairs, of augmentation.

    Raises:
        TrainingError: nothing could be learnt with these values.
    """

    epochs: int
    batch_size: int = 128
    micro_batch: int = 0
    loss: Literal["infonce", "cosine"] = "infonce"
    temperature: float = 0.07
    learn_temperature: bool = True
    optimiser: Literal["muon", "adamw"] = "muon"
    muon_lr: float = 0.02
    adamw_lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    ema: float = 0.0
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    augment: Sequence[str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.epochs < 1 or self.micro_batch < 0:
            raise TrainingError(
                f"batch size {self.batch_size}, {self.epochs} epochs, micro batch {self.micro_batch}; use at least 2 pairs, "
                "1 epoch, and a micro batch of 0 or more"
            )
        if not (self.temperature > 0 and self.muon_lr > 0 and self.adamw_lr > 0 and self.clip > 0):
            raise TrainingError(
                f"temperature {self.temperature}, learning rates {self.muon_lr} and {self.adamw_lr}, clip {self.clip}; "
                "all must be above 0"
            )
        if not (0 <= self.ema < 1 and 0 <= self.warmup < 1 and 0 <= self.weight_decay < 1):
            raise TrainingError(
                f"ema {self.ema}, warmup {self.warmup}, weight decay {self.weight_decay}; each must be at least 0 and below 1"
            )
        if unknown := [name for name in self.augment or () if name not in AUGMENTS]:
            raise TrainingError(f"no augmentation {unknown[0]!r}; there are {', '.join(sorted(AUGMENTS))}")

    def with_short(self, epochs: int | None, batch_size: int | None) -> Self:
        """This recipe with what a command line says beside it, if anything."""
        epochs = self.epochs if epochs is None else epochs
        return replace(self, epochs=epochs, batch_size=self.batch_size if batch_size is None else batch_size)

    def batches(self, num_pairs: int) -> int:
        """Whole batches in an epoch.

        Raises:
            TrainingError: not one can be filled.
        """
        if num_pairs < self.batch_size:
            raise TrainingError(
                f"{num_pairs} pairs do not fill one batch of {self.batch_size}; bring more pairs or lower --batch-size"
            )
        return num_pairs // self.batch_size

    def share(self, workers: int) -> int:
        """A worker's pairs of each batch.

        Raises:
            TrainingError: the batch cannot be shared out.
        """
        if self.batch_size % workers:
            raise TrainingError(
                f"a batch of {self.batch_size} cannot be shared by {workers} workers; make it a multiple of {workers}"
            )
        return self.batch_size // workers
