"""Spaces "open_clip:ARCH/TAG", "open_clip:DIRECTORY" and "open_clip:REPOSITORY". In: a name and options. Out: a space.

From a directory or the local caches; see docs/spaces.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from encoders.clip import hub, open_clip_files
from encoders.clip.open_clip_files import Files, TowerWeights
from encoders.clip.tokens import ASSET
from encoders.encoder import Encoder, build_encoder
from encoders.errors import SpaceError
from encoders.families import chosen, flag, number, spelled
from encoders.space import Space, space_fingerprint

NAMES = ("open_clip:",)
MODALITIES = ("image", "text", "video")
FRAMES = 8
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's, open_clip's default
DEFAULT_CONTEXT, DEFAULT_SIDE = 77, 224


def load(
    name: str,
    *,
    checkpoint: str | None = None,
    download: bool | str = False,
    modalities: Sequence[str] | str | None = None,
    frames: int | str = FRAMES,
) -> Space:
    """The space of a model of open_clip.

    Args:
        name: "open_clip:" and ARCH/TAG ("ViT-B-32/laion2b_s34b_b79k"), or ARCH with `checkpoint`, or a directory or repository
            with open_clip_config.json.
        checkpoint: a local file of weights instead of the tag's.
        download: fetch the weights first.
        modalities: only these of image, text and video.
        frames: of a video.

    Raises:
        SpaceError: not here, or of a kind that is not known.
    """
    model_name = name.removeprefix("open_clip:")
    fetch, frames = flag(download), number("frames", frames, 1, int)
    files = open_clip_files.files_of(model_name, checkpoint, fetch)
    if "multimodal_cfg" in files.model:
        raise SpaceError(f"{model_name} is a CoCa, which is not known here; take a CLIP or SigLIP of open_clip's list")
    wanted = chosen(modalities, MODALITIES, "a model of open_clip")
    dim = int(files.model["embed_dim"])
    anchor = _encoder(files, "image", frames, fetch)
    others = {modality: _encoder(files, modality, frames, fetch) for modality in wanted if modality != "image"}
    encoders = {modality: anchor if modality == "image" else others[modality] for modality in wanted}
    local = files.folder is not None and Path(model_name).expanduser().is_dir()
    options = {
        "checkpoint": str(files.checkpoint) if checkpoint else None,
        "modalities": wanted if modalities else None,
        "frames": None if frames == FRAMES else frames,
    }
    return Space(
        name=Path(model_name).name if local else model_name,
        dim=dim,
        fingerprint=partial(_space_fingerprint, anchor, dim),
        license=files.license,
        encoders=encoders,
        uri=spelled(f"open_clip:{files.folder if local else model_name}", options),
    )


def _encoder(files: Files, modality: str, frames: int, download: bool) -> Encoder:
    part = "text_cfg" if modality == "text" else "vision_cfg"
    model = {key: files.model[key] for key in ("embed_dim", part, "quick_gelu") if key in files.model}
    settings: dict[str, Any] = {"model": model}
    assets: dict[str, bytes] = {}
    if modality == "text":
        settings["tokens"], assets[ASSET] = _tokens(files, download)
    else:
        settings["pixels"] = _pixels(files)
    if modality == "video":
        settings["frames"] = frames
    encoder = build_encoder(f"open_clip/{modality}", settings, assets)
    weights = TowerWeights(str(files.checkpoint), "text." if modality == "text" else "visual.")
    card = {"source": files.checkpoint.name}
    return encoder.with_weights(weights, None, partial(_scale, files.checkpoint), card, partial(_bias, files.checkpoint))


def _pixels(files: Files) -> dict[str, Any]:
    """The settings of `Pixels` that say what open_clip's transform for inference does."""
    given = files.preprocess
    side = files.model["vision_cfg"].get("image_size", DEFAULT_SIDE)
    size = list(side) if isinstance(side, list | tuple) else [side, side]
    mode, resample = given.get("resize_mode") or "shortest", given.get("interpolation") or "bicubic"
    if mode == "shortest" and size[0] != size[1]:
        mode, resample = "cover", "bicubic"
    mean, std = given.get("mean") or MEAN, given.get("std") or STD
    return {
        "kind": "pixels",
        "size": size,
        "resize": size,
        "mode": mode,
        "resample": "bilinear" if resample == "bilinear" else "bicubic",
        "fill": given.get("fill_color", 0) if mode == "longest" else 0,
        "mean": list(mean) if isinstance(mean, list | tuple) else [mean] * 3,
        "std": list(std) if isinstance(std, list | tuple) else [std] * 3,
        "scale": 1 / 255,
    }


def _tokens(files: Files, download: bool) -> tuple[dict[str, Any], bytes]:
    """The settings of `Tokens` and the tokenizer.json that open_clip's tokenizer of this model comes to."""
    config: Mapping[str, Any] = files.model["text_cfg"]
    if config.get("hf_model_name") or config.get("tokenizer_mode"):
        raise SpaceError(
            "this model's text tower is one of transformers, or its tokenizer of a special mode; both are not known here. "
            "modalities=image,video takes the rest"
        )
    length = config.get("context_length", DEFAULT_CONTEXT)
    asked = config.get("tokenizer_kwargs") or {}
    name = config.get("hf_tokenizer_name")
    if not name:
        clean = asked.get("clean", "lower")
        return {"length": length, "pad_id": 0, "clean": clean}, open_clip_files.clip_tokenizer()
    from transformers import AutoTokenizer

    folder = files.folder or hub.directory_of(name, download)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise SpaceError(f"the tokenizer in {folder} cannot be read: {error}") from error
    tokens = {
        "length": length,
        "pad_id": tokenizer.pad_token_id,
        "pad_side": tokenizer.padding_side,
        "clean": asked.get("clean", "whitespace"),
        "zeroed": tokenizer.sep_token_id if asked.get("strip_sep_token") else None,
    }
    return tokens, tokenizer.backend_tokenizer.to_str().encode()


def _scale(checkpoint: Path) -> float:
    return math.exp(open_clip_files.logits(checkpoint)[0])


def _bias(checkpoint: Path) -> float | None:
    return open_clip_files.logits(checkpoint)[1]


def _space_fingerprint(anchor: Encoder, dim: int) -> str:
    return space_fingerprint(anchor.fingerprint, dim)
