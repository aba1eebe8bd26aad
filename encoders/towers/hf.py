"""Encoders of models in Hugging Face's layout: CLIP, SigLIP, SigLIP 2, CLAP, PE-AV; settings by `encoders/families/hf.py`.

In: settings as JSON (the model's own configuration, the processor's), a tokenizer.json as an asset. Out: untrained encoders.
transformers is imported when a tower is built.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from encoders.clip import hf_towers
from encoders.clip.hub import refuse_places
from encoders.clip.pixels import Frames, Patches, Pixels
from encoders.clip.sounds import ClapMel, PeWave
from encoders.clip.tokens import ASSET, Tokens
from encoders.encoder import Encoder, Feature, register
from encoders.media.audio import decode_audio, describe_audio
from encoders.media.image import decode_image, describe_image
from encoders.media.text import decode_text
from encoders.media.video import decode_video, describe_video

Settings = Mapping[str, Any]

_LAYERS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 16}
_SMALL_IMAGE = {"type": "clip", "part": "image", "dim": 16, "config": {**_LAYERS, "image_size": 32, "patch_size": 8}}
_SMALL_PIXELS = {
    "kind": "pixels",
    "size": [32, 32],
    "resize": [32, 32],
    "backend": "torchvision",
    "centre": "floor",
    "mean": [0.48, 0.46, 0.41],
    "std": [0.27, 0.26, 0.28],
    "scale": 1 / 255,
}
SMALL_TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 3], "cls": ["<s>", 2]}
    | {"trim_offsets": True, "add_prefix_space": False},
    "model": {"type": "WordLevel", "unk_token": "<unk>"}
    | {"vocab": {"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "a": 4, "red": 5, "train": 6, "in": 7, "the": 8, "snow": 9}},
}
_SMALL_TEXT = {
    "type": "clip",
    "part": "text",
    "dim": 16,
    "config": {**_LAYERS, "vocab_size": 10, "max_position_embeddings": 12, "bos_token_id": 2, "eos_token_id": 3},
}
_SMALL_AUDIO = {
    "type": "clap",
    "part": "audio",
    "dim": 16,
    "config": {
        "spec_size": 64,
        "patch_embeds_hidden_size": 16,
        "hidden_size": 32,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "projection_dim": 16,
        "num_mel_bins": 32,
    },
}
_SMALL_SOUND = {
    "kind": "clap",
    "rate_hz": 16_000,
    "samples": 32_000,
    "window": 512,
    "hop": 640,
    "mels": 32,
    "lowest_hz": 50,
    "highest_hz": 8_000,
    "fusion": False,
}


@register("hf/image", small={"model": _SMALL_IMAGE, "pixels": _SMALL_PIXELS})
def hf_image(model: Settings, pixels: Settings) -> Encoder:
    """A model's image encoder.

    Args:
        model: as `encoders.clip.hf_towers` says.
        pixels: "kind" ("pixels" or "patches") and the fields of `Pixels` or `Patches`; "mean", "std", "scale" of the levels.

    Raises:
        SpaceError: the model's settings name a place to read from; so do the other factories here.
    """
    refuse_places(model)
    picture = picture_of(pixels)
    tower = hf_towers.ImageTower if isinstance(picture, Pixels) else hf_towers.PatchTower
    return Encoder(
        architecture="hf/image",
        modality="image",
        dim=model["dim"],
        settings={"model": dict(model), "pixels": dict(pixels)},
        features=picture_features(picture),
        decode=decode_image,
        preprocess=picture,
        describe=describe_image,
        build_tower=partial(tower, model, pixels),
    )


@register("hf/video", small={"model": _SMALL_IMAGE, "pixels": _SMALL_PIXELS, "frames": 3})
def hf_video(model: Settings, pixels: Settings, frames: int) -> Encoder:
    """A model's video encoder: the mean of the unit vectors of `frames` frames, or PE-AV's own over them in their order."""
    refuse_places(model)
    picture = picture_of(pixels)
    own = model["type"] in hf_towers.PE_TYPES
    whole = hf_towers.VideoTower if isinstance(picture, Pixels) else hf_towers.PatchVideoTower
    return Encoder(
        architecture="hf/video",
        modality="video",
        dim=model["dim"],
        settings={"model": dict(model), "pixels": dict(pixels), "frames": frames},
        features=frame_features(picture, frames),
        decode=decode_video,
        preprocess=Frames(frames, picture),
        describe=describe_video,
        build_tower=partial(hf_towers.PeVideoTower if own else whole, model, pixels),
    )


@register("hf/text", small={"model": _SMALL_TEXT, "tokens": {"length": 12, "pad_id": 0}, "tokenizer": SMALL_TOKENIZER})
def hf_text(
    model: Settings, tokens: Settings, tokenizer: Settings | None = None, assets: Mapping[str, bytes] | None = None
) -> Encoder:
    """A model's text encoder.

    Args:
        model: as `encoders.clip.hf_towers` says.
        tokens: the fields of `Tokens` but its tokenizer.
        tokenizer: a small tokenizer.json as settings; left out where `assets` holds it.
        assets: {"tokenizer.json": bytes}.
    """
    refuse_places(model)
    preprocess = tokens_of(tokens, tokenizer, assets)
    tower = hf_towers.PeTextTower if model["type"] in hf_towers.PE_TYPES else hf_towers.TextTower
    return Encoder(
        architecture="hf/text",
        modality="text",
        dim=model["dim"],
        settings={"model": dict(model), "tokens": dict(tokens), **({"tokenizer": tokenizer} if tokenizer else {})},
        features=token_features(preprocess),
        decode=decode_text,
        preprocess=preprocess,
        describe=preprocess.describe,
        build_tower=partial(tower, model),
        spans=preprocess.spans,
        assets=assets or {},
    )


@register("hf/audio", small={"model": _SMALL_AUDIO, "sound": _SMALL_SOUND})
def hf_audio(model: Settings, sound: Settings) -> Encoder:
    """A model's audio encoder: CLAP's or PE-AV's.

    Args:
        model: as `encoders.clip.hf_towers` says.
        sound: "kind" ("clap" or "pe") and the fields of `ClapMel` or `PeWave`.
    """
    refuse_places(model)
    fields = {key: value for key, value in sound.items() if key != "kind"}
    preprocess: ClapMel | PeWave
    if sound["kind"] == "clap":
        preprocess = ClapMel(**fields)
        marked = {"longer": Feature("int64", ())} if preprocess.fusion else {}
        shape = (4 if preprocess.fusion else 1, preprocess.frames, preprocess.mels)
        features = {"log_mel": Feature("float32", shape), **marked}
    else:
        preprocess = PeWave(**fields)
        wave = Feature("float32", (1, preprocess.steps * preprocess.hop))
        features = {"wave": wave, "samples": Feature("int64", ())}
    return Encoder(
        architecture="hf/audio",
        modality="audio",
        dim=model["dim"],
        settings={"model": dict(model), "sound": dict(sound)},
        features=features,
        decode=decode_audio,
        preprocess=preprocess,
        describe=describe_audio,
        build_tower=partial(hf_towers.ClapAudioTower if sound["kind"] == "clap" else hf_towers.PeAudioTower, model),
    )


def picture_of(pixels: Settings) -> Pixels | Patches:
    """The preprocess that settings describe."""
    fields: dict[str, Any] = {key: value for key, value in pixels.items() if key not in ("kind", "mean", "std", "scale")}
    if pixels["kind"] == "patches":
        return Patches(**fields)
    return Pixels(**{**fields, "size": tuple(pixels["size"]), "resize": tuple(pixels["resize"])})


def picture_features(picture: Pixels | Patches) -> dict[str, Feature]:
    """What it makes of a picture."""
    if isinstance(picture, Pixels):
        return {"image": Feature("uint8", (3, *picture.size))}
    count = picture.max_patches
    patches = Feature("uint8", (count, picture.patch**2 * 3))
    return {"patches": patches, "patch_mask": Feature("int64", (count,)), "patch_grid": Feature("int64", (2,))}


def frame_features(picture: Pixels | Patches, frames: int) -> dict[str, Feature]:
    """What it makes of a video's frames."""
    each = {name.replace("image", "frames"): feature for name, feature in picture_features(picture).items()}
    return {name: Feature(feature.dtype, (frames, *feature.shape)) for name, feature in each.items()}


def tokens_of(tokens: Settings, tokenizer: Settings | None, assets: Mapping[str, bytes] | None) -> Tokens:
    """The preprocess that settings and assets describe."""
    return Tokens(assets[ASSET] if assets else json.dumps(tokenizer).encode(), **tokens)


def token_features(tokens: Tokens) -> dict[str, Feature]:
    """What it makes of a text."""
    ids = {"token_ids": Feature("int64", (tokens.length,))}
    return {**ids, "token_mask": Feature("int64", (tokens.length,))} if tokens.mask else ids
