"""Encoders of open_clip's models. `encoders/families/open_clip.py` fills the settings.

In: settings as JSON (the model's own configuration, how pictures and texts are prepared), a tokenizer.json as an asset. Out:
untrained encoders. open_clip is imported when a tower is built.  B batch, D dim, L tokens, N frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from encoders.clip.hub import refuse_places
from encoders.clip.pixels import Frames, PixelNorm
from encoders.encoder import Encoder, register
from encoders.errors import SpaceError
from encoders.media.image import decode_image, describe_image
from encoders.media.text import decode_text
from encoders.media.video import decode_video, describe_video
from encoders.towers.hf import SMALL_TOKENIZER, frame_features, picture_features, picture_of, token_features, tokens_of

Settings = Mapping[str, Any]

_SMALL_IMAGE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
}
_SMALL_PIXELS = {
    "kind": "pixels",
    "size": [32, 32],
    "resize": [32, 32],
    "mean": [0.48, 0.46, 0.41],
    "std": [0.27, 0.26, 0.28],
    "scale": 1 / 255,
}
_SMALL_TEXT = {"embed_dim": 16, "text_cfg": {"context_length": 12, "vocab_size": 10, "width": 32, "heads": 2, "layers": 2}}


class ImageTower(nn.Module):
    """Levels -> the model's image vector."""

    def __init__(self, model: Settings, pixels: Settings) -> None:
        super().__init__()
        from open_clip import model as library

        self.norm = PixelNorm(pixels["mean"], pixels["std"], pixels["scale"])
        quick_gelu = model.get("quick_gelu", False)
        config = {**deepcopy(model["vision_cfg"]), "timm_model_pretrained": False}  # or timm fetches weights by itself
        self.visual = library._build_vision_tower(model["embed_dim"], config, quick_gelu)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) -> (B, D), not normalised."""
        return self.visual(self.norm(image).to(next(self.visual.parameters()).dtype))  # type: ignore[no-any-return]


class VideoTower(ImageTower):
    """The image tower on every frame; its weights are the image tower's, name by name."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 (B, N, 3, H, W) -> (B, D), the mean of N unit vectors, not normalised."""
        vectors = F.normalize(super().forward(frames.flatten(0, 1)), dim=-1)
        return vectors.view(*frames.shape[:2], -1).mean(1)


class TextTower(nn.Module):
    """Token ids -> the model's text vector."""

    def __init__(self, model: Settings) -> None:
        super().__init__()
        from open_clip import model as library

        quick_gelu = model.get("quick_gelu", False)
        config = {**deepcopy(model["text_cfg"]), "hf_model_pretrained": False}
        self.text = library._build_text_tower(model["embed_dim"], config, quick_gelu)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """int64 (B, L) -> (B, D), not normalised."""
        return self.text(token_ids)  # type: ignore[no-any-return]


@register("open_clip/image", small={"model": _SMALL_IMAGE, "pixels": _SMALL_PIXELS})
def open_clip_image(model: Settings, pixels: Settings) -> Encoder:
    """A model's image encoder.

    Args:
        model: "embed_dim", "vision_cfg" and perhaps "quick_gelu", as in open_clip's JSON.
        pixels: the fields of `Pixels`; "mean", "std", "scale" of the levels.

    Raises:
        SpaceError: the tower is a timm model of a hub or a folder.
    """
    refuse_places(model)
    picture = picture_of(pixels)
    return Encoder(
        architecture="open_clip/image",
        modality="image",
        dim=model["embed_dim"],
        settings={"model": dict(model), "pixels": dict(pixels)},
        features=picture_features(picture),
        decode=decode_image,
        preprocess=picture,
        describe=describe_image,
        build_tower=partial(ImageTower, model, pixels),
    )


@register("open_clip/video", small={"model": _SMALL_IMAGE, "pixels": _SMALL_PIXELS, "frames": 3})
def open_clip_video(model: Settings, pixels: Settings, frames: int) -> Encoder:
    """A model's video encoder: the mean of the unit vectors of `frames` frames. Raises as the image's."""
    refuse_places(model)
    picture = picture_of(pixels)
    return Encoder(
        architecture="open_clip/video",
        modality="video",
        dim=model["embed_dim"],
        settings={"model": dict(model), "pixels": dict(pixels), "frames": frames},
        features=frame_features(picture, frames),
        decode=decode_video,
        preprocess=Frames(frames, picture),
        describe=describe_video,
        build_tower=partial(VideoTower, model, pixels),
    )


@register("open_clip/text", small={"model": _SMALL_TEXT, "tokens": {"length": 12, "pad_id": 0}, "tokenizer": SMALL_TOKENIZER})
def open_clip_text(
    model: Settings, tokens: Settings, tokenizer: Settings | None = None, assets: Mapping[str, bytes] | None = None
) -> Encoder:
    """A model's text encoder.

    Args:
        model: "embed_dim", "text_cfg" and perhaps "quick_gelu", as in open_clip's JSON.
        tokens: the fields of `Tokens` but its tokenizer.
        tokenizer: a small tokenizer.json as settings; left out where `assets` holds it.
        assets: {"tokenizer.json": bytes}.

    Raises:
        SpaceError: the tower is one of transformers, which would be fetched by its name.
    """
    if name := model["text_cfg"].get("hf_model_name"):
        raise SpaceError(f"a text tower of transformers ({name!r}) is not known here; leave the text encoder out")
    preprocess = tokens_of(tokens, tokenizer, assets)
    return Encoder(
        architecture="open_clip/text",
        modality="text",
        dim=model["embed_dim"],
        settings={"model": dict(model), "tokens": dict(tokens), **({"tokenizer": tokenizer} if tokenizer else {})},
        features=token_features(preprocess),
        decode=decode_text,
        preprocess=preprocess,
        describe=preprocess.describe,
        build_tower=partial(TextTower, model),
        spans=preprocess.spans,
        assets=assets or {},
    )
