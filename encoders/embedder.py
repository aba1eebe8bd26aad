"""Features to vectors, on whatever device there is. In: batched numpy features. Out: float32 unit vectors (B, D)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from encoders.encoder import Encoder

INPUT_BYTES = 40 * 1024**2  # of features that go through a tower at once: eight videos of 15 ImageBind clips


class Embedder:
    """A tower held ready: on GPU in bfloat16 with fixed batch shapes and pinned copies, on CPU in float32.

    `batch_size` items go through it at once, or fewer, as many as hold INPUT_BYTES: the inside of a tower takes many times the
    room of what goes in, and an item of many clips is many inputs.
    """

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
        count, rows = len(next(iter(features.values()))), self._rows_at_once(features)
        chunks = [self._forward(features, start, rows) for start in range(0, count, rows)]
        return torch.cat(chunks).numpy()

    def slots(self, features: Mapping[str, np.ndarray]) -> int:
        """How many rows the batches have room for that these rows go through the tower in; as many as there are, or more."""
        rows = self._rows_at_once(features)
        return -(-len(next(iter(features.values()))) // rows) * rows

    def _rows_at_once(self, features: Mapping[str, np.ndarray]) -> int:
        item_bytes = sum(values[:1].nbytes for values in features.values())
        return max(1, min(self.batch_size, INPUT_BYTES // item_bytes))

    def _forward(self, features: Mapping[str, np.ndarray], start: int, rows: int) -> torch.Tensor:
        batch = {name: torch.from_numpy(values[start : start + rows]) for name, values in features.items()}
        count = len(next(iter(batch.values())))
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            batch = {name: self._padded(values, rows).pin_memory() for name, values in batch.items()}
        moved = {name: values.to(self.device, non_blocking=True) for name, values in batch.items()}
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=on_gpu):
            vectors = self.tower(**moved)
        return torch.nn.functional.normalize(vectors.float(), dim=-1)[:count].cpu()

    def _padded(self, values: torch.Tensor, rows: int) -> torch.Tensor:
        """The batch filled up with zeros: one shape for every call, so that kernels are chosen once."""
        short = rows - len(values)
        return torch.cat([values, values.new_zeros((short, *values.shape[1:]))]) if short else values
