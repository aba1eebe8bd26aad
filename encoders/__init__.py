"""Encoders: media in, vectors of one shared space out. torch and numpy only: no ray, no lancedb, no pandas."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encoders.encoder import Encoder, Feature, build_encoder, list_encoders, register
    from encoders.errors import DecodeError, MediaError, SpaceError, TooLargeError
    from encoders.media.types import URI, Facts, Media
    from encoders.space import Space, list_spaces, load_space

__all__ = [
    "URI",
    "DecodeError",
    "Encoder",
    "Facts",
    "Feature",
    "Media",
    "MediaError",
    "Space",
    "SpaceError",
    "TooLargeError",
    "build_encoder",
    "list_encoders",
    "list_spaces",
    "load_space",
    "register",
]

_HOMES = {
    "encoders.encoder": ("Encoder", "Feature", "build_encoder", "list_encoders", "register"),
    "encoders.errors": ("DecodeError", "MediaError", "SpaceError", "TooLargeError"),
    "encoders.media.types": ("URI", "Facts", "Media"),
    "encoders.space": ("Space", "list_spaces", "load_space"),
}


def __getattr__(name: str) -> Any:
    """A name, imported when it is asked for: jobs that only keep a table in order need no torch."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'encoders' has no attribute {name!r}; it offers {', '.join(__all__)}")
