"""A tower that takes time and nothing else, for benchmarks/scale_out.py: texts -> one byte each -> vectors of random weights.

It is found as an installed package's encoder is, by an entry point that the benchmark writes. Every forward leaves a line with
its start and its end, in seconds since 1970, in a file of its process.  B batch, D dimension.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from encoders.encoder import Encoder, Feature, register
from encoders.media.text import decode_text, describe_text
from encoders.media.types import Media


def preprocess(media: Media) -> dict[str, np.ndarray]:
    """A text -> {"byte": int64 (1,)}, its first one."""
    return {"byte": np.array([decode_text(media).text.encode()[0]])}


class SleepingTower(nn.Module):
    """`item_s` seconds an item, as towers on CPUs take."""

    def __init__(self, dim: int, item_s: float, log: str) -> None:
        super().__init__()
        self.vectors = nn.Embedding(256, dim)
        self.item_s = item_s
        self.log = Path(log)

    def forward(self, byte: torch.Tensor) -> torch.Tensor:
        """int64 (B, 1) -> (B, D), not normalised."""
        began = time.time()
        time.sleep(self.item_s * len(byte))
        vectors_BD: torch.Tensor = self.vectors(byte[:, 0])
        with (self.log / str(os.getpid())).open("a") as file:
            file.write(f"{began} {time.time()} {len(byte)}\n")
        return vectors_BD


@register("benchmarks/sleeping")
def sleeping(dim: int = 64, item_s: float = 0.0, log: str = "/nowhere") -> Encoder:
    """An encoder of texts; `log` is an existing folder."""
    return Encoder(
        architecture="benchmarks/sleeping",
        modality="text",
        dim=dim,
        settings={"dim": dim, "item_s": item_s, "log": log},
        features={"byte": Feature("int64", (1,))},
        decode=decode_text,
        preprocess=preprocess,
        describe=describe_text,
        build_tower=partial(SleepingTower, dim, item_s, log),
    )
