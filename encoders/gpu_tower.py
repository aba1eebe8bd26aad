"""A tower on a GPU (docs/decisions/0015-one-actor-a-gpu.md). In: batched numpy features. Out: float32 unit vectors (B, D).

Features go over as they are, 8-bit pixels and all, from pinned memory on a stream of their own; the tower's first layers make
floats of them there. B batch, D dimension.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch

from encoders.batch_rows import FIRST_ROWS, best_rows, in_pieces, room


class GpuTower:
    """A tower held ready on a GPU. Two threads keep it busy: the features of one travel while those of the other are computed.

    Weights stay float32; autocast runs matrix products and attention in bfloat16, norms and the sums of layers in float32.

    Args:
        tower: float32, in evaluation mode; it is moved to the device.
        most: rows of a full batch.
        device: a CUDA device.

    Attributes:
        rows: how many go through the tower at once: found at the first full batch; fewer when memory runs out later.
    """

    def __init__(self, tower: torch.nn.Module, most: int, device: torch.device) -> None:
        self.tower = tower.to(device)
        self.rows = min(FIRST_ROWS, most)
        self._most, self._device, self._probed = most, device, False
        self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._turn = threading.Lock()  # to give the device work; nobody holds it to wait for the device

    def __call__(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Unit vectors of one batch.

        Raises:
            OSError: the device has no memory for a single item.
        """
        try:
            vectors, done = self._given(features)
        except torch.OutOfMemoryError as error:
            raise OSError(
                f"{torch.cuda.get_device_name(self._device)} has no memory for a single item: {error}. Take a GPU with more "
                "memory, or wait until others on it are done"
            ) from error
        done.synchronize()
        return vectors[: len(next(iter(features.values())))].numpy()

    def _given(self, features: Mapping[str, np.ndarray]) -> tuple[torch.Tensor, torch.cuda.Event]:
        """Give the device all work on a batch: where its vectors will be, on the host, and when."""
        count = len(next(iter(features.values())))
        filled = room(count, self.rows)
        with torch.cuda.stream(self._copies):
            moved = {name: _pinned(values, filled).to(self._device, non_blocking=True) for name, values in features.items()}
            there = self._copies.record_event()
        with self._turn, torch.inference_mode():
            compute = torch.cuda.current_stream(self._device)
            compute.wait_event(there)
            for values in moved.values():
                values.record_stream(compute)  # else its memory is used again while the tower reads it
            if count == self._most and not self._probed:
                self.rows, self._probed = best_rows(partial(self._seconds, moved), count), True
            pieces, self.rows = in_pieces(partial(self._unit_vectors, moved), filled, self.rows)
            vectors = torch.empty((filled, pieces[0].shape[1]), pin_memory=True)
            vectors.copy_(torch.cat(pieces), non_blocking=True)
            return vectors, compute.record_event()

    def _unit_vectors(self, moved: Mapping[str, torch.Tensor], first: int, end: int) -> torch.Tensor:
        with torch.autocast(self._device.type, torch.bfloat16):
            vectors = self.tower(**{name: values[first:end] for name, values in moved.items()})
        return torch.nn.functional.normalize(vectors.float(), dim=-1)

    def _seconds(self, moved: Mapping[str, torch.Tensor], rows: int) -> float:
        """How long the first rows take, the second time: at the first, kernels are chosen and memory is taken."""
        for _ in range(2):
            torch.cuda.synchronize(self._device)
            began = time.perf_counter()
            self._unit_vectors(moved, 0, rows)
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - began


def _pinned(values: np.ndarray, rows: int) -> torch.Tensor:
    """The values in page-locked memory, filled up with zeros. Torch takes it back only when the copy from it is done."""
    pinned = torch.empty((rows, *values.shape[1:]), dtype=torch.from_numpy(values[:0].copy()).dtype, pin_memory=True)
    held = pinned.numpy()
    held[: len(values)] = values
    held[len(values) :] = 0
    return pinned
