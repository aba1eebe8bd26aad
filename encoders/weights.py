"""Where a tower's weights lie and what they are called. In: safetensors files, towers. Out: towers with weights, fingerprints.

Only safetensors are read here: nothing in a user's file is ever executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from encoders.errors import SpaceError


@dataclass(frozen=True)
class Weights:
    """A safetensors file by its URI or local path."""

    uri: str

    def read(self) -> dict[str, torch.Tensor]:
        """Every tensor of the file, by name.

        Raises:
            SpaceError: the file is missing or is no safetensors file.
        """
        try:
            with fsspec.open(self.uri, "rb") as file:
                return load_safetensors(file.read())
        except FileNotFoundError as error:
            raise SpaceError(f"the weights {self.uri} are not there; save the space again, or mend its space.json") from error
        except SafetensorError as error:
            raise SpaceError(f"{self.uri} is not a readable safetensors file: {error}; save the space again") from error

    def load_into(self, tower: nn.Module, name: str) -> None:
        """Set every parameter and persistent buffer of `tower`.

        Raises:
            SpaceError: tensors are missing, left over or misshapen; the message names the first of each.
        """
        state = self.read()
        wanted = tower.state_dict()
        missing = sorted(wanted.keys() - state.keys())
        unexpected = sorted(state.keys() - wanted.keys())
        misshapen = sorted(k for k in wanted.keys() & state.keys() if wanted[k].shape != state[k].shape)
        if missing or unexpected or misshapen:
            raise SpaceError(
                f"{self.uri} does not fit encoder {name!r}: {len(missing)} weights missing (first: {missing[:1]}), "
                f"{len(unexpected)} unexpected (first: {unexpected[:1]}), {len(misshapen)} of another shape (first: "
                f"{misshapen[:1]}). Use the settings it was saved with, or train {name!r} first."
            )
        tower.load_state_dict({k: v.to(wanted[k].dtype) for k, v in state.items()})


def fingerprint(state: Mapping[str, torch.Tensor], architecture: str, settings: Mapping[str, Any]) -> str:
    """32 hex digits that name an encoder: SHA-256 over its architecture, settings and weights as canonical float32.

    Weights are taken by sorted name with their shapes, little-endian; integer buffers keep their own type.
    """
    digest = hashlib.sha256(json.dumps([architecture, settings], sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(f"\n{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
