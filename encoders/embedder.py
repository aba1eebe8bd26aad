"""Features to vectors, on whatever device there is. In: batched numpy features. Out: float32 unit vectors (B, D)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from encoders.encoder import Encoder


class Embedder:
    """A tower held ready: on GPU in bfloat16 with fixed batch shapes and pinned copies, on CPU in float32."""

    def __init__(self, encoder: Encoder, batch_size: int, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.batch_size = batch_size
        self.tower = encoder.tower.to(self.device)

    def __call__(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Unit vectors of one batch.

        Args:
            features: arrays of the encoder's features with a leading batch axis, the same length for all.

        Returns:
            float32 (B, D), each row of norm 1; a row that is not finite stays so, for the caller to judge.
        """
        count = len(next(iter(features.values())))
        chunks = [self._forward(features, start) for start in range(0, count, self.batch_size)]
        return torch.cat(chunks).numpy()

    def _forward(self, features: Mapping[str, np.ndarray], start: int) -> torch.Tensor:
        batch = {name: torch.from_numpy(values[start : start + self.batch_size]) for name, values in features.items()}
        count = len(next(iter(batch.values())))
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            batch = {name: self._padded(values).pin_memory() for name, values in batch.items()}
        moved = {name: values.to(self.device, non_blocking=True) for name, values in batch.items()}
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=on_gpu):
            vectors = self.tower(**moved)
        return torch.nn.functional.normalize(vectors.float(), dim=-1)[:count].cpu()

    def _padded(self, values: torch.Tensor) -> torch.Tensor:
        """The batch filled up with zeros: one shape for every call, so that kernels are chosen once."""
        short = self.batch_size - len(values)
        return torch.cat([values, values.new_zeros((short, *values.shape[1:]))]) if short else values
