"""Parameters and inputs that depend on a salt and a name alone, as the golden file's were made.

SplitMix64 from a seed that is the SHA-256 of `SALT/NAME`; uniform values of unit variance.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import nn

SALT = "shared-v1"
NAMED_STD = {  # by how an entry's name ends, then by profile; the first that fits
    ("pos_embed", "cls_token", "token_embedding.weight"): {"default": 0.5, "tiny": 0.003},
    (".bias_k", ".bias_v"): {"default": 1.0, "tiny": 0.003},
}
BIAS_STD = {"default": 0.1, "tiny": 0.0005}
MATRIX_STD = {"default": 1.0, "tiny": 0.02}  # over the root of fan_in


def stream(name: str, shape: tuple[int, ...], center: float, std: float) -> torch.Tensor:
    """float32 of this shape: the stream of a name."""
    seed = np.frombuffer(hashlib.sha256(f"{SALT}/{name}".encode()).digest()[:8], "<u8")[0]
    with np.errstate(over="ignore"):
        z = seed + np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    uniform = ((z >> np.uint64(40)).astype(np.float64) / 2**23 - 1) * 1.7320508075688772
    return torch.from_numpy((center + std * uniform).astype(np.float32).reshape(shape))


def parameter(name: str, shape: tuple[int, ...], profile: str) -> torch.Tensor:
    """The value of a state-dict entry."""
    if name == "modality_postprocessors.text.1.log_logit_scale":
        return stream(name, shape, 2.5, 0.1)
    for ends, std in NAMED_STD.items():
        if name.endswith(ends):
            return stream(name, shape, 0.0, std[profile])
    if len(shape) == 1:
        weight = name.endswith(".weight")
        return stream(name, shape, float(weight), 0.1 if weight else BIAS_STD[profile])
    return stream(name, shape, 0.0, MATRIX_STD[profile] / math.sqrt(math.prod(shape[1:])))


def fill(model: nn.Module, profile: str) -> None:
    """Set every parameter; buffers keep their built-in values."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(parameter(name, tuple(value.shape), profile))
