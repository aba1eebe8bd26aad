"""Spaces "hf:REPOSITORY" and "hf:DIRECTORY": models in Hugging Face's layout. In: a name and options. Out: a space.

CLIP, SigLIP, SigLIP 2 (fixed and NaFlex), CLAP and PE-AV. From a directory or the local cache; see docs/spaces.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from encoders.clip import hub
from encoders.clip.hf_towers import Checkpoint
from encoders.clip.tokens import ASSET
from encoders.encoder import Encoder, build_encoder
from encoders.errors import SpaceError
from encoders.families import chosen, flag, number, spelled
from encoders.space import Space, space_fingerprint

NAMES = ("hf:",)
MODALITIES = {
    "clip": ("image", "text", "video"),
    "siglip": ("image", "text", "video"),
    "siglip2": ("image", "text", "video"),
    "clap": ("audio", "text"),
    "pe_audio": ("audio", "text"),
    "pe_video": ("text", "video"),
    "pe_audio_video": ("audio", "text", "video"),
}
ANCHORS = ("image", "video", "audio")  # the first of these that a model has names the space, whatever is loaded of it
FRAMES = {"pe_video": 16, "pe_audio_video": 16}  # else 8
CONTEXT = {"clap": 77}  # as LAION trained it; else what the tokenizer says, at most LONGEST
FEWEST, LONGEST = 3, 512  # tokens: a start, one of the text, an end
PE_SECONDS, SHORTEST_S = 10.0, 0.1
_LOCAL: Any = {"local_files_only": True, "trust_remote_code": False}  # neither the network nor a repository's code
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
# (type, part) -> names of the logarithm of the scale, and of the bias, in the checkpoint
SCALES = {
    "clip": {"image": ("logit_scale", ""), "text": ("logit_scale", "")},
    "siglip": {"image": ("logit_scale", "logit_bias"), "text": ("logit_scale", "logit_bias")},
    "clap": {"audio": ("logit_scale_a", ""), "text": ("logit_scale_t", "")},
}


@dataclass(frozen=True)
class _Source:
    """A model directory, read once: its configuration, and what the caller wants of it."""

    directory: Path
    kind: str
    config: Any
    head: str
    scalars: Mapping[str, float]

    def model(self, part: str) -> dict[str, Any]:
        """The settings of one part for `hf_towers`; a video goes through the image part where the model has no own."""
        own = self.kind.startswith("pe_")
        part = "image" if part == "video" and not own else part
        head = {"head": self.head} if own else {}
        return {"type": self.kind, "part": part, "dim": self.dim, "config": _plain(self._part_config(part)), **head}

    @property
    def dim(self) -> int:
        """D."""
        if self.kind in ("clip", "clap"):
            return int(self.config.projection_dim)
        if self.kind.startswith("pe_"):
            return int(self.config.text_config.hidden_size)
        return int(self.config.vision_config.hidden_size)

    def _part_config(self, part: str) -> Any:
        if self.kind == "pe_audio_video" and part != "text":
            return getattr(self.config.audio_video_config, f"{part}_config")
        config = getattr(self.config, f"{'vision' if part == 'image' else part}_config")
        if self.kind == "clip":
            config.projection_dim = self.config.projection_dim  # of the whole model; older parts say something else
        return config


def load(
    name: str,
    *,
    download: bool | str = False,
    revision: str | None = None,
    modalities: Sequence[str] | str | None = None,
    frames: int | str | None = None,
    context: int | str | None = None,
    seconds: float | str = PE_SECONDS,
    text_head: str | None = None,
) -> Space:
    """The space of a model directory.

    Args:
        name: "hf:" and a directory, or a repository ("hf:openai/clip-vit-base-patch32") of the local cache.
        download: fetch the repository first.
        revision: branch, tag or commit of the repository.
        modalities: only these; all that the model has by default.
        frames: of a video; 8 by default, 16 for PE-AV.
        context: tokens of a text; by default the tokenizer's own (at most 512), 77 for CLAP.
        seconds: of a sound, for PE-AV; of a longer one the middle is taken.
        text_head: of PE-AV with audio and video: "video" (default), "audio" or "audio_video": what texts are compared with.

    Raises:
        SpaceError: not here, of a kind that is not known, or incomplete.
    """
    repository = name.removeprefix("hf:")
    directory = hub.directory_of(repository, flag(download), revision)
    source = _source(directory, text_head)
    wanted = chosen(modalities, MODALITIES[source.kind], f"a {source.kind} model")
    usual = FRAMES.get(source.kind, 8)
    length_s = number("seconds", seconds, SHORTEST_S, float)
    made: dict[str, Any] = {"frames": number("frames", usual if frames is None else frames, 1, int), "seconds": length_s}
    tokens = 0 if context is None else number("context", context, FEWEST, int)
    encoders = {modality: _encoder(source, modality, tokens, **made) for modality in wanted}
    anchor = _encoder(source, _anchor(source), 0, usual, PE_SECONDS)  # the space is the same whatever is loaded of it, and how
    if anchor.modality in encoders and encoders[anchor.modality].settings == anchor.settings:
        anchor = encoders[anchor.modality]  # whose fingerprint is computed once
    local = Path(repository).expanduser().is_dir()
    options = {
        "revision": revision,
        "modalities": wanted if modalities else None,
        "frames": frames,
        "context": context,
        "seconds": None if length_s == PE_SECONDS else seconds,
        "text_head": text_head,
    }
    return Space(
        name=repository.rstrip("/").rpartition("/")[2] if local else repository,
        dim=source.dim,
        fingerprint=partial(_space_fingerprint, anchor, source.dim),
        license=hub.license_of(directory, repository),
        encoders=encoders,
        uri=spelled(f"hf:{directory if local else repository}", options),
    )


def _source(directory: Path, text_head: str | None) -> _Source:
    document = hub.json_of(directory, "config.json")
    kind = str(document.get("model_type"))
    if kind not in MODALITIES:
        raise SpaceError(
            f"{directory} is a model of type {kind!r}; known here are {', '.join(MODALITIES)}. A model with towers of its own "
            "becomes a space through an encoder file (docs/spaces.md)."
        )
    config = _transformers().AutoConfig.from_pretrained(directory, **_LOCAL)
    head = {"pe_audio": "audio", "pe_video": "video"}.get(kind) or text_head or "video"
    if head not in ("audio", "video", "audio_video"):
        raise SpaceError(f"text_head is {head!r}; it is 'audio', 'video' or 'audio_video'")
    names = tuple(name for pair in SCALES.get(_scale_kind(kind), {}).values() for name in pair if name)
    return _Source(directory, kind, config, head, hub.scalars(directory, names) if names else {})


def _encoder(source: _Source, modality: str, context: int, frames: int, seconds: float) -> Encoder:
    settings: dict[str, Any] = {"model": source.model(modality)}
    assets: dict[str, bytes] = {}
    if modality in ("image", "video"):
        settings["pixels"] = _pixels(source, modality)
    if modality == "video":
        settings["frames"] = frames
    if modality == "audio":
        settings["sound"] = _sound(source, seconds)
    if modality == "text":
        settings["tokens"], assets[ASSET] = _tokens(source, context)
    encoder = build_encoder(f"hf/{modality}", settings, assets)
    scale, bias = SCALES.get(_scale_kind(source.kind), {}).get("image" if modality == "video" else modality, ("", ""))
    logit_scale = math.exp(source.scalars[scale]) if scale in source.scalars else encoder.logit_scale
    weights = Checkpoint(str(source.directory), settings["model"])
    return encoder.with_weights(weights, None, logit_scale, {"source": source.directory.name}, source.scalars.get(bias))


def _space_fingerprint(anchor: Encoder, dim: int) -> str:
    return space_fingerprint(anchor.fingerprint, dim)


def _pixels(source: _Source, modality: str) -> dict[str, Any]:
    """The settings of `Pixels` or `Patches` that the directory's processor has, as transformers reads it."""
    transformers = _transformers()
    auto = transformers.AutoVideoProcessor if source.kind.startswith("pe_") else transformers.AutoImageProcessor
    try:
        processor = auto.from_pretrained(source.directory, **_LOCAL)
    except (OSError, ValueError, ImportError) as error:
        raise SpaceError(f"{source.directory} says nothing of how its {modality}s are prepared: {error}") from error
    levels = {
        "mean": list(processor.image_mean) if processor.do_normalize else [0.0] * 3,
        "std": list(processor.image_std) if processor.do_normalize else [1.0] * 3,
        "scale": processor.rescale_factor if processor.do_rescale else 1.0,
    }
    shared = {
        "resample": RESAMPLE.get(int(processor.resample), "?"),
        "backend": getattr(processor, "backend", "torchvision"),
    }
    if source.kind == "siglip2":
        return {"kind": "patches", "patch": processor.patch_size, "max_patches": processor.max_num_patches, **shared, **levels}
    return {"kind": "pixels", **_geometry(processor, source.directory), "centre": "floor", **shared, **levels}


def _geometry(processor: Any, directory: Path) -> dict[str, Any]:
    size, crop = dict(processor.size or {}), dict(getattr(processor, "crop_size", None) or {})
    size = {key: value for key, value in size.items() if value is not None}
    cropped = [crop["height"], crop["width"]] if getattr(processor, "do_center_crop", False) else None
    if processor.do_resize and size.keys() == {"height", "width"}:
        resize, mode = [size["height"], size["width"]], "squash"
    elif processor.do_resize and size.keys() == {"shortest_edge"} and cropped:
        resize, mode = [size["shortest_edge"]] * 2, "shortest"
    else:
        raise SpaceError(f"{directory} prepares pictures in a way that is not known here: size {size}, crop {crop}")
    return {"size": cropped or resize, "resize": resize, "mode": mode}


def _sound(source: _Source, seconds: float) -> dict[str, Any]:
    try:
        extractor = _transformers().AutoFeatureExtractor.from_pretrained(source.directory, **_LOCAL)
    except (OSError, ValueError, ImportError) as error:
        raise SpaceError(f"{source.directory} says nothing of how its sounds are prepared: {error}") from error
    if source.kind != "clap":
        rate_hz, hop = extractor.sampling_rate, extractor.hop_length
        return {"kind": "pe", "rate_hz": rate_hz, "hop": hop, "steps": math.ceil(seconds * rate_hz / hop)}
    return {
        "kind": "clap",
        "rate_hz": extractor.sampling_rate,
        "samples": int(extractor.nb_max_samples),
        "window": extractor.fft_window_size,
        "hop": extractor.hop_length,
        "mels": extractor.feature_size,
        "lowest_hz": extractor.frequency_min,
        "highest_hz": extractor.frequency_max,
        "fusion": extractor.truncation == "fusion",
        "fill": extractor.padding,
    }


def _tokens(source: _Source, context: int) -> tuple[dict[str, Any], bytes]:
    """The settings of `Tokens` and the tokenizer.json, as transformers makes them of the directory's files."""
    tokenizer, clean = _tokenizer(source)
    content = tokenizer.backend_tokenizer.to_str().encode()
    length = context or CONTEXT.get(source.kind) or min(LONGEST, tokenizer.model_max_length)
    places = getattr(source.config.text_config, "max_position_embeddings", None) or LONGEST
    places -= tokenizer.pad_token_id + 1 if source.kind == "clap" else 0  # RoBERTa counts places from behind the padding's id
    masked = source.kind in ("siglip", "siglip2")  # CLIP's texts end in a token that sees no filling; the others need the mask
    mask = "attention_mask" in tokenizer.model_input_names if masked else source.kind != "clip"
    tokens = {
        "length": min(length, places),
        "pad_id": tokenizer.pad_token_id,
        "pad_side": tokenizer.padding_side,
        "mask": mask,
        "clean": clean,
    }
    return tokens, content


def _tokenizer(source: _Source) -> tuple[Any, str]:
    transformers = _transformers()
    saved = hub.json_of(source.directory, "tokenizer_config.json")
    siglip = saved.get("tokenizer_class") == "SiglipTokenizer"  # needs sentencepiece; its tokenizer.json alone does not
    auto = transformers.PreTrainedTokenizerFast if siglip else transformers.AutoTokenizer
    try:
        tokenizer = auto.from_pretrained(source.directory, **_LOCAL)
    except (OSError, ValueError, ImportError) as error:
        raise SpaceError(f"the tokenizer of {source.directory} cannot be read: {error}") from error
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise SpaceError(f"{source.directory} has no tokenizer.json, nor one that can be made of its files; add it")
    return tokenizer, "siglip" if siglip else ""


def _plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON, without what does not shape the tower."""
    notes = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "architectures", "id2label", "label2id")
    return {key: value for key, value in config.to_dict().items() if key not in notes}


def _scale_kind(kind: str) -> str:
    return "siglip" if kind == "siglip2" else kind


def _anchor(source: _Source) -> str:
    return next(modality for modality in ANCHORS if modality in MODALITIES[source.kind])


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise SpaceError("spaces 'hf:...' need transformers: pip install 'bindery[clip]'") from error
    return transformers
