"""Encoders: media in, vectors of one shared space out. torch and numpy only: no ray, no lancedb, no pandas."""

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
