"""What training minimises. In: matching unit vectors. Out: a scalar loss.  B batch, C rows of a chunk, D dimension."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

MAX_LOGIT_SCALE = 100.0
CHUNK_ROWS = 4096  # of the (B, B) similarities that are held at a time; a larger batch computes them twice


def clip_loss(
    query_BD: torch.Tensor, target_BD: torch.Tensor, logit_scale: torch.Tensor, groups_B: torch.Tensor | None = None
) -> torch.Tensor:
    """Symmetric InfoNCE with in-batch negatives (van den Oord et al. 2018; symmetric as in CLIP, Radford et al. 2021).

    Args:
        query_BD: unit vectors of the tower in training, float32.
        target_BD: unit vectors of the other tower, in training as well or frozen; row i matches row i of `query_BD`.
        logit_scale: inverse temperature, scalar, clamped to at most 100.
        groups_B: int64; rows of one group share an image, so none is a negative of another. None: all differ.

    Returns:
        Scalar mean cross-entropy in nats; ln(B) when nothing has been learnt and all groups differ.

    Raises:
        ValueError: the shapes differ, or B < 2 leaves no negatives.
    """
    _check(query_BD, target_BD)
    if len(query_BD) < 2:
        raise ValueError(f"a batch of {len(query_BD)} has no negatives to tell the match from; use at least 2 pairs")
    scale = logit_scale.clamp(max=MAX_LOGIT_SCALE)
    total = query_BD.new_zeros(())
    for rows_BD, others_BD in ((query_BD, target_BD), (target_BD, query_BD)):
        for first in range(0, len(rows_BD), CHUNK_ROWS):
            chunk = (rows_BD[first : first + CHUNK_ROWS], others_BD, scale, first, groups_B)
            if len(rows_BD) > CHUNK_ROWS:
                total = total + checkpoint(_summed, *chunk, use_reentrant=False)
            else:
                total = total + _summed(*chunk)
    return total / (2 * len(query_BD))


def cosine_loss(query_BD: torch.Tensor, target_BD: torch.Tensor) -> torch.Tensor:
    """Plain regression: the mean of 1 - cosine of matching unit vectors; 1 when they have nothing in common.

    It needs no negatives, so a batch of 1 will do; against a frozen tower it cannot collapse, between two that learn it can.

    Raises:
        ValueError: the shapes differ.
    """
    _check(query_BD, target_BD)
    return 1 - (query_BD * target_BD).sum(-1).mean()


def _summed(
    rows_CD: torch.Tensor, others_BD: torch.Tensor, scale: torch.Tensor, first: int, groups_B: torch.Tensor | None
) -> torch.Tensor:
    """The sum over rows `first` and following of the cross-entropy of each to find its own among all others."""
    logits_CB = rows_CD @ others_BD.T * scale
    match_C = torch.arange(first, first + len(rows_CD), device=rows_CD.device)
    if groups_B is not None:
        alike_CB = groups_B[match_C, None] == groups_B
        alike_CB[torch.arange(len(rows_CD), device=rows_CD.device), match_C] = False
        logits_CB = logits_CB.masked_fill(alike_CB, -torch.inf)
    return cross_entropy(logits_CB, match_C, reduction="sum")


def _check(query_BD: torch.Tensor, target_BD: torch.Tensor) -> None:
    if query_BD.shape != target_BD.shape or query_BD.ndim != 2:
        raise ValueError(
            f"a loss compares row i with row i: it needs two matrices of one shape (B, D), got {tuple(query_BD.shape)} "
            f"and {tuple(target_BD.shape)}"
        )
