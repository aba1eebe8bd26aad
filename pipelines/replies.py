"""What a decoding child answers. In: a reply. Out: plain values and buffers, of which its owner makes the same reply.

The child has had the bytes of strangers in its native decoders, so its owner unpickles nothing of it: it reads JSON and arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from encoders.media.types import Facts
from pipelines.shared_pipe import Buffer


@dataclass(frozen=True)
class Decoded:
    """One segment of a source: arrays by feature name, facts, and its place; `last` of its source or part."""

    features: dict[str, np.ndarray]
    facts: Facts
    key: str = ""
    start_s: float | None = None
    end_s: float | None = None
    last: bool = True
    read_s: float = 0.0  # how long its decoder waited for its bytes
    decode_s: float = 0.0  # and worked on it


@dataclass(frozen=True)
class PartCount:
    """Into how many parts the work on a source is cut."""

    parts: int
    last: bool = True


@dataclass(frozen=True)
class Reject:
    """Why a source has no vector. `expected`: of a kind that bad media cause, not a likely bug of ours."""

    stage: str
    error_type: str
    message: str
    expected: bool
    last: bool = True  # whatever segments came before it, none follows


Reply = Decoded | PartCount | Reject


def pack(reply: Reply) -> tuple[dict[str, Any], list[Buffer]]:
    """A reply as values that JSON knows, and buffers: its features and the preview, if there is one."""
    if not isinstance(reply, Decoded):
        return {"kind": type(reply).__name__, **vars(reply)}, []
    arrays = [array.reshape(-1).view(np.uint8).data for array in reply.features.values()]
    facts = {**vars(reply.facts), "preview": None}
    kinds = {name: [array.dtype.str, array.shape] for name, array in reply.features.items()}
    preview = [] if reply.facts.preview is None else [reply.facts.preview]
    return {"kind": "Decoded", **vars(reply), "features": kinds, "facts": facts}, [*arrays, *preview]


def unpack(values: Mapping[str, Any], buffers: Sequence[bytearray]) -> Reply:
    """The reply that was packed; its arrays are views of the buffers.

    Raises:
        ValueError, TypeError, KeyError: this is no packed reply.
    """
    kind, values = values["kind"], {name: value for name, value in values.items() if name != "kind"}
    if kind != "Decoded":
        return PartCount(**values) if kind == "PartCount" else Reject(**values)
    kinds = values["features"].items()
    if any(np.dtype(dtype).hasobject for dtype, _ in values["features"].values()):
        raise ValueError(f"no features are objects: {kinds}")
    arrays = zip(kinds, buffers, strict=False)
    values["features"] = {name: np.ndarray(shape, dtype, buffer) for (name, (dtype, shape)), buffer in arrays}
    preview = bytes(buffers[len(kinds)]) if len(buffers) > len(kinds) else None
    return Decoded(**{**values, "facts": Facts(**{**values["facts"], "preview": preview})})
