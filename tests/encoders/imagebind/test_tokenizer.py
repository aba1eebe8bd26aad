"""CLIP's tokenizer: the ids of the goldens, of a naive implementation, and parts of long texts that fit."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import time
from functools import cache
from importlib import resources

import numpy as np
import pytest

from encoders.encoder import build_encoder
from encoders.errors import DecodeError
from encoders.imagebind import tokenizer
from encoders.imagebind.preprocess import TokenIds, reference_input
from encoders.imagebind.tokenizer import CONTEXT, END, ROOM, START, VOCABULARY, clean, context, spans, tokens
from encoders.media.text import Text

ALPHABETS = (
    "abcdefghij ",
    "the dog's ",
    "äöüßÅ é",
    "狗在草地上。",
    "0123456789.,-",
    "!?<|>&;'\" ",
    "😀👨\u200d👩 ",
    "\u00e9e\u0301\u3000\t\n ",
)


def random_texts(count: int, length: int) -> list[str]:
    random = np.random.default_rng(5)
    made = []
    for _ in range(count):
        letters = "".join(random.permutation(list("".join(random.choice(ALPHABETS, 3)))))
        made.append("".join(random.choice(list(letters), random.integers(1, length))))
    return made


@cache
def merges() -> list[list[str]]:
    packed = resources.files("encoders.imagebind").joinpath("clip_merges.txt.gz").read_bytes()
    assert hashlib.sha256(packed).hexdigest() == "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
    return [line.split() for line in gzip.decompress(packed).decode().split("\n")[1:48_895]]


@cache
def ranks() -> dict[tuple[str, ...], int]:
    return {tuple(pair): k for k, pair in enumerate(merges())}


def naive(word: str) -> list[str]:
    """Byte pairs of an ASCII word: again and again the pair of the lowest rank, wherever it stands."""
    rank = ranks()
    symbols = [*word[:-1], word[-1] + "</w>"]
    while True:
        pairs = [p for p in itertools.pairwise(symbols) if p in rank]
        if not pairs:
            return symbols
        best, merged, k = min(pairs, key=rank.__getitem__), [], 0
        while k < len(symbols):
            take = 2 if tuple(symbols[k : k + 2]) == best else 1
            merged.append("".join(symbols[k : k + take]))
            k += take
        symbols = merged


def test_words_are_merged_like_by_the_naive_rule() -> None:
    random = np.random.default_rng(1)
    words = ["hello", "antidisestablishmentarianism", "aaaaaaaaaaaaaaa", "abababababab", "mississippi", "x"]
    words += ["".join(random.choice(list("aeinorstl"), random.integers(2, 40))) for _ in range(200)]
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = [chr(b) for b in printable] + [chr(256 + k) for k in range(256 - len(printable))]
    vocabulary = [*characters, *(c + "</w>" for c in characters), *("".join(pair) for pair in merges())]
    assert len(vocabulary) == VOCABULARY - 2
    for word in words:
        assert [vocabulary[k] for k in tokens(word, special=False)] == naive(word)


def test_the_rows_are_start_at_most_75_tokens_end_and_zeros() -> None:
    for text in ("a dog", "word " * 74, "word " * 75, "word " * 76, "word " * 1000):
        row = TokenIds()(text)["token_ids"]
        wanted = min(ROOM, len(text.split()) if "word" in text else 2)
        assert (row.dtype, row.shape, row[0]) == (np.int64, (CONTEXT,), START)
        assert row.argmax() == wanted + 1
        assert row[wanted + 1] == END
        assert not row[wanted + 2 :].any()


def test_case_entities_white_space_and_broken_encodings_do_not_matter() -> None:
    assert clean("  A &amp;amp; B\n\u3000c ") == "a & b c"
    assert clean("<i> &amp;lt;b") == "<i> <b"  # where there is a tag, ftfy leaves entities alone: they are resolved twice
    for one, other in (("A DOG", "a dog"), ("a\n\tdog ", "a dog"), ("a &lt; b", "a < b"), ("cafÃ©", "café"), ("“a”", '"a"')):
        np.testing.assert_array_equal(TokenIds()(one)["token_ids"], TokenIds()(other)["token_ids"])


def test_special_strings_are_tokens_in_the_reference_and_words_in_bindery() -> None:
    text = "a <|endoftext|> b <|StartOfText|>"
    exact, sane = TokenIds("reference")(text)["token_ids"], TokenIds("bindery")(text)["token_ids"]
    assert exact[2] == END
    assert list(exact).count(START) == 2
    assert (list(sane).count(END), list(sane).count(START)) == (1, 1)
    np.testing.assert_array_equal(reference_input("text", text).numpy(), exact)
    ordinary = "a dog < b | c > d"
    np.testing.assert_array_equal(TokenIds("reference")(ordinary)["token_ids"], TokenIds()(ordinary)["token_ids"])


def test_a_text_of_invisible_characters_is_empty_in_the_reference_and_refused_in_bindery() -> None:
    assert list(TokenIds("reference")("&nbsp;")["token_ids"][:3]) == [START, END, 0]
    with pytest.raises(DecodeError, match="invisible"):
        TokenIds()("&nbsp;")


@pytest.mark.parametrize("special", [False, True])
def test_every_part_of_a_long_text_fits_and_together_they_are_the_text(special: bool) -> None:
    for text in random_texts(120, 600):
        if not text.strip():
            continue
        parts = spans(text, special)
        assert all(context(text[first:end], special)[1] for first, end in parts)
        if context(text, special)[1]:
            assert parts == [(0, len(text))]
            continue
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(parts))
        assert "".join("".join(text[a:b].split()) for a, b in parts) == "".join(text.split())


def test_parts_end_between_words_and_are_as_long_as_fits() -> None:
    text = "the quick brown fox jumps over the lazy dog " * 40
    parts = TokenIds().spans(Text(text))
    words = [text[first:end].split() for first, end in parts]
    assert [*itertools.chain(*words)] == text.split()
    assert [len(part) for part in words] == [75, 75, 75, 75, 60]


def test_a_word_too_long_is_cut_within_and_a_long_one_takes_seconds() -> None:
    text = "狗" * 500 + " dog"
    parts = TokenIds().spans(Text(text))
    assert parts[-1] == (501, 504)
    assert "".join(text[a:b] for a, b in parts) == text.replace(" ", "")
    start = time.monotonic()
    TokenIds()("ab" * 100_000)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("letters", ["aeinorstl", "a", "thequickbrownfox", "\U0001f602\U0001f60d"])
def test_a_giant_words_first_tokens_are_known_before_the_rest_and_are_the_wholes(
    letters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "_LONG", 2000)
    piece = "".join(np.random.default_rng(2).choice(list(letters), 6000))
    merged: list[int] = []

    class Watched(tokenizer._BytePairs):
        def _merged(self, symbols: list[str]) -> list[str]:
            merged.append(len(symbols))
            return super()._merged(symbols)

    pairs = Watched([(left, right) for left, right in merges()])
    found = iter(pairs.encode(piece))
    first = tuple(itertools.islice(found, ROOM + 1))
    assert max(merged) < 3000, "bytes of 6,000 and more"
    assert (*first, *found) == pairs._encode(piece)


def test_facts_tell_whether_the_tower_sees_all_of_the_text() -> None:
    encoder = build_encoder("imagebind/text")
    assert encoder.describe(Text("a dog")).truncated is False
    assert encoder.describe(Text("word " * 76)).truncated is True
    assert encoder.spans is not None
    assert len(encoder.spans(Text("word " * 76))) == 2
