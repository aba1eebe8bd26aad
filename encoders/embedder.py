"""Features to vectors, on whatever device there is. In: batched numpy features. Out: float32 unit vectors (B, D)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from encoders.batch_rows import room
from encoders.cpu_products import OneDnnProducts
from encoders.encoder import Encoder
from encoders.gpu_tower import GpuTower

INPUT_BYTES = 40 * 1024**2  # of features that go through a tower at once on CPU: eight videos of 15 ImageBind clips


class Embedder:
    """A tower held ready: on a GPU in bfloat16 where that is safe (encoders/gpu_tower.py), on CPU in float32, by oneDNN.

    On CPU `batch_size` items go through it at once, or fewer, as many as hold INPUT_BYTES: the inside of a tower takes many
    times the room of what goes in, and an item of many clips is many inputs. On a GPU as many, up to `batch_size`, as it is
    fastest with and has memory for.
    """

    def __init__(self, encoder: Encoder, batch_size: int, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.batch_size = batch_size
        self._on_gpu = GpuTower(encoder.tower, batch_size, self.device) if self.device.type == "cuda" else None
        self.tower = encoder.tower.to(self.device)

    def __call__(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Unit vectors of one batch.

        Args:
            features: arrays of the encoder's features with a leading batch axis, the same length for all.

        Returns:
            float32 (B, D), each row of norm 1; a row that is not finite stays so, for the caller to judge.

        Raises:
            OSError: a GPU has no memory for a single item.
        """
        if self._on_gpu is not None:
            return self._on_gpu(features)
        count, rows = len(next(iter(features.values()))), self.rows_at_once(features)
        return torch.cat([self._forward(features, start, rows) for start in range(0, count, rows)]).numpy()

    def slots(self, features: Mapping[str, np.ndarray]) -> int:
        """How many rows the batches have room for that these rows go through the tower in; as many as there are, or more."""
        count, rows = len(next(iter(features.values()))), self.rows_at_once(features)
        return room(count, rows) if self._on_gpu is not None else -(-count // rows) * rows

    def rows_at_once(self, features: Mapping[str, np.ndarray]) -> int:
        """How many of such rows go through the tower at once."""
        if self._on_gpu is not None:
            return self._on_gpu.rows
        item_bytes = sum(values[:1].nbytes for values in features.values())
        return max(1, min(self.batch_size, INPUT_BYTES // item_bytes))

    def _forward(self, features: Mapping[str, np.ndarray], start: int, rows: int) -> torch.Tensor:
        chunks = {name: values[start : start + rows] for name, values in features.items()}
        batch = {name: torch.from_numpy(chunk if chunk.flags.writeable else chunk.copy()) for name, chunk in chunks.items()}
        with torch.inference_mode(), OneDnnProducts():  # type: ignore[no-untyped-call]
            vectors = self.tower(**{name: values.to(self.device) for name, values in batch.items()})
        return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu()
