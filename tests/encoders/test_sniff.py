"""What a file is told to be, on files made here."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sample_media import csv_file, picture_file, sample, sample_files, trace

from encoders.errors import SpaceError
from encoders.media import sniff as sniffing
from encoders.media.sniff import HEAD_BYTES, recognise, sniff
from encoders.media.types import mime_of
from pipelines.corpus.modality import never_media

PLAIN = [(m, name) for m in ("image", "video", "audio") for name in sample_files(m)]
AMBIGUOUS = [(m, name) for m in ("depth", "thermal", "imu") for name in sample_files(m)]


@pytest.mark.parametrize(("modality", "name"), PLAIN)
def test_bytes_are_believed_and_not_the_name(modality: str, name: str) -> None:
    head = sample_files(modality)[name][:HEAD_BYTES]
    for other in (name, "renamed.txt", "renamed.csv", "renamed", "s3://bucket/renamed.jpg"):
        guess = sniff(head, other)
        assert (guess.modality, guess.why) == (modality, "")
        assert guess.mime is not None
        assert guess.mime.startswith(f"{modality}/")


@pytest.mark.parametrize(("modality", "name"), AMBIGUOUS)
def test_measurements_are_ambiguous_and_never_guessed(modality: str, name: str) -> None:
    guess = sniff(sample_files(modality)[name][:HEAD_BYTES], name)
    assert (guess.modality, guess.why) == (None, "ambiguous")
    assert guess.detail


def test_a_16_bit_grey_picture_is_ambiguous_but_one_of_8_bits_or_of_colours_is_an_image() -> None:
    grey16, grey8 = np.zeros((8, 8), np.uint16), np.zeros((8, 8), np.uint8)
    for kind in ("PNG", "TIFF"):
        assert sniff(picture_file(kind, Image.fromarray(grey16)), "a").why == "ambiguous"
        assert sniff(picture_file(kind, Image.fromarray(grey8)), "a").modality == "image"
        assert sniff(picture_file(kind, Image.new("RGBA", (8, 8))), "a").modality == "image"
        assert sniff(picture_file(kind, Image.new("1", (8, 8))), "a").modality == "image"


def test_a_tiff_whose_directory_lies_beyond_the_head_is_ambiguous() -> None:
    assert sniff(b"II*\0" + (100_000).to_bytes(4, "little") + bytes(4000), "a.tiff").why == "ambiguous"


def test_text_is_told_by_its_name_alone() -> None:
    assert sniff(sample("text"), "a.txt").modality == "text"
    assert sniff(sample("text"), "READ.MD").modality == "text"
    assert sniff(sample("text"), "a.py").why == "unknown"
    assert sniff(csv_file(trace()), "a").why == "unknown"


@pytest.mark.parametrize("name", ["a.json", "a.pdf", "a.zip", "a.svg", "a", "Makefile", "a.html"])
def test_what_is_no_medium_is_unknown(name: str) -> None:
    assert sniff(b"<some bytes>", name).why == "unknown"


def test_archives_are_unknown_under_any_name() -> None:
    archive = io.BytesIO(b"PK\x03\x04" + bytes(60)).read()
    assert sniff(archive, "photo.jpg").why == "unknown"


def test_a_damaged_or_empty_file_is_what_its_name_promises_so_that_its_reject_shows() -> None:
    assert sniff(b"", "a.jpg").modality == "image"
    assert sniff(b"garbage", "a.mp4").modality == "video"
    assert sniff(b"garbage", "a.wav").modality == "audio"
    assert sniff(b"", "a.csv").why == "ambiguous"
    assert sniff(b"", "a.exr").why == "ambiguous"


def test_a_container_without_pictures_is_told_by_its_name_where_bytes_allow_both() -> None:
    head = b"\x00\x00\x00\x18ftypisom" + bytes(40)
    assert sniff(head, "a.m4a").modality == "audio"
    assert sniff(head, "a.mp4").modality == "video"


def test_no_beginning_of_a_file_makes_it_fail() -> None:
    heads = [data for m in ("image", "video", "audio", "depth", "thermal", "imu") for data in sample_files(m).values()]
    for head in heads:
        for count in (*range(40), 100, 200, 400):
            sniff(head[:count], "a")


@pytest.fixture
def nothing_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test lets be recognised is forgotten after it."""
    monkeypatch.setattr(sniffing, "_ADDED_BYTES", {})
    monkeypatch.setattr(sniffing, "_ADDED_NAMES", {})


def test_files_of_a_further_modality_are_told_by_their_bytes_and_then_by_their_name(nothing_added: None) -> None:
    assert sniff(b"BTOUCH rest", "a.bin").why == "unknown"
    recognise("touch", "application/x-touch", magic=[b"BTOUCH"], extensions=[".touch", ".mat"])
    for head, name in ((b"BTOUCH rest", "a.bin"), (b"\0\0\0", "a.touch"), (b"\0\0\0", "s3://bucket/A.TOUCH"), (b"x", "a.mat")):
        assert (sniff(head, name).modality, sniff(head, name).mime) == ("touch", "application/x-touch")
    assert sniff(picture_file("PNG"), "a.touch").modality == "image"  # bytes before names
    assert sniff(b"BTOUC", "a.bin").modality is None
    assert not never_media(".mat") and never_media(".h5")
    assert mime_of("a.touch") == "application/x-touch"


@pytest.mark.parametrize(
    ("told_by", "message"),
    [
        ({"magic": [b"\xff\xd8\xff\xe0"]}, "are image/jpeg already"),
        ({"magic": [b"\x93NUMPY"]}, "are application/x-npy already"),
        ({"magic": [b"SMELL"]}, "are application/x-smell already"),
        ({"magic": [b"SMELLY"]}, "are application/x-smell already"),
        ({"extensions": [".jpg"]}, "are image/jpeg already"),
        ({"extensions": [".npy"]}, "already, not touch"),
        ({"extensions": [".smell"]}, "are application/x-smell already"),
    ],
)
def test_what_is_known_as_something_else_cannot_be_claimed(
    told_by: dict[str, list[Any]], message: str, nothing_added: None
) -> None:
    for _ in range(2):  # the same again is no other claim
        recognise("smell", "application/x-smell", magic=[b"SMELL"], extensions=[".smell"])
    with pytest.raises(SpaceError, match=message):
        recognise("touch", "application/x-touch", **told_by)
