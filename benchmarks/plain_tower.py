"""A tower without our way to run it. In: an encoder, batched features. Out: unit vectors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from encoders.encoder import Encoder


class PlainTower:
    """A tower as a script runs it: a forward of the module in inference mode."""

    def __init__(self, encoder: Encoder) -> None:
        self._tower = encoder.tower

    def __call__(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Unit vectors of one batch."""
        with torch.inference_mode():
            vectors = self._tower(**{name: torch.from_numpy(values) for name, values in features.items()})
        return torch.nn.functional.normalize(vectors, dim=-1).numpy()
