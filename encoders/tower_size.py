"""How large a tower is. In: an encoder, the type its weights would be stored in. Out: counts; nothing is fetched or run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from encoders.encoder import Encoder
from encoders.onnx_tower import SUFFIX as ONNX
from encoders.weights import uninitialised


@dataclass(frozen=True)
class TowerSize:
    """Weights and buffers that are stored.

    Attributes:
        tensors: how many.
        parameters: numbers in them.
        bytes: of them.
    """

    tensors: int
    parameters: int
    bytes: int

    @classmethod
    def of(cls, encoder: Encoder, dtype: torch.dtype = torch.float32) -> TowerSize:
        """That of an encoder's tower.

        Weights on this machine are looked at, so that what does not fit is told; for remote ones, which would have to be copied
        here, the untrained tower stands.

        Args:
            encoder: trained or not.
            dtype: that floating-point tensors are stored in; others keep theirs.

        Raises:
            SpaceError: the weights cannot be read, do not fit the tower, or are ONNX.
        """
        tensors = _state(encoder).values()
        sizes = [(t.numel(), dtype.itemsize if t.is_floating_point() else t.element_size()) for t in tensors]
        return cls(len(sizes), sum(count for count, _ in sizes), sum(count * each for count, each in sizes))


def _state(encoder: Encoder) -> Mapping[str, torch.Tensor]:
    weights = encoder.weights
    if weights is None or "://" not in weights.uri or weights.uri.endswith(ONNX):
        return encoder.state()
    with uninitialised():
        return encoder.build_tower().state_dict()
