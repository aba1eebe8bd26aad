"""Demo text encoder: text -> 16 word ids -> vector.  B batch, L words, W width, D dim.

A closed vocabulary, kept in the settings: id 0 is padding, 1 any other word, 2 onwards the vocabulary in its order.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import nn

from encoders.blocks import POSITION_STD, Block
from encoders.encoder import Encoder, Feature, register
from encoders.media.text import Text, decode_text, describe_text
from encoders.media.types import Facts, Media

DIM = 128
LENGTH = 16  # words; longer texts are cut
WIDTH, DEPTH = 128, 1
PADDING, UNKNOWN, FIRST_WORD = 0, 1, 2


WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The lower-case words of a text: runs of letters and digits."""
    return WORD.findall(text.lower())


def spans(text: Text) -> list[tuple[int, int]]:
    """The parts of a text, as (first, end) characters, of at most 16 words each; white space between them is in none."""
    starts = [word.start() for word in WORD.finditer(text.text)][LENGTH::LENGTH]
    parts = itertools.pairwise([0, *starts, len(text.text)])
    return [(first, first + len(text.text[first:end].rstrip())) for first, end in parts] if starts else [(0, len(text.text))]


def describe(text: Text) -> Facts:
    """The text itself, and whether the tower sees only its beginning."""
    return replace(describe_text(text), truncated=len(spans(text)) > 1)


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
        describe=describe,
        spans=spans,
        build_tower=partial(DemoTextTower, len(vocabulary)),
    )
