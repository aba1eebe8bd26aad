"""Models of the Hugging Face hub, on this machine. In: a repository or a directory. Out: the directory, tensors, licence.

The network is used only where a caller asks for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from encoders.errors import NotHereError, SpaceError

SMALL_FILES = ("*.json", "*.txt", "*.model", "README.md")
WEIGHT_FILES = ("*.safetensors", "*.bin")
_NAMES = (
    "timm_model_name",
    "architecture",
    "backbone",
    "attn_implementation",
    "_attn_implementation",
)  # settings, of a library's own
_READ = ("checkpoint_path", "use_pretrained_backbone")  # settings that make it read something


def directory_of(repository: str, download: bool, revision: str | None = None) -> Path:
    """The directory that holds a model: a local one as it is, else the repository's snapshot in the local cache.

    Args:
        repository: a directory, or "owner/name".
        download: fetch what the cache lacks (all of the repository's JSON, text and weights; safetensors where there are any).
        revision: branch, tag or commit; the main branch if left out.

    Raises:
        SpaceError: it is not here, or not there either.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    path = Path(repository).expanduser()
    if path.is_dir():
        return path.absolute()
    try:
        if not download:
            return Path(snapshot_download(repository, revision=revision, local_files_only=True))
        files = HfApi().list_repo_files(repository, revision=revision)
        kind = WEIGHT_FILES[0 if any(file.endswith(".safetensors") for file in files) else 1]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=[*SMALL_FILES, kind]))
    except HFValidationError as error:
        raise SpaceError(f"{repository!r} is neither a directory here nor the name of a repository: {error}") from error
    except LocalEntryNotFoundError as error:
        raise NotHereError(
            f"{repository!r} is neither a directory here nor in the local Hugging Face cache; load it once with "
            "download=True (or write ?download=true behind the space's name), or copy the model's directory here and name that"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise SpaceError(f"{repository!r} could not be downloaded: {error}") from error


def scalars(directory: Path, names: tuple[str, ...]) -> dict[str, float]:
    """Single values of a checkpoint by name, those that are there; only their bytes are read from safetensors.

    Raises:
        SpaceError: no weights, or a damaged file.
    """
    return {name: float(value) for name, value in tensors(directory, {name: name for name in names}).items() if name in names}


def tensors(directory: Path, places: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint whose names begin with a key of `places`, that beginning replaced by its value.

    Raises:
        SpaceError: no weights, or a damaged file.
    """
    return {name: value for file in _weight_files(directory) for name, value in tensors_of(file, places).items()}


def tensors_of(file: Path, places: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """`tensors` of one file, safetensors or torch's own format.

    Raises:
        SpaceError: it is damaged.
    """
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as opened:
                return {new: opened.get_tensor(old) for old, new in renamed(opened.keys(), places)}
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)  # tensors only: nothing is executed
        return {new: state[old] for old, new in renamed(state, places)}
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise SpaceError(f"{file} is not a readable file of weights: {error}; copy or download it again") from error


def license_of(directory: Path, repository: str) -> str:
    """What the model card says of its licence, else "unknown: see REPOSITORY"."""
    card = directory / "README.md"
    front = re.match(r"---\n(.*?)\n---", card.read_text(errors="replace"), re.DOTALL) if card.is_file() else None
    said = dict(re.findall(r"^(license\w*):\s*(\S.*?)\s*$", front.group(1), re.MULTILINE)) if front else {}
    named = said.get("license_name") or said.get("license")
    if not named:
        return f"unknown: see {repository}"
    return f"{named}, {said['license_link']}" if "license_link" in said else named


def json_of(directory: Path, name: str) -> dict[str, object]:
    """A JSON file of the directory.

    Raises:
        SpaceError: it is missing or damaged.
    """
    try:
        document: dict[str, object] = json.loads((directory / name).read_text())
    except FileNotFoundError as error:
        raise SpaceError(f"{directory} has no {name}; it is no complete model directory: copy or download it again") from error
    except json.JSONDecodeError as error:
        raise SpaceError(f"{directory / name} is not JSON: {error}; copy or download it again") from error
    return document


def renamed(names: Iterable[str], places: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The names that begin with a key of `places`, each with what it is called once that beginning is replaced."""
    for name in names:
        for old, new in places.items():
            if name.startswith(old):
                yield name, new + name.removeprefix(old)


def refuse_places(settings: Mapping[str, Any]) -> None:
    """See to it that a stranger's settings of a model make its library read nothing from the hub or from a folder.

    timm reads settings from "hf-hub:..." and "local-dir:...", and weights from a checkpoint, whatever `pretrained` says;
    transformers fetches attention kernels, which are code, by "owner/name".

    Raises:
        SpaceError: a setting, however deep, is such a place.
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            refuse_places(value)
        elif (name in _READ and value) or (name in _NAMES and isinstance(value, str) and (":" in value or "/" in value)):
            raise SpaceError(
                f"{name} {value!r} is a place to read from, not an architecture; write the library's own name of it"
            )


def _weight_files(directory: Path) -> list[Path]:
    files = sorted(directory.glob("*.safetensors")) or sorted(directory.glob("pytorch_model*.bin"))
    if not files:
        raise SpaceError(f"{directory} holds no weights (*.safetensors or pytorch_model*.bin); copy or download it again")
    return files
