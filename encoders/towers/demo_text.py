"""Demo text encoder: text -> 16 word ids -> vector.  B batch, L words, W width, D dim.

A closed vocabulary, kept in the settings: id 0 is padding, 1 any other word, 2 onwards the vocabulary in its order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import nn

from encoders.blocks import POSITION_STD, Block
from encoders.encoder import Encoder, Feature, register
from encoders.media.text import decode_text, describe_text
from encoders.media.types import Media

DIM = 128
LENGTH = 16  # words; longer texts are cut
WIDTH, DEPTH = 128, 1
PADDING, UNKNOWN, FIRST_WORD = 0, 1, 2


def words(text: str) -> list[str]:
    """The lower-case words of a text: runs of letters and digits."""
    return re.findall(r"[^\W_]+", text.lower())


@dataclass(frozen=True)
class WordIds:
    """Preprocess. Holds the vocabulary only, so it pickles to any worker."""

    vocabulary: tuple[str, ...]

    @cached_property
    def ids(self) -> dict[str, int]:
        """Every word of the vocabulary and its id."""
        return {word: FIRST_WORD + index for index, word in enumerate(self.vocabulary)}

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """Anything `decode_text` takes -> {"token_ids": int64 (16,)}; a text without a word is one unknown word."""
        found = [self.ids.get(word, UNKNOWN) for word in words(decode_text(media).text)][:LENGTH] or [UNKNOWN]
        return {"token_ids": np.array(found + [PADDING] * (LENGTH - len(found)), np.int64)}


class DemoTextTower(nn.Module):
    """Word embeddings, one block, the mean over the words that are there."""

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(FIRST_WORD + num_words, WIDTH)
        self.position = nn.Parameter(torch.randn(1, LENGTH, WIDTH) * POSITION_STD)
        self.blocks = nn.ModuleList(Block(WIDTH) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, DIM)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """int64 (B, L) -> (B, D), not normalised; padding is neither attended to nor averaged."""
        present_BL = token_ids != PADDING
        present_BL = present_BL | (torch.arange(LENGTH, device=token_ids.device) == 0)  # a row of padding alone stays finite
        x_BLW = self.embedding(token_ids) + self.position
        for block in self.blocks:
            x_BLW = block(x_BLW, present_BL[:, None, None, :])
        kept_BLW = self.norm(x_BLW) * present_BL.unsqueeze(-1)
        return self.head(kept_BLW.sum(1) / present_BL.sum(1, keepdim=True))  # type: ignore[no-any-return]


@register("demo/text", small={"vocabulary": ["a", "red", "train", "snow", "in", "the"]})
def demo_text(vocabulary: Sequence[str] = ()) -> Encoder:
    """The demo world's text encoder.

    Args:
        vocabulary: lower-case words as `words` finds them; their order is their id, so it must not change once trained.
    """
    return Encoder(
        architecture="demo/text",
        modality="text",
        dim=DIM,
        settings={"vocabulary": list(vocabulary)},
        features={"token_ids": Feature("int64", (LENGTH,))},
        decode=decode_text,
        preprocess=WordIds(tuple(vocabulary)),
        describe=describe_text,
        build_tower=partial(DemoTextTower, len(vocabulary)),
    )
