"""What open_clip's models are made of, on this machine. In: ARCH/TAG, a repository or a directory. Out: configuration, files.

The network is used only where a caller asks for it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from encoders.clip import hub
from encoders.errors import NotHereError, SpaceError
from encoders.weights import Weights

CONFIG = "open_clip_config.json"
WEIGHT_NAMES = (  # as open_clip prefers them
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
TEXT_NAMES = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "cls_emb")
_STALE = "text.transformer.embeddings.position_ids"


@dataclass(frozen=True)
class Files:
    """A model's configuration and where its weights lie.

    Attributes:
        model: "embed_dim", "vision_cfg", "text_cfg", ... as in open_clip's JSON.
        preprocess: "mean", "std", "interpolation", "resize_mode", "fill_color".
        checkpoint: the weights, a local file.
        license: of the weights.
        folder: the model's directory, with tokenizer files if its text tower has any of its own; None for ARCH/TAG.
    """

    model: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    checkpoint: Path
    license: str
    folder: Path | None


class TowerWeights(Weights):
    """One tower's part of an open_clip checkpoint; `uri` is the file, `part` "visual." or "text."."""

    part: str

    def __init__(self, uri: str, part: str) -> None:
        super().__init__(uri)
        object.__setattr__(self, "part", part)

    def read(self) -> dict[str, torch.Tensor]:
        """Every tensor of the tower, named as in it.

        Raises:
            SpaceError: the file cannot be read.
        """
        places = {self.part: self.part}
        if self.part == "text.":  # older checkpoints hold the text tower's weights without a name before them
            places |= {name: f"text.{name}" for name in TEXT_NAMES}
        found = _tensors(Path(self.uri), places)
        found.pop(_STALE, None)
        return found


def logits(checkpoint: Path) -> tuple[float, float | None]:
    """The logarithm of the logit scale, and the bias of a sigmoid, None where there is none.

    Raises:
        SpaceError: the file cannot be read, or has no scale.
    """
    found = _tensors(checkpoint, {name: name for name in ("logit_scale", "logit_bias")})
    if "logit_scale" not in found:
        raise SpaceError(f"{checkpoint} has no logit_scale; it is no checkpoint of open_clip")
    return float(found["logit_scale"]), float(found["logit_bias"]) if "logit_bias" in found else None


def files_of(name: str, checkpoint: str | None, download: bool) -> Files:
    """Find what a name stands for.

    Args:
        name: "ARCH/TAG" of open_clip's list, "ARCH" with a checkpoint, a directory or a repository with open_clip_config.json.
        checkpoint: a local file of weights instead of the tag's.
        download: fetch what is not here.

    Raises:
        SpaceError: no such architecture or tag, or its weights are not here.
    """
    architecture, _, tag = name.partition("/")
    model = None if Path(name).expanduser().is_dir() else _architecture(architecture)
    if model is None:
        return _from_directory(name, checkpoint, download)
    known = _open_clip().get_pretrained_cfg(architecture, tag) if tag else {}
    if tag and not known:
        tags = ", ".join(_open_clip().list_pretrained_tags_by_model(architecture)) or "none"
        raise SpaceError(f"open_clip has no weights {tag!r} for {architecture}; it has {tags}")
    if not tag and not checkpoint:
        raise SpaceError(f"write open_clip:{architecture}/TAG, or pass checkpoint=FILE")
    if "quick_gelu" in known:  # weights know which they were trained with, the architecture's file may not
        model["quick_gelu"] = known["quick_gelu"]
    if checkpoint:
        return Files(model, known, _existing(checkpoint), f"unknown: see {checkpoint}", None)
    path = _cached(known) or (_downloaded(name, known) if download else None)
    if path is None:
        raise NotHereError(
            f"the weights of open_clip:{name} are not in the local cache; load them once with download=True (or write "
            f"open_clip:{name}?download=true), or pass checkpoint=FILE"
        )
    source = known.get("hf_hub", "").rpartition("/")[0] or known.get("url", "")
    return Files(model, known, path, hub.license_of(path.parent, source), None)


@cache
def clip_tokenizer() -> bytes:
    """CLIP's byte-pair tokenizer as a tokenizer.json, from the merges that ship with open_clip."""
    from open_clip import tokenizer as library
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors

    own = library._tokenizer
    lines = gzip.decompress(Path(library.default_bpe()).read_bytes()).decode().split("\n")
    merges = [(left, right) for left, right in (line.split() for line in lines[1 : 49152 - 256 - 2 + 1])]
    start, end = own.decoder[own.sot_token_id], own.decoder[own.eot_token_id]
    made = Tokenizer(models.BPE(vocab=own.encoder, merges=merges, end_of_word_suffix="</w>", unk_token=end))
    pieces = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    split = pre_tokenizers.Split(pieces, behavior="removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.add_special_tokens([AddedToken(word, normalized=False) for word in (start, end)])
    made.post_processor = processors.RobertaProcessing((end, own.eot_token_id), (start, own.sot_token_id), False, False)
    return made.to_str().encode()


def _from_directory(name: str, checkpoint: str | None, download: bool) -> Files:
    if "/" not in name and not Path(name).expanduser().is_dir():
        known = ", ".join(_open_clip().list_models()[:5])
        raise SpaceError(f"open_clip has no architecture {name!r} (it has {known}, ...), nor is there such a directory")
    folder = hub.directory_of(name, download)
    document: Any = hub.json_of(folder, CONFIG)
    if "model_cfg" not in document:
        raise SpaceError(f"{folder / CONFIG} has no model_cfg; save the model with open_clip's push_to_hf_hub layout")
    weights = next((folder / file for file in WEIGHT_NAMES if (folder / file).is_file()), None)
    if checkpoint is None and weights is None:
        raise SpaceError(f"{folder} holds no weights ({', '.join(WEIGHT_NAMES)}); copy or download them")
    path = _existing(checkpoint) if checkpoint else weights
    assert path is not None
    model, preprocess = document["model_cfg"], document.get("preprocess_cfg", {})
    return Files(model, preprocess, path, hub.license_of(folder, name), folder)


def _existing(checkpoint: str) -> Path:
    path = Path(checkpoint).expanduser().absolute()
    if not path.is_file():
        raise SpaceError(f"there is no checkpoint {path}")
    return path


def _cached(known: Mapping[str, Any]) -> Path | None:
    """The weights of a tag in the local caches: Hugging Face's, else open_clip's own."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, file = known.get("hf_hub", "").rpartition("/")
    for name in ([file] if file else WEIGHT_NAMES) if repository else ():
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    path = Path("~/.cache/clip").expanduser() / Path(known.get("url", "")).name
    return path if path.is_file() else None


def _downloaded(name: str, known: Mapping[str, Any]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    repository = known.get("hf_hub", "").rpartition("/")[0]
    try:
        path = Path(_open_clip().download_pretrained(dict(known)))
        if repository:
            hf_hub_download(repository, "README.md")  # says under which licence
    except (HfHubHTTPError, OSError, RuntimeError) as error:
        raise SpaceError(f"the weights of open_clip:{name} could not be downloaded: {error}") from error
    return path


def _tensors(checkpoint: Path, places: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with a key of `places`; training checkpoints hold them under "state_dict", "module."."""
    if checkpoint.suffix == ".safetensors":
        return hub.tensors_of(checkpoint, places)
    from open_clip.factory import load_state_dict

    try:
        state = load_state_dict(str(checkpoint), weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise SpaceError(f"{checkpoint} is not a readable file of tensors: {str(error).splitlines()[0]}") from error
    return {new: state[old] for old, new in hub.renamed(state, places)}


def _architecture(name: str) -> dict[str, Any] | None:
    """An architecture of open_clip's, from its files, as to import it takes seconds; or one added to it; or None."""
    package = find_spec("open_clip")
    path = Path(package.origin).parent / "model_configs" / f"{name}.json" if package and package.origin else None
    if path is not None and path.is_file():
        return dict(json.loads(path.read_text()))
    library = _open_clip()
    return dict(library.get_model_config(name)) if name in library.list_models() else None


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise SpaceError("spaces 'open_clip:...' need open_clip: pip install 'bindery[clip]'") from error
    return open_clip
