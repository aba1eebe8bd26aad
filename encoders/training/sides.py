"""The two sides of the pairs. In: features or vectors in memory, row i of both belonging together. Out: unit vectors of rows.

N pairs, b rows of a worker, D dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import nn
from torch.nn.functional import normalize

from encoders.encoder import Augment

Batch = dict[str, torch.Tensor]  # what goes through a tower, (b, ...) each


class Side(Protocol):
    """One modality of the pairs."""

    @property
    def tower(self) -> nn.Module | None:
        """What learns, if this side does."""

    def __len__(self) -> int:
        """N."""

    def batch(self, rows_b: torch.Tensor, generator: torch.Generator) -> Batch:
        """These rows as they go through the tower, changed as augmentation has it, on the device to train on."""

    def vectors(self, batch: Batch) -> torch.Tensor:
        """Unit vectors (b, D), float32, of a batch or some of its rows; with gradient if this side learns."""


class _Computed:
    """A side whose vectors are computed from features in every step.

    Args:
        tower: (features, batched) -> (B, D), on the device to train on.
        features: {name: (rows, ...)} in memory on the CPU, in whatever small type they were made.
        augment: see encoders/training/augment.py.
        bfloat16: run the tower under autocast.
        rows_N: which rows of the features are the pairs, in their order; None: all, as they are.
    """

    def __init__(
        self,
        tower: nn.Module,
        features: Mapping[str, torch.Tensor],
        augment: Augment | None = None,
        bfloat16: bool = False,
        rows_N: torch.Tensor | None = None,
    ) -> None:
        self._tower, self._features, self._augment, self._bfloat16 = tower, features, augment, bfloat16
        self._rows_N = torch.arange(len(next(iter(features.values())))) if rows_N is None else rows_N
        self._device = next(tower.parameters()).device

    def __len__(self) -> int:
        return len(self._rows_N)

    def batch(self, rows_b: torch.Tensor, generator: torch.Generator) -> Batch:
        """The features of these rows, augmented."""
        batch = {name: values[self._rows_N[rows_b]].to(self._device) for name, values in self._features.items()}
        return self._augment(batch, generator) if self._augment else batch

    def vectors(self, batch: Batch) -> torch.Tensor:
        """Unit vectors."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            vectors_bD = self._tower(**batch)
        return normalize(vectors_bD.float(), dim=-1)


class Learner(_Computed):
    """A side whose tower learns. Arguments as of `_Computed`."""

    @property
    def tower(self) -> nn.Module:
        """The tower."""
        return self._tower


class Recomputed(_Computed):
    """A side that stays as it is, but is computed anew in every step, so that augmentation reaches it too.

    Its tower is in evaluation mode and gets no gradient, whatever the caller does with it. Arguments as of `_Computed`.
    """

    tower = None

    def vectors(self, batch: Batch) -> torch.Tensor:
        """Unit vectors without gradient."""
        self._tower.eval()
        with torch.no_grad():
            return super().vectors(batch)


class Frozen:
    """A side that stays as it is: unit vectors (N, D), computed once, on the device to train on."""

    tower = None

    def __init__(self, vectors_ND: torch.Tensor) -> None:
        self._vectors_ND = vectors_ND

    def __len__(self) -> int:
        return len(self._vectors_ND)

    def batch(self, rows_b: torch.Tensor, generator: torch.Generator) -> Batch:
        """The rows; nothing is drawn from `generator`."""
        return {"vectors": self._vectors_ND[rows_b.to(self._vectors_ND.device)]}

    def vectors(self, batch: Batch) -> torch.Tensor:
        """The rows as they are."""
        return batch["vectors"]
