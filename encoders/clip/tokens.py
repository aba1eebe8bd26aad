"""Texts the way CLIP-style libraries tokenise them. In: a text. Out: token ids of a fixed length, and the parts that fit.

The tokenizer is a `tokenizer.json` of the `tokenizers` library, an asset of the space.  L length in tokens.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from encoders.media.text import Text, decode_text, describe_text
from encoders.media.types import Facts, Media

ASSET = "tokenizer.json"
Clean = Literal["", "whitespace", "lower", "canonicalize", "siglip"]
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Tokens:
    """Preprocess: {"token_ids": int64 (L,)} and, with `mask`, {"token_mask": int64 (L,)}, 1 where a token is.

    Attributes:
        tokenizer: the bytes of a tokenizer.json.
        length: L, special tokens included; longer texts lose their end, as the library cuts them.
        pad_id: what a shorter text is filled up with, at the side `pad_side`.
        clean: what happens to the text first: "" nothing; open_clip's "whitespace", "lower" and "canonicalize"; "siglip".
        zeroed: an id that becomes 0 (open_clip's `strip_sep_token`).
    """

    tokenizer: bytes = field(repr=False)
    length: int
    pad_id: int
    pad_side: Literal["left", "right"] = "right"
    mask: bool = False
    clean: Clean = ""
    zeroed: int | None = None

    @cached_property
    def _tokenizers(self) -> tuple[Any, Any]:
        """One that cuts and pads, and one that does not."""
        from tokenizers import Tokenizer

        fitting, whole = (Tokenizer.from_str(self.tokenizer.decode()) for _ in range(2))
        whole.no_truncation()
        whole.no_padding()
        fitting.enable_truncation(self.length)
        fitting.enable_padding(direction=self.pad_side, pad_id=self.pad_id, length=self.length)
        return fitting, whole

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """Anything `decode_text` takes."""
        encoding = self._tokenizers[0].encode(cleaned(decode_text(media).text, self.clean))
        features = {"token_ids": np.array([0 if id_ == self.zeroed else id_ for id_ in encoding.ids], np.int64)}
        return {**features, "token_mask": np.array(encoding.attention_mask, np.int64)} if self.mask else features

    def count(self, text: str) -> int:
        """How many tokens the whole text is, special tokens included."""
        return len(self._tokenizers[1].encode(cleaned(text, self.clean)).ids)

    def spans(self, text: Text) -> list[tuple[int, int]]:
        """The parts of a text, as (first, end) characters, that each fit into L tokens; whole words where these fit."""
        return parts(text.text, lambda part: self.count(part) <= self.length)

    def describe(self, text: Text) -> Facts:
        """The text, and whether its end is lost."""
        return replace(describe_text(text), truncated=self.count(text.text) > self.length)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_tokenizers"}


def parts(text: str, fits: Callable[[str], bool]) -> list[tuple[int, int]]:
    """Cut a text into consecutive parts that fit, between words (white space belongs to no part), or within a word that is
    too long by itself.

    Args:
        text: not white space only.
        fits: whether a part does; of two parts that begin alike the shorter one fits if the longer does.

    Returns:
        (first, end) characters of each part, rising; all of a text that fits. A single character counts as fitting.
    """
    if fits(text):
        return [(0, len(text))]
    words = [match.span() for match in re.finditer(r"\S+", text)]
    ends = [end for _, end in words]
    spans, at = [], 0
    while at < len(words):
        first, end = words[at]
        reach = _most(text, first, ends, at, fits)
        if reach:
            spans.append((first, words[at + reach - 1][1]))
        while not reach and first < end:
            cut = first + max(1, _most(text, first, range(first + 1, end + 1), 0, fits))
            spans.append((first, cut))
            first = cut
        at += max(1, reach)
    return spans


def _most(text: str, first: int, ends: Sequence[int], at: int, fits: Callable[[str], bool]) -> int:
    """How many of `ends[at:]` the longest part from `first` reaches that fits, by doubling and bisection; 0 if none does."""
    low, high, count = 0, 1, len(ends) - at
    while high < count and fits(text[first : ends[at + high - 1]]):
        low, high = high, high * 2
    high = min(high, count) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(text[first : ends[at + middle - 1]]) else (low, middle)
    return low


def cleaned(text: str, clean: Clean) -> str:
    """The text as the library's own cleaning leaves it; half of a surrogate pair, which no tokenizer takes, becomes U+FFFD."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if clean == "":
        return text
    if clean == "siglip":  # transformers' SiglipTokenizer
        return re.sub(r"\s+", " ", text.lower().translate(_NO_PUNCTUATION)).strip()
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    if clean == "canonicalize":
        text = text.replace("_", " ").translate(_NO_PUNCTUATION)
    text = " ".join(text.split())
    return text if clean == "whitespace" else text.lower()
