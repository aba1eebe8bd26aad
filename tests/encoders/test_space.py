"""A space on disk: what it shares, what it keeps of its origin, the small files beside its weights."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_media import SAME

from encoders import encoder as registry
from encoders.encoder import Encoder, build_encoder, seeded_tower, small_settings
from encoders.errors import SpaceError
from encoders.space import Space, load_space, trained
from encoders.space_files import add_files, kept_document, publish_document, read_document


def toy_text(assets: Mapping[str, bytes] | None = None) -> Encoder:
    """A text encoder whose words come as an asset."""
    made = build_encoder("demo/text", {"vocabulary": (assets or {"words.txt": b"a red train"})["words.txt"].decode().split()})
    return dataclasses.replace(made, architecture="toy/text", settings={}, assets=assets or {"words.txt": b"a red train"})


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """That encoder with weights, registered for this test only."""
    build_encoder("demo/text", small_settings("demo/text"))  # all others are registered before
    monkeypatch.setitem(registry._factories, "toy/text", toy_text)
    encoder = build_encoder("toy/text", {}, {"words.txt": b"snow in the train"})
    return trained(encoder, seeded_tower(encoder, 0), 10.0, {}, torch.float32)


def saved(toy: Encoder, root: str) -> Space:
    """A space of it alone."""
    return Space("toys", toy.dim, "f" * 32, "CC0-1.0", {"text": toy}).save(root)


def test_assets_are_saved_beside_the_weights_and_handed_back_to_the_factory(toy: Encoder, tmp_path: Path) -> None:
    space = saved(toy, str(tmp_path))
    assert (tmp_path / "assets" / "text" / "words.txt").read_bytes() == b"snow in the train"
    assert space.encoders["text"].assets == {"words.txt": b"snow in the train"}
    wanted = Space("toys", toy.dim, "f" * 32, "", {"text": toy}).embed("text", ["the snow"])
    np.testing.assert_allclose(space.embed("text", ["the snow"]), wanted, rtol=0, atol=SAME)


def test_assets_are_kept_on_s3_too(toy: Encoder, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path))
    assert saved(toy, f"{s3}/toys").encoders["text"].assets == {"words.txt": b"snow in the train"}


def test_other_assets_are_another_encoder(toy: Encoder) -> None:
    other = build_encoder("toy/text", {}, {"words.txt": b"the train in snow"})
    other = trained(other, seeded_tower(other, 0), 10.0, {}, torch.float32)
    assert other.settings == toy.settings
    assert other.fingerprint != toy.fingerprint


def test_files_that_are_added_later_have_names_of_their_own(toy: Encoder, tmp_path: Path) -> None:
    first = saved(toy, str(tmp_path))
    other = build_encoder("toy/text", {}, {"words.txt": b"the train in snow"})
    other = trained(other, seeded_tower(other, 0), 10.0, {}, torch.float32)
    wanted = Space("toys", toy.dim, "f" * 32, "", {"text": other}).embed("text", ["the snow"])
    document = read_document(str(tmp_path))
    assert publish_document(str(tmp_path), {**document, "encoders": {"text": add_files(str(tmp_path), other)}}) == 1
    now = load_space(tmp_path)
    assert now.encoders["text"].assets == {"words.txt": b"the train in snow"}
    np.testing.assert_allclose(now.embed("text", ["the snow"]), wanted, rtol=0, atol=SAME)
    assert first.embed("text", ["the snow"]).shape == (1, toy.dim)  # whoever read the former document finds its weights
    assert kept_document(str(tmp_path), 0) == document
    assert (tmp_path / "assets" / "text" / "words.txt").read_bytes() == b"snow in the train"


@pytest.mark.parametrize("place", ["asset", "folder", "weights", "modality"])
@pytest.mark.parametrize("name", ["../../../secret", "..", "/secret", "s3://bucket/secret", "secret::file://"])
def test_what_is_named_outside_the_space_is_refused(toy: Encoder, tmp_path: Path, place: str, name: str) -> None:
    saved(toy, str(tmp_path / "space"))
    card = json.loads((tmp_path / "space" / "space.json").read_text())
    entry = card["encoders"].pop("text")
    named = {"asset": {"assets": [name]}, "folder": {"assets_folder": name}, "weights": {"weights": name}, "modality": {}}
    entry |= named[place]
    card["encoders"][name if place == "modality" else "text"] = entry
    (tmp_path / "space" / "space.json").write_text(json.dumps(card))
    with pytest.raises(SpaceError, match=re.escape(f"names {name!r}")):
        load_space(tmp_path / "space")


@pytest.mark.parametrize("same", [True, False])
def test_encoders_of_equal_weights_share_a_file_and_others_do_not(tmp_path: Path, same: bool) -> None:
    encoders = {}
    for modality, seed in (("image", 1), ("video", 1 if same else 2)):
        encoder = build_encoder(f"demo/{modality}")
        encoders[modality] = trained(encoder, seeded_tower(encoder, seed), 10.0, {}, torch.float32)
    space = Space("twins", 128, "f" * 32, "", encoders).save(tmp_path, torch.float16)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == (["image.safetensors"] if same else ["image.safetensors", "video.safetensors"])
    assert space.encoders["video"].fingerprint == encoders["video"].fingerprint


def test_a_part_of_a_space_keeps_its_name(tmp_path: Path) -> None:
    demo = load_space("demo")
    part = dataclasses.replace(demo, encoders={"text": demo.encoders["text"]}).save(tmp_path)
    assert part.fingerprint == demo.fingerprint
    assert part.encoders["text"].fingerprint == demo.encoders["text"].fingerprint


def test_a_setting_that_an_encoder_does_not_take_or_lacks_is_named() -> None:
    with pytest.raises(SpaceError, match=r"'demo/text' .* unexpected keyword argument 'colour'; it takes .*vocabulary"):
        build_encoder("demo/text", {**small_settings("demo/text"), "colour": "red"})
    with pytest.raises(SpaceError, match=r"'open_clip/image' .* missing a required argument: 'pixels'; it takes model, pixels"):
        build_encoder("open_clip/image", {"model": {}})


def test_a_mistake_inside_a_factory_is_not_taken_for_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    build_encoder("demo/text", small_settings("demo/text"))
    monkeypatch.setitem(registry._factories, "toy/text", lambda: len(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="has no len"):
        build_encoder("toy/text")


def test_an_encoder_under_another_modalitys_name_is_refused(toy: Encoder, tmp_path: Path) -> None:
    saved(toy, str(tmp_path))
    document = (tmp_path / "space.json").read_text()
    card = json.loads(document)
    card["encoders"] = {"image": {**card["encoders"]["text"], "assets": []}}
    (tmp_path / "space.json").write_text(json.dumps(card))
    with pytest.raises(SpaceError, match="has 'toy/text', an encoder of text, under 'image'"):
        load_space(tmp_path)


def test_a_space_with_another_encoder_embeds_by_that_one() -> None:
    encoder = build_encoder("demo/image")
    first, second = (trained(encoder, seeded_tower(encoder, seed), 10.0, {}, torch.float32) for seed in (0, 1))
    space = Space("toy", encoder.dim, "f", "CC0-1.0", {"image": first})
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    before = space.embed("image", [picture])
    after = dataclasses.replace(space, encoders={"image": second}).embed("image", [picture])
    assert not np.allclose(before, after)
    np.testing.assert_allclose(space.embed("image", [picture]), before, rtol=0, atol=SAME)
