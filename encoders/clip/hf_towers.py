"""Towers of transformers' modules, one modality each. In: a model's settings, a directory of weights. Out: towers, states.

A tower holds only what its modality needs, under `model.`, named as in transformers. Settings of a model are JSON:
"type" (clip, siglip, siglip2, clap, pe_audio, pe_video, pe_audio_video), "part" (the modality), "config" (the part's own
configuration), "dim", and for PE-AV "head" (which of its text heads).  B batch, D dim, L tokens, S samples, N frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from encoders.clip.hub import tensors
from encoders.clip.pixels import PixelNorm
from encoders.clip.sounds import SILENCE_DB
from encoders.errors import SpaceError
from encoders.weights import Weights

# (model, part) -> transformers' class for it, and the field of its output that is the vector.
PARTS = {
    ("clip", "image"): ("CLIPVisionModelWithProjection", "image_embeds"),
    ("clip", "text"): ("CLIPTextModelWithProjection", "text_embeds"),
    ("siglip", "image"): ("SiglipVisionModel", "pooler_output"),
    ("siglip", "text"): ("SiglipTextModel", "pooler_output"),
    ("siglip2", "image"): ("Siglip2VisionModel", "pooler_output"),
    ("siglip2", "text"): ("Siglip2TextModel", "pooler_output"),
    ("clap", "audio"): ("ClapAudioModelWithProjection", "audio_embeds"),
    ("clap", "text"): ("ClapTextModelWithProjection", "text_embeds"),
}
PE_TYPES = ("pe_audio", "pe_video", "pe_audio_video")


class _PictureTower(nn.Module):
    def __init__(self, model: Mapping[str, Any], pixels: Mapping[str, Any]) -> None:
        super().__init__()
        self.norm = PixelNorm(pixels["mean"], pixels["std"], pixels["scale"])
        self.model, self.field = _part(model)


class ImageTower(_PictureTower):
    """Levels -> the model's image vector."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) -> (B, D), not normalised."""
        pixels = self.norm(image).to(dtype_of(self.model))
        return getattr(self.model(pixel_values=pixels), self.field)  # type: ignore[no-any-return]


class VideoTower(ImageTower):
    """The image tower on every frame; its weights are the image tower's, name by name."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 (B, N, 3, H, W) -> (B, D), the mean of N unit vectors, not normalised."""
        vectors = F.normalize(super().forward(frames.flatten(0, 1)), dim=-1)
        return vectors.view(*frames.shape[:2], -1).mean(1)


class PatchTower(_PictureTower):
    """The patches of a picture of any shape -> the model's image vector (SigLIP 2 NaFlex)."""

    def forward(self, patches: torch.Tensor, patch_mask: torch.Tensor, patch_grid: torch.Tensor) -> torch.Tensor:
        """uint8 (B, N, P * P * 3), int64 (B, N), int64 (B, 2) -> (B, D), not normalised."""
        mask = _never_empty(patch_mask)
        pixels = (self.norm(patches) * patch_mask.unsqueeze(-1)).to(dtype_of(self.model))  # what fills up is 0, not black
        output = self.model(pixel_values=pixels, pixel_attention_mask=mask, spatial_shapes=patch_grid.clamp(min=1))
        return getattr(output, self.field)  # type: ignore[no-any-return]


class PatchVideoTower(PatchTower):
    """The patch tower on every frame; its weights are the patch tower's."""

    def forward(self, patches: torch.Tensor, patch_mask: torch.Tensor, patch_grid: torch.Tensor) -> torch.Tensor:
        """As `PatchTower`, with an axis of frames after the batch -> (B, D), the mean of unit vectors, not normalised."""
        vectors = super().forward(patches.flatten(0, 1), patch_mask.flatten(0, 1), patch_grid.flatten(0, 1))
        return F.normalize(vectors, dim=-1).view(*patches.shape[:2], -1).mean(1)


class TextTower(nn.Module):
    """Token ids -> the model's text vector."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.field = _part(model)

    def forward(self, token_ids: torch.Tensor, token_mask: torch.Tensor | None = None) -> torch.Tensor:
        """int64 (B, L), and where the model looks at it int64 (B, L) -> (B, D), not normalised."""
        mask = None if token_mask is None else _never_empty(token_mask)
        return getattr(self.model(input_ids=token_ids, attention_mask=mask), self.field)  # type: ignore[no-any-return]


class ClapAudioTower(nn.Module):
    """Log-mel spectrograms -> CLAP's audio vector."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.field = _part(model)

    def forward(self, log_mel: torch.Tensor, longer: torch.Tensor | None = None) -> torch.Tensor:
        """float32 (B, 1 or 4, T, M) in dB above silence, and with fusion int64 (B,) -> (B, D), not normalised."""
        marked = None if longer is None else longer.unsqueeze(1)
        loudness = (log_mel + SILENCE_DB).to(dtype_of(self.model))
        output = self.model(input_features=loudness, is_longer=marked)
        return getattr(output, self.field)  # type: ignore[no-any-return]


class PeAudioTower(nn.Module):
    """Samples -> PE-AV's audio vector. The codec in front is never trained, in transformers neither."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers.models.pe_audio import modeling_pe_audio as pe

        config = _config(pe.PeAudioEncoder, model)
        self.model = nn.ModuleDict(
            {"encoder": pe.PeAudioEncoder(config), "head": pe.PeAudioContrastiveHead(config.hidden_size, model["dim"])}
        )

    def forward(self, wave: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        """float32 (B, 1, S), int64 (B,) samples that are no filling -> (B, D), not normalised."""
        mask = torch.arange(wave.shape[-1], device=wave.device) < samples.clamp(min=1).unsqueeze(1)
        output = self.model["encoder"](input_values=wave.to(dtype_of(self.model)), padding_mask=mask)
        return self.model["head"](output.pooler_output)  # type: ignore[no-any-return]


class PeVideoTower(nn.Module):
    """Frames in their order -> PE-AV's video vector."""

    def __init__(self, model: Mapping[str, Any], pixels: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers.models.pe_video import modeling_pe_video as pe

        config = _config(pe.PeVideoEncoder, model)
        self.norm = PixelNorm(pixels["mean"], pixels["std"], pixels["scale"])
        self.model = nn.ModuleDict(
            {"encoder": pe.PeVideoEncoder(config), "head": pe.PeVideoContrastiveHead(config.hidden_size, model["dim"])}
        )

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 (B, N, 3, H, W) -> (B, D), not normalised."""
        pixels = self.norm(frames.flatten(0, 1)).view(frames.shape).to(dtype_of(self.model))
        return self.model["head"](self.model["encoder"](pixel_values_videos=pixels).pooler_output)  # type: ignore[no-any-return]


class PeTextTower(nn.Module):
    """Token ids -> PE-AV's text vector, by one of its heads."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel
        from transformers.models.pe_audio.modeling_pe_audio import PeAudioContrastiveHead

        config = AutoConfig.for_model(**model["config"])
        text = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
        self.model = nn.ModuleDict({"text": text, "head": PeAudioContrastiveHead(config.hidden_size, model["dim"])})

    def forward(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """int64 (B, L), int64 (B, L) -> (B, D), not normalised."""
        mask = _never_empty(token_mask)
        output = self.model["text"](input_ids=token_ids, attention_mask=mask, output_hidden_states=True)
        return self.model["head"](output.hidden_states[-1][:, 0])  # type: ignore[no-any-return]


class Checkpoint(Weights):
    """The weights of one part of a model directory in transformers' layout; `uri` is the directory."""

    model: Mapping[str, Any]

    def __init__(self, uri: str, model: Mapping[str, Any]) -> None:
        super().__init__(uri)
        object.__setattr__(self, "model", model)

    def read(self) -> dict[str, torch.Tensor]:
        """Every tensor of the part, named as in its tower, float32.

        Raises:
            SpaceError: the directory lacks some of them, or cannot be read.
        """
        if self.model["type"] in PE_TYPES:
            return self._pe_state()
        name, _ = PARTS[self.model["type"], self.model["part"]]
        part = _loaded(name, self.uri, _config(_class(name), self.model))
        return {f"model.{key}": value for key, value in part.state_dict().items()}

    def _pe_state(self) -> dict[str, torch.Tensor]:
        """By the names in the files: transformers 5.23 cannot load a whole PE-AV (it ties a buffer as if it were a weight)."""
        kind, part, head = self.model["type"], self.model["part"], self.model["head"]
        whole = kind == "pe_audio_video"
        if part == "text":
            owner = f"{head}_model." if whole and head != "audio_video" else ""
            places = {"text_model.": "model.text.", f"{owner}text_{head}_head.": "model.head."}
        else:
            owner = f"{part}_model." if whole else ""
            places = {f"{owner}{part}_encoder.": "model.encoder.", f"{owner}{part}_head.": "model.head."}
        return tensors(Path(self.uri), places)


def dtype_of(module: nn.Module) -> torch.dtype:
    """The number type of a module's weights."""
    return next(module.parameters()).dtype


def _part(model: Mapping[str, Any]) -> tuple[nn.Module, str]:
    name, field = PARTS[model["type"], model["part"]]
    return _class(name)(_config(_class(name), model)), field


def _class(name: str) -> Any:
    import transformers

    return getattr(transformers, name)


def _config(owner: Any, model: Mapping[str, Any]) -> Any:
    return owner.config_class.from_dict(dict(model["config"]))


def _loaded(name: str, directory: str, config: Any = None) -> Any:
    """A model of the directory by transformers' own loader, which knows the names of older checkpoints."""
    owner = _class(name)
    try:
        with _quietly():
            model, report = owner.from_pretrained(
                Path(directory), config=config, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise SpaceError(f"{directory} cannot be loaded as {name}: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise SpaceError(f"{directory} lacks {len(missing)} weights of {name} (first: {missing[0]}); download it again")
    return model


@contextmanager
def _quietly() -> Iterator[None]:
    """Inside, transformers neither draws a progress bar nor lists the other modalities' weights as unexpected."""
    from transformers.utils import logging

    level, drawing = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if drawing:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _never_empty(mask: torch.Tensor) -> torch.Tensor:
    """The mask, with rows of zeros made ones: a row that only fills up a batch stays finite."""
    return torch.where(mask.any(1, keepdim=True), mask, 1)
