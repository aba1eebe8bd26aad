"""Where a tower's weights lie and what they are called. In: safetensors or torch files, towers. Out: towers with weights.

Nothing in a user's file is ever executed: safetensors, or torch's own format by its loader of plain tensors.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import Any, BinaryIO, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.overrides import TorchFunctionMode

from encoders.cache import local_copy
from encoders.errors import SpaceError

Dtype = Literal["float32", "float16", "bfloat16"]
DTYPES: Mapping[Dtype, torch.dtype] = {  # that weights may be stored in
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
FINGERPRINTS = 1  # rises when `fingerprint` comes to another one for the same encoder
NAMED_AT_MOST = 3  # of the entries that do not fit, in a message
_DTYPE_NAMES = {  # as safetensors spells them
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Weights:
    """A safetensors or torch file by its URI or local path, or one tower's part of it.

    A local file is mapped into memory rather than read: only what is used is loaded, once for all processes. A remote one is
    copied to this machine once (encoders/cache.py).

    Attributes:
        uri: of the file.
        others: beginnings of the names that are of other towers in the same file; they are passed over.
    """

    uri: str
    others: tuple[str, ...] = ()

    def read(self) -> dict[str, torch.Tensor]:
        """Every tensor of the file that is not another tower's, by name.

        Raises:
            SpaceError: the file is missing or is not of its format.
        """
        path = self.path()
        try:
            if PurePosixPath(self.uri.partition("?")[0]).suffix in TORCH_SUFFIXES:
                return self._read_torch(path)
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if not name.startswith(self.others)]  # noqa: SIM118 - no mapping
                return {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise SpaceError(f"{self.uri} is not a readable safetensors file: {error}; save the space again") from error

    def path(self) -> Path:
        """Of the file, or of this machine's copy of it.

        Raises:
            SpaceError: the file is missing.
        """
        try:
            path = local_copy(self.uri)
            path.stat()
            return path
        except FileNotFoundError as error:
            raise SpaceError(f"the weights {self.uri} are not there; put the file back, or save the space again") from error

    def _read_torch(self, path: Path) -> dict[str, torch.Tensor]:
        mapped = zipfile.is_zipfile(path)  # files older than torch 1.6 cannot be
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except (UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, AttributeError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            if isinstance(error, UnpicklingError):  # torch's own words tell how to run what is in it
                reason = "damaged, or it holds objects, which are never loaded"
            raise SpaceError(f"{self.uri} is not a readable file of tensors: {reason}; fetch it again") from error
        if not isinstance(state, Mapping):
            raise SpaceError(f"{self.uri} holds a {type(state).__name__}, not tensors by name; save a state_dict() instead")
        foreign = {name: type(value).__name__ for name, value in state.items() if not isinstance(value, torch.Tensor)}
        if foreign:
            raise SpaceError(f"{self.uri} holds more than tensors by name: {_some(foreign)}; save a state_dict() instead")
        return {name: tensor for name, tensor in state.items() if not name.startswith(self.others)}

    def fitting(self, tower: nn.Module, name: str) -> dict[str, torch.Tensor]:
        """`read`, once every name and shape is what `tower` has.

        Args:
            tower: on any device; its values do not matter.
            name: what the message calls it.

        Raises:
            SpaceError: tensors are missing, left over or misshapen; the message counts them and names the first of each.
        """
        state, wanted = self.read(), tower.state_dict()
        missing = sorted(wanted.keys() - state.keys())
        unexpected = sorted(state.keys() - wanted.keys())
        misshapen = {
            key: f"{tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in sorted(wanted.keys() & state.keys())
            if wanted[key].shape != state[key].shape
        }
        if missing or unexpected or misshapen:
            raise SpaceError(
                f"{self.uri} does not fit encoder {name!r}: {len(missing)} weights missing ({_some(missing)}), "
                f"{len(unexpected)} unexpected ({_some(unexpected)}), {len(misshapen)} of another shape ({_some(misshapen)}). "
                f"Use the settings it was saved with, or train {name!r} first."
            )
        return state

    def load_into(self, tower: nn.Module, name: str) -> None:
        """Set every parameter and persistent buffer of `tower`; what is of the right type stays mapped to the file.

        Raises:
            SpaceError: the file does not fit (`fitting`).
        """
        wanted = tower.state_dict()
        state = {key: _as(value, wanted[key]) for key, value in self.fitting(tower, name).items()}
        tower.load_state_dict(state, assign=True)


def _as(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`value` in the type and memory layout of `like`; the same tensor if it has them."""
    if (value.dtype, value.stride()) == (like.dtype, like.stride()):
        return value
    return torch.empty_like(like, device="cpu").copy_(value)


def _some(found: list[str] | Mapping[str, str]) -> str:
    """The first few, as a message says them."""
    named = [f"{key} {found[key]}" if isinstance(found, Mapping) else key for key in list(found)[:NAMED_AT_MOST]]
    return ", ".join(named) + (", ..." if len(found) > NAMED_AT_MOST else "") if found else "none"


class _Uninitialised(TorchFunctionMode):
    """Skips random numbers: what torch.nn.init would fill, and in-place draws."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init" or func in (torch.Tensor.uniform_, torch.Tensor.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def uninitialised() -> Iterator[None]:
    """Inside, modules are built without drawing their initial weights, which are to be loaded: no time, no memory touched.

    What a constructor writes by itself, such as non-persistent buffers, is there as ever.
    """
    with _Uninitialised():
        yield


def fingerprint(
    state: Mapping[str, torch.Tensor], architecture: str, settings: Mapping[str, Any], assets: Mapping[str, bytes] | None = None
) -> str:
    """32 hex digits that name an encoder: SHA-256 over its architecture, settings, weights as canonical float32, and assets.

    Weights are taken by sorted name with their shapes, little-endian; integer buffers keep their own type.
    """
    digest = hashlib.sha256(json.dumps([architecture, settings], sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(f"\n{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(_bytes(tensor))
    for name, content in sorted((assets or {}).items()):
        digest.update(f"\n{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:32]


def write_safetensors(state: Mapping[str, torch.Tensor], file: BinaryIO, dtype: torch.dtype) -> None:
    """Write tensors as a safetensors file, one at a time: memory holds no second copy of them all.

    Args:
        state: tensors by name.
        file: open for writing.
        dtype: that floating-point tensors are stored in; others keep theirs.
    """
    stored = {name: dtype if tensor.is_floating_point() else tensor.dtype for name, tensor in state.items()}
    names = sorted(state, key=lambda name: (-stored[name].itemsize, name))  # wide ones first: each is aligned to its own size
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        start, end = end, end + state[name].numel() * stored[name].itemsize
        header[name] = {"dtype": _DTYPE_NAMES[stored[name]], "shape": list(state[name].shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        file.write(_bytes(state[name].detach().cpu().to(stored[name])))


def _bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a CPU tensor in C order, without a copy where it is contiguous."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")
