"""How a name with options becomes a space, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoders.errors import SpaceError
from encoders.families import chosen, family_of, flag, number, parse, spelled
from encoders.space import load_space


def test_options_in_a_name_are_read_as_they_are_spelled() -> None:
    options = {"checkpoint": "/data/a b&c#?d.pth", "modalities": "image,text", "sizes": '{"out_embed_dim": 64}'}
    name = spelled("imagebind-huge", {**options, "modalities": ["image", "text"], "sizes": {"out_embed_dim": 64}})
    assert parse(name) == ("imagebind-huge", options)
    assert spelled("x:y/z", {"b": "s3://bucket/k.pth", "a": True, "download": True, "none": None}) == (
        "x:y/z?a=true&b=s3://bucket/k.pth"
    )
    assert spelled("x", {}) == "x"


def test_a_family_is_found_by_its_name_or_its_prefix() -> None:
    found = family_of("imagebind-huge")
    assert found is not None and found.__name__ == "encoders.families.imagebind"
    assert family_of("imagebind-huge2") is None
    assert family_of("demo") is None


def test_an_unknown_option_is_named_beside_those_that_there_are() -> None:
    with pytest.raises(SpaceError, match=r"knows no option 'colour'; it takes checkpoint, modalities"):
        load_space("imagebind-huge", colour="red")


def test_a_directory_or_shipped_space_takes_no_options(tmp_path: Path) -> None:
    for name in ("demo", str(tmp_path)):
        with pytest.raises(SpaceError, match=r"takes no options; leave out \['checkpoint'\]"):
            load_space(name, checkpoint="x")


def test_a_directory_is_found_though_its_name_is_a_familys(tmp_path: Path) -> None:
    load_space("demo").save(tmp_path / "imagebind-huge")
    assert load_space(tmp_path / "imagebind-huge").name == "demo"


def test_a_flag_is_yes_no_or_refused() -> None:
    assert all(flag(word) for word in (True, "true", "True", "1", "yes"))
    assert not any(flag(word) for word in (False, "false", "0", "no"))
    with pytest.raises(SpaceError, match="'ture' is neither yes nor no"):
        flag("ture")


def test_a_number_is_one_that_can_be_meant_or_refused() -> None:
    assert number("frames", "4", 1, int) == 4
    assert number("seconds", "0.5", 0.1, float) == 0.5
    for word in ("0", "-3", "4.5", "many", ""):
        with pytest.raises(SpaceError, match=f"frames='{word}' .* write 1 or more"):
            number("frames", word, 1, int)
    for word in ("0", "nan", "inf"):
        with pytest.raises(SpaceError, match=f"seconds='{word}' cannot be; write 0.1 or more"):
            number("seconds", word, 0.1, float)


def test_modalities_are_those_asked_for_in_the_models_order() -> None:
    known = ("image", "text", "video")
    assert chosen(None, known, "it") == list(known)
    assert chosen("video, image", known, "it") == chosen(["video", "image", "video"], known, "it") == ["image", "video"]
    with pytest.raises(SpaceError, match="it has no modality 'smell'; it has image, text, video"):
        chosen("image,smell", known, "it")


@pytest.mark.parametrize("name", ["imagebind-huge", "open_clip:ViT-B-32/laion2b_s34b_b79k", "hf:nobody/nothing"])
def test_every_family_reads_download_alike(name: str) -> None:
    with pytest.raises(SpaceError, match="'perhaps' is neither yes nor no"):
        load_space(f"{name}?download=perhaps")
