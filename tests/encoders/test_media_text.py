"""Text: str and UTF-8 become a text; what is none is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from encoders.encoder import build_encoder
from encoders.errors import DecodeError, TooLargeError
from encoders.media.text import MAX_CHARACTERS, decode_text, describe_text


def test_a_str_bytes_and_a_file_are_the_same_text(tmp_path: Path) -> None:
    text = "Möwen am Meer 🌊"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "bom.txt").write_text(text, encoding="utf-8-sig")
    for media in (text, text.encode(), tmp_path / "a.txt", tmp_path / "bom.txt"):
        assert decode_text(media).text == text
    assert describe_text(decode_text(text)).text == text


@pytest.mark.parametrize("media", ["", " \n\t", b"", b"  "])
def test_an_empty_text_is_refused(media: str | bytes) -> None:
    with pytest.raises(DecodeError, match="empty"):
        decode_text(media)


def test_other_encodings_are_refused_with_the_place_of_the_first_bad_byte() -> None:
    with pytest.raises(DecodeError, match="0xf6 at 1"):
        decode_text("Möwe".encode("latin1"))


def test_a_text_beyond_the_limit_is_too_large() -> None:
    with pytest.raises(TooLargeError):
        decode_text("a" * (MAX_CHARACTERS + 1))
    with pytest.raises(TooLargeError):
        decode_text(b"a" * (MAX_CHARACTERS + 1))


def test_words_have_the_id_of_their_place_in_the_vocabulary_and_others_are_unknown() -> None:
    preprocess = build_encoder("demo/text", {"vocabulary": ["a", "dog"]}).preprocess
    assert list(preprocess("A dog's DOG, über!")["token_ids"][:6]) == [2, 3, 1, 3, 1, 0]
    assert list(preprocess("!!!")["token_ids"][:2]) == [1, 0]
    assert preprocess("dog " * 100)["token_ids"].tolist() == [3] * 16


def test_padding_is_neither_attended_to_nor_averaged() -> None:
    encoder = build_encoder("demo/text", {"vocabulary": ["a", "dog"]})
    tower = encoder.build_tower().eval()
    token_ids = torch.from_numpy(encoder.preprocess("a dog")["token_ids"])[None]
    with torch.inference_mode():
        before = tower(token_ids=token_ids)
        tower.get_parameter("embedding.weight")[0] = 100.0
        tower.get_parameter("position")[:, 2:] = -50.0
        torch.testing.assert_close(tower(token_ids=token_ids), before)


def test_a_part_of_a_text_is_those_characters() -> None:
    assert decode_text("a red train").part(2, 5).text == "red"
