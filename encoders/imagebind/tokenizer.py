"""CLIP's byte-pair tokenizer. In: a text. Out: token ids, and the parts of a text that fit the 77 places of the tower.

Written from the description of the published one; `clip_merges.txt.gz` is CLIP's merge list (MIT, see its licence beside it).
"""

from __future__ import annotations

import gzip
import heapq
import html
import itertools
import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib import resources

import ftfy
import regex

CONTEXT = 77  # places, start and end included
ROOM = CONTEXT - 2  # tokens of the text itself
VOCABULARY = 49_408
START, END = VOCABULARY - 2, VOCABULARY - 1
_MERGES = VOCABULARY - 2 * 256 - 2
_CACHED_LENGTH = 64  # characters; longer pieces are rarely met twice
_LONG = 50_000  # characters; of a longer piece the first tokens are found before the rest of it is merged
_WORD_END = "</w>"
_SPECIAL = {"<|startoftext|>": START, "<|endoftext|>": END}
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_PLAIN = regex.compile(_PIECES, regex.IGNORECASE)
_WITH_SPECIAL = regex.compile("|".join(map(regex.escape, _SPECIAL)) + "|" + _PIECES, regex.IGNORECASE)


def clean(text: str) -> str:
    """The text with broken encodings mended, HTML entities resolved (twice), white space single, in lower case."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text)))).strip().lower()


def tokens(text: str, special: bool) -> Iterator[int]:
    """The token ids of a text, however many, without start and end.

    Args:
        text: as it came; it is cleaned here.
        special: whether "<|startoftext|>" and "<|endoftext|>" in the text become the tokens of that name, as in the
            published tokenizer (the tower then pools at the first end), or are words like any other.
    """
    pairs = _byte_pairs()
    for piece in (_WITH_SPECIAL if special else _PLAIN).finditer(clean(text)):
        known = _SPECIAL.get(piece[0]) if special else None
        yield from pairs.encode(piece[0]) if known is None else (known,)


@lru_cache(maxsize=8)  # a text is asked for its tokens and then whether they are all
def context(text: str, special: bool) -> tuple[tuple[int, ...], bool]:
    """(at most ROOM tokens of the text, whether that is all of it)."""
    head = tuple(itertools.islice(tokens(text, special), ROOM + 1))
    return head[:ROOM], len(head) <= ROOM


def spans(text: str, special: bool) -> list[tuple[int, int]]:
    """The parts of a text, as (first, end) characters, that each fit the context.

    A text that fits is one part, all of it. Others are cut between words (at white space, which belongs to no part), and
    within a word only where that alone is too long, as it may be in scripts that write no spaces.
    """
    if context(text, special)[1]:
        return [(0, len(text))]
    words = [match.span() for match in re.finditer(r"\S+", text)]
    counts = [_count(text[first:end], special) for first, end in words]
    parts, at = [], 0
    while at < len(words):
        after, room = at, ROOM
        while after < len(words) and counts[after] <= room:
            room -= counts[after]
            after += 1
        while after > at and not _fits(text[words[at][0] : words[after - 1][1]], special):
            after -= 1  # cleaned together, words may need more tokens than one by one
        if after > at:
            parts.append((words[at][0], words[after - 1][1]))
        else:
            parts += _cut_word(text, *words[at], special)
        at = max(after, at + 1)
    return parts


def _count(word: str, special: bool) -> int:
    """How many tokens, of which no more than one too many are counted."""
    return sum(1 for _ in itertools.islice(tokens(word, special), ROOM + 1))


def _fits(text: str, special: bool) -> bool:
    return _count(text, special) <= ROOM


def _cut_word(text: str, first: int, end: int, special: bool) -> Iterator[tuple[int, int]]:
    """Parts of a word, each as long as fits."""
    while first < end:
        low, high = first + 1, min(first + ROOM // 2, end)  # low fits: one character is never 76 tokens
        while high < end and _fits(text[first:high], special):
            low, high = high, min(first + 2 * (high - first), end)
        if _fits(text[first:high], special):
            low = high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _fits(text[first:middle], special) else (low, middle)
        yield first, low
        first = low


class _BytePairs:
    """The vocabulary: 256 bytes, the same at the end of a word, and what merging made of them, in the order of merging."""

    def __init__(self, merges: list[tuple[str, str]]) -> None:
        self.characters = _byte_characters()
        symbols = [*self.characters.values()]
        vocabulary = [*symbols, *(s + _WORD_END for s in symbols), *(a + b for a, b in merges)]
        self.ids = {symbol: index for index, symbol in enumerate(vocabulary)}
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.longest = max(len(symbol) for symbol in vocabulary if not symbol.endswith(_WORD_END))  # in bytes
        self._cached = lru_cache(maxsize=1 << 16)(self._encode)

    def encode(self, piece: str) -> Iterable[int]:
        """The ids of one piece of a text: a word, a digit, some signs."""
        if len(piece) > _LONG:
            return self._encode_lazily(piece)
        return self._cached(piece) if len(piece) <= _CACHED_LENGTH else self._encode(piece)

    def _encode(self, piece: str) -> tuple[int, ...]:
        symbols = [self.characters[byte] for byte in piece.encode()]
        symbols[-1] += _WORD_END
        return tuple(self.ids[symbol] for symbol in self._merged(symbols))

    def _encode_lazily(self, piece: str) -> Iterator[int]:
        """As `_encode`, the first ROOM tokens and more before the rest is looked at.

        Of as many beginnings as the longest token has bytes, each a byte longer than the one before, one ends where a token of
        the whole ends, wherever tokens end; nothing is merged across that place, so that this beginning by itself has the
        whole's tokens. With what all these beginnings agree on the whole therefore agrees too.
        """
        symbols = [self.characters[byte] for byte in piece.encode()]
        ends = range((ROOM + 2) * self.longest, (ROOM + 3) * self.longest)
        beginnings = zip(*(self._merged(symbols[:end]) for end in ends), strict=False)
        agreed = [column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, beginnings)]
        yield from (self.ids[symbol] for symbol in agreed)
        rest = symbols[sum(map(len, agreed)) :]
        rest[-1] += _WORD_END
        yield from (self.ids[symbol] for symbol in self._merged(rest))

    def _merged(self, symbols: list[str]) -> list[str]:
        """Neighbours merged, pair by pair in the order of ranks, each pair from left to right.

        Through a heap, so that a word of a million letters takes seconds.
        """
        count = len(symbols)
        before, after = list(range(-1, count - 1)), list(range(1, count + 1))
        heap: list[tuple[int, int]] = []

        def offer(at: int) -> None:
            if at >= 0 and after[at] < count:
                rank = self.ranks.get((symbols[at], symbols[after[at]]))
                if rank is not None:
                    heapq.heappush(heap, (rank, at))

        for at in range(count):
            offer(at)
        while heap:
            rank, grown = heap[0][0], []
            while heap and heap[0][0] == rank:
                at = heapq.heappop(heap)[1]
                other = after[at]
                if other >= count or self.ranks.get((symbols[at], symbols[other])) != rank:
                    continue  # one of the two was merged with its other neighbour
                symbols[at], symbols[other] = symbols[at] + symbols[other], ""
                after[at] = after[other]
                if after[at] < count:
                    before[after[at]] = at
                grown.append(at)
            for at in grown:
                offer(before[at])
                offer(at)
        return [symbol for symbol in symbols if symbol]


@cache
def _byte_pairs() -> _BytePairs:
    packed = resources.files("encoders.imagebind").joinpath("clip_merges.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode().split("\n")[1 : 1 + _MERGES]  # line 1 is a heading; the last lines are not used
    pairs = (line.split() for line in lines)
    return _BytePairs([(left, right) for left, right in pairs])


def _byte_characters() -> dict[int, str]:
    """A printable character for each byte: Latin-1's own where it has one, else the next from 256 on. In the order of ids."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + k) for k, byte in enumerate(others)}
