"""Spaces "open_clip:..." against open_clip's own transform, tokenizer and towers, on small models with random weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import open_clip.factory
import pytest
import torch
from hf_models import save_tokenizer
from PIL import Image
from safetensors.torch import load_file, save_file
from sample_media import SAME

from encoders.encoder import build_encoder, small_settings
from encoders.errors import SpaceError
from encoders.space import load_space

SHAPES = [(97, 64), (64, 97), (32, 32), (20, 31), (300, 41), (7, 5), (70, 64), (64, 70)]  # width, height; the last: 3 over
TEXTS = [
    "a red train in the snow",
    "Two dogs BARK; waves\n of the sea &amp;amp; caf\u00c3\u00a9 it's 42 \U0001f3bb",
    "\u706b\u8f66 in the <end_of_text> snow",
    "violin " * 200,
]
VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
SIGLIP_TEXT = {**TEXT, "context_length": 16, "vocab_size": 400, "hf_tokenizer_name": "here", "no_causal_mask": True}
SIGLIP_TEXT |= {"tokenizer_kwargs": {"clean": "canonicalize"}, "pool_type": "last", "proj_bias": True}
INCEPTION = {"mean": [0.5] * 3, "std": [0.5] * 3}
MODELS: dict[str, dict[str, Any]] = {
    "clip": {"model": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}, "preprocess": {}},
    "quick": {"model": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}, "preprocess": {}},
    "siglip": {
        "model": {"embed_dim": 24, "init_logit_bias": -10, "custom_text": True, "vision_cfg": VISION, "text_cfg": SIGLIP_TEXT},
        "preprocess": {**INCEPTION, "interpolation": "bicubic", "resize_mode": "squash"},
    },
    "longest": {
        "model": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT},
        "preprocess": {"resize_mode": "longest", "interpolation": "bilinear", "fill_color": 90},
    },
    "wide": {"model": {"embed_dim": 24, "vision_cfg": {**VISION, "image_size": [24, 40]}, "text_cfg": TEXT}, "preprocess": {}},
    "resnet": {
        "model": {
            "embed_dim": 24,
            "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
            "text_cfg": TEXT,
        },
        "preprocess": {},
    },
    "timm": {
        "model": {
            "embed_dim": 24,
            "vision_cfg": {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64},
            "text_cfg": TEXT,
        },
        "preprocess": {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear"},
    },
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """name -> the directory of a model, with open_clip_config.json, made once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            save(name, made[name])
        return made[name]

    return folder


def save(name: str, folder: Path) -> None:
    """A model with random weights in open_clip's layout."""
    config = MODELS[name]
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config["model"], "preprocess_cfg": config["preprocess"]})
    )
    if "hf_tokenizer_name" in config["model"]["text_cfg"]:
        save_tokenizer("siglip", folder, 16)
    torch.manual_seed(6)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if "running_var" in key:
                value.copy_(torch.rand_like(value) + 0.5)
            elif "logit" in key or (value.is_floating_point() and value.dim() == 1):
                value.add_(torch.randn_like(value) * 0.2)
            elif value.is_floating_point() and (
                "proj" in key or key in ("token_embedding.weight", "text.token_embedding.weight")
            ):
                value.copy_(torch.randn_like(value) * 0.3)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")


def pictures() -> list[Image.Image]:
    """Smooth colours with noise, of several shapes."""
    rng = np.random.default_rng(3)
    made = []
    for width, height in SHAPES:
        slope = np.linspace(0, 200, width)[None, :, None] * rng.random(3) + np.linspace(0, 55, height)[:, None, None]
        made.append(Image.fromarray((slope + rng.integers(0, 30, (height, width, 3))).clip(0, 255).astype(np.uint8)))
    return made


def agree(ours: np.ndarray, theirs: torch.Tensor, apart: float = 0.999) -> None:
    """Row by row the same direction, and different rows differ (else the test says nothing)."""
    wanted = torch.nn.functional.normalize(theirs.float(), dim=-1).numpy()
    assert (ours * wanted).sum(1).min() > 0.99999
    np.testing.assert_allclose(ours, wanted, atol=2e-5)
    cosine = wanted @ wanted.T
    assert cosine[~np.eye(len(cosine), dtype=bool)].min() < apart


@pytest.mark.parametrize("name", MODELS)
def test_pictures_and_texts_equal_open_clips_own_path(name: str, folders: Any) -> None:
    folder = folders(name)
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    space = load_space(f"open_clip:{folder}")
    with torch.inference_mode():
        images = model.eval().encode_image(torch.stack([transform(picture) for picture in pictures()]))
        texts = model.encode_text(tokenizer(TEXTS))
    agree(space.embed("image", pictures()), images, apart=0.99998 if name == "resnet" else 0.999)  # whose towers differ least
    agree(space.embed("text", TEXTS), texts)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_tokens_are_open_clips(name: str, folders: Any) -> None:
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folders(name)}")
    space = load_space(f"open_clip:{folders(name)}")
    texts = [
        *TEXTS,
        "<start_of_text> x",
        "don't 'S_a__b",
        "\u00fcber STRASSE \u0130",
        "tab\tnew\nline",
        "a" * 300,
        "\u2014 \u2026 ...!!",
        "\x00\x07 ok",
    ]
    for text in texts:
        np.testing.assert_array_equal(space.preprocess("text", text)["token_ids"], tokenizer([text])[0].numpy(), text)


def test_pixels_are_on_open_clips_8_bit_grid(folders: Any) -> None:
    for name in ("clip", "siglip", "longest", "wide"):
        _, transform = open_clip.create_model_from_pretrained(f"local-dir:{folders(name)}")
        space = load_space(f"open_clip:{folders(name)}", modalities=["image"])
        norm = space.encoders["image"].tower.norm
        for picture in pictures():
            ours = norm(torch.from_numpy(space.preprocess("image", picture)["image"])[None])[0]
            torch.testing.assert_close(ours, transform(picture), rtol=0, atol=2e-6)


def test_a_video_is_the_mean_of_its_frames_unit_vectors(folders: Any) -> None:
    frames = np.stack([np.asarray(picture.resize((40, 30))) for picture in pictures()])
    space = load_space(f"open_clip:{folders('clip')}?frames={len(frames)}")
    mean = space.embed("image", list(frames)).mean(0)
    np.testing.assert_allclose(space.embed("video", [frames])[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_scale_and_bias_are_the_checkpoints(folders: Any) -> None:
    for name in ("clip", "siglip"):
        model = open_clip.create_model(f"local-dir:{folders(name)}")
        encoder = load_space(f"open_clip:{folders(name)}").encoders["text"]
        assert encoder.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-6)
        if name == "siglip":
            assert encoder.logit_bias == pytest.approx(float(model.logit_bias.detach()), rel=1e-6)
        else:
            assert encoder.logit_bias is None


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_saved_space_needs_nothing_of_the_model_directory(name: str, folders: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(folders(name), tmp_path / "model")
    space = load_space(f"open_clip:{folder}")
    wanted = {"image": space.embed("image", pictures()), "text": space.embed("text", TEXTS)}
    space.save(tmp_path / "saved")
    shutil.rmtree(folder)
    moved = load_space((tmp_path / "saved").rename(tmp_path / "moved"))
    assert (moved.fingerprint, moved.dim, moved.license) == (space.fingerprint, space.dim, space.license)
    np.testing.assert_allclose(moved.embed("image", pictures()), wanted["image"], rtol=0, atol=SAME)
    np.testing.assert_allclose(moved.embed("text", TEXTS), wanted["text"], rtol=0, atol=SAME)
    assert len(list((tmp_path / "moved").glob("*.safetensors"))) == 2  # video shares the image tower's file


@pytest.fixture
def tiny_arch(tmp_path: Path) -> Iterator[str]:
    """An architecture registered with open_clip for the time of a test."""
    (tmp_path / "Tiny-B-8.json").write_text(json.dumps(MODELS["clip"]["model"]))
    open_clip.add_model_config(tmp_path / "Tiny-B-8.json")
    yield "Tiny-B-8"
    open_clip.factory._MODEL_CONFIG_PATHS.pop()
    open_clip.factory._MODEL_CONFIGS.pop("Tiny-B-8")


def test_an_architecture_of_the_list_takes_a_checkpoint_of_any_layout(tiny_arch: str, folders: Any, tmp_path: Path) -> None:
    folder = folders("clip")
    wanted = load_space(f"open_clip:{folder}")
    state = open_clip.factory.load_state_dict(str(folder / "open_clip_model.safetensors"))
    torch.save({"epoch": 1, "state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "epoch_1.pt")
    for checkpoint in (folder / "open_clip_model.safetensors", tmp_path / "epoch_1.pt"):
        space = load_space(f"open_clip:{tiny_arch}", checkpoint=str(checkpoint))
        np.testing.assert_allclose(space.embed("image", pictures()), wanted.embed("image", pictures()), rtol=0, atol=SAME)
        np.testing.assert_allclose(space.embed("text", TEXTS), wanted.embed("text", TEXTS), rtol=0, atol=SAME)
        assert load_space(space.uri).fingerprint == space.fingerprint


def test_an_encoder_is_named_once_as_long_as_its_weights_stay_as_they_are(
    folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same under each of the towers of a file, and no longer when a weight changes under the same name."""
    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(folders("clip"), tmp_path / "model")
    file = folder / "open_clip_model.safetensors"
    monkeypatch.setattr("encoders.cache.SETTLED_S", -1.0)
    first = {m: e.fingerprint for m, e in load_space(f"open_clip:{folder}").encoders.items()}
    with monkeypatch.context() as patch:
        patch.setattr("encoders.encoder.fingerprint", lambda *_: pytest.fail("it is known"))
        again = {m: e.fingerprint for m, e in load_space(f"open_clip:{folder}").encoders.items()}
    assert again == first and len(set(first.values())) == len(first)
    state = load_file(file)
    state["visual.conv1.weight"][0, 0, 0, 0] += 1
    save_file(state, file)
    changed = {m: e.fingerprint for m, e in load_space(f"open_clip:{folder}").encoders.items()}
    assert changed["image"] != first["image"] and changed["text"] == first["text"]


def test_a_tag_is_read_from_the_local_cache_with_the_activation_it_was_trained_with(
    tiny_arch: str, folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, snapshot = tmp_path / "hub", "0" * 40
    folder = cache / "models--us--tiny" / "snapshots" / snapshot
    folder.mkdir(parents=True)
    (cache / "models--us--tiny" / "refs").mkdir()
    (cache / "models--us--tiny" / "refs" / "main").write_text(snapshot)
    shutil.copy(folders("quick") / "open_clip_model.safetensors", folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny_arch, {"us": {"hf_hub": "us/tiny/", "quick_gelu": True}})
    space = load_space(f"open_clip:{tiny_arch}/us")
    assert (space.license, space.name) == ("mit", f"{tiny_arch}/us")
    wanted = load_space(f"open_clip:{folders('quick')}")
    np.testing.assert_allclose(space.embed("image", pictures()), wanted.embed("image", pictures()), rtol=0, atol=SAME)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-32/laion2b_s34b_b79k", "download=True"),
        ("ViT-B-32/nothing", "laion2b_s34b_b79k"),
        ("ViT-B-32", "checkpoint=FILE"),
        ("ViT-B-31", "no architecture"),
        ("ViT-B-32?checkpoint=/nowhere.pt", "no checkpoint"),
        ("ViT-B-32/openai?frames=-1", "frames='-1' cannot be; write 1 or more"),
        ("ViT-B-32/laion2b_s34b_b79k?modalities=audio", "download=True"),
    ],
)
def test_what_is_not_there_is_named_with_what_to_do(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SpaceError, match=message):
        load_space(f"open_clip:{name}")


def test_kinds_that_are_not_known_say_so(folders: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(folders("clip"), tmp_path / "model")
    config = {"model_cfg": {**MODELS["clip"]["model"], "text_cfg": {**TEXT, "hf_model_name": "roberta-base"}}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(SpaceError, match="modalities=image,video"):
        load_space(f"open_clip:{folder}")
    assert load_space(f"open_clip:{folder}?modalities=image,video").modalities == ("image", "video")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**MODELS["clip"]["model"], "multimodal_cfg": {}}}))
    with pytest.raises(SpaceError, match="CoCa"):
        load_space(f"open_clip:{folder}")


@pytest.mark.parametrize(
    ("architecture", "dim"), [("ViT-B-32", 512), ("ViT-L-14", 768), ("ViT-B-16-SigLIP2", 768), ("RN50", 1024)]
)
def test_the_real_architectures_build_and_fit_their_names(architecture: str, dim: int) -> None:
    """On the meta device: names and shapes of the towers are those of open_clip's whole model."""
    config = open_clip.get_model_config(architecture)
    custom = config.pop("custom_text", False)
    with torch.device("meta"):
        whole = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config).state_dict()
        pixels = {"kind": "pixels", "size": [8, 8], "resize": [8, 8], "mean": [0.5] * 3, "std": [0.5] * 3, "scale": 1}
        image = build_encoder("open_clip/image", {"model": config, "pixels": pixels})
        assert image.dim == dim
        ours = image.build_tower().state_dict()
        text = build_encoder("open_clip/text", {"model": config, "tokens": {"length": 9, "pad_id": 0}, "tokenizer": {}})
        ours |= text.build_tower().state_dict()
    wanted = {key if custom or key.startswith("visual.") else f"text.{key}": value.shape for key, value in whole.items()}
    assert {key: value.shape for key, value in ours.items()} == {k: v for k, v in wanted.items() if "logit" not in k}


def test_no_setting_makes_a_tower_fetch_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # fetching fails
    made = small_settings("open_clip/image")
    timm = {"timm_model_name": "resnet10t", "timm_model_pretrained": True, "image_size": 64}
    made["model"] = {"embed_dim": 16, "vision_cfg": timm}
    build_encoder("open_clip/image", made).build_tower()
    for kind, name in (("image", "hf-hub:timm/resnet10t.c3_in1k"), ("video", "local-dir:/etc")):
        made = small_settings(f"open_clip/{kind}")
        made["model"] = {"embed_dim": 16, "vision_cfg": {**timm, "timm_model_name": name}}
        with pytest.raises(SpaceError, match="a place to read from"):
            build_encoder(f"open_clip/{kind}", made)
    text = small_settings("open_clip/text")
    text["model"] = {"embed_dim": 16, "text_cfg": {"hf_model_name": "roberta-base"}}
    with pytest.raises(SpaceError, match=r"text tower of transformers \('roberta-base'\)"):
        build_encoder("open_clip/text", text)


def test_a_space_of_a_checkpoint_is_opened_without_importing_the_library(tmp_path: Path) -> None:
    save_file({"logit_scale": torch.tensor(1.0)}, tmp_path / "w.safetensors")
    opened = """
import sys
from encoders.space import load_space
space = load_space(f"open_clip:ViT-B-32?checkpoint={sys.argv[1]}&modalities=image")
assert space.dim == 512 and "open_clip" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", opened, str(tmp_path / "w.safetensors")], check=True, timeout=120)
