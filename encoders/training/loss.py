"""What training minimises. In: matching unit vectors. Out: a scalar loss in nats.  B batch, D dimension."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

MAX_LOGIT_SCALE = 100.0


def clip_loss(query_BD: torch.Tensor, target_BD: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE with in-batch negatives.

    Args:
        query_BD: unit vectors of the tower in training, float32.
        target_BD: unit vectors of the other tower, in training as well or frozen; row i matches row i of `query_BD`.
        logit_scale: inverse temperature, scalar, clamped to at most 100.

    Returns:
        Scalar mean cross-entropy in nats; ln(B) when nothing has been learnt.

    Raises:
        ValueError: the shapes differ, or B < 2 leaves no negatives.
    """
    if query_BD.shape != target_BD.shape or query_BD.ndim != 2:
        raise ValueError(
            f"clip_loss compares row i with row i: it needs two matrices of one shape (B, D), got {tuple(query_BD.shape)} "
            f"and {tuple(target_BD.shape)}"
        )
    if len(query_BD) < 2:
        raise ValueError(f"a batch of {len(query_BD)} has no negatives to tell the match from; use at least 2 pairs")
    logits_BB = query_BD @ target_BD.T * logit_scale.clamp(max=MAX_LOGIT_SCALE)
    match_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (cross_entropy(logits_BB, match_B) + cross_entropy(logits_BB.T, match_B)) / 2
