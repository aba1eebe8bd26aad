"""The workers of one training, which move the same weights. In: each one's part. Out: the whole, the same on every worker.

A thin layer over torch.distributed; a worker that is alone talks to nobody.  b rows of one worker, B rows of all, D dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import distributed as dist


class Workers:
    """This worker among its fellows.

    Attributes:
        rank: this one's number, from 0.
        count: how many there are.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.count = dist.get_world_size() if together else 1
        self._device = device

    def gather(self, rows_bD: torch.Tensor) -> torch.Tensor:
        """Everybody's rows, by rank, without gradient: (b, D) -> (B, D); all must have as many."""
        if self.count == 1:
            return rows_bD.detach()
        parts = [torch.empty_like(rows_bD) for _ in range(self.count)]
        dist.all_gather(parts, rows_bD.detach().contiguous())
        return torch.cat(parts)

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all workers, in one message."""
        self._reduce(list(tensors), 1.0)

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its mean over all workers, in one message."""
        self._reduce(list(tensors), 1 / self.count)

    def any(self, mine: bool) -> bool:
        """Whether it is so for any worker."""
        if self.count == 1:
            return mine
        flag = torch.tensor(float(mine), device=self._device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def wait(self) -> None:
        """Until all are here."""
        self.any(False)

    def _reduce(self, tensors: Sequence[torch.Tensor], factor: float) -> None:
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat * factor, [tensor.numel() for tensor in tensors])
        with torch.no_grad():
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))
