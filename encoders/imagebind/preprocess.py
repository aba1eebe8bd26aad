"""What ImageBind's towers take of pictures, clips, sounds and texts. In: media. Out: arrays of fixed shape, not yet scaled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from encoders.errors import DecodeError
from encoders.imagebind import tokenizer
from encoders.imagebind.clips import Profile, Profiled
from encoders.imagebind.log_mel import LogMel
from encoders.imagebind.normalisation import AUDIO_MEAN, AUDIO_STD, IMAGE_MEAN, IMAGE_STD
from encoders.imagebind.views import ImagePixels, VideoViews
from encoders.media.text import Text, decode_text, describe_text
from encoders.media.types import Facts, Media

__all__ = ["ImagePixels", "LogMel", "Profile", "TokenIds", "VideoViews", "reference_input"]


@dataclass(frozen=True)
class TokenIds(Profiled):
    """Token ids of a text. Holds settings only; with profile "bindery", the special strings are words like any other."""

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """Anything `decode_text` takes -> {"token_ids": int64 (77,)}: start, at most 75 tokens, end, zeros.

        Raises:
            DecodeError: with profile "bindery", a text of which nothing is left once it is cleaned.
        """
        ids, _ = tokenizer.context(decode_text(media).text, self.exact)
        if not ids and not self.exact:
            raise DecodeError("the text holds nothing but invisible characters; write it again or remove it")
        return {"token_ids": _row(ids)}

    def spans(self, text: Text) -> list[tuple[int, int]]:
        """The parts of a text, as (first, end) characters, that each fit the tower; one part: all of it fits."""
        return tokenizer.spans(text.text, self.exact)

    def describe(self, text: Text) -> Facts:
        """The text itself, and whether the tower sees only its beginning."""
        return replace(describe_text(text), truncated=not tokenizer.context(text.text, self.exact)[1])


def _row(ids: tuple[int, ...]) -> np.ndarray:
    row = np.zeros(tokenizer.CONTEXT, np.int64)
    row[: len(ids) + 2] = (tokenizer.START, *ids, tokenizer.END)
    return row


def reference_input(modality: str, media: Any) -> torch.Tensor:
    """What the published loaders give for a medium, without a batch axis; for a list of media, stacked.

    Args:
        modality: "image" (or, as there, "vision") float32 (3, 224, 224); "video" (15, 3, 2, 224, 224); "audio"
            (3, 1, 128, 204), all scaled by mean and deviation; "text" int64 (77,).
        media: anything the modality's `decode` takes; a str is a text, and may be empty.

    Raises:
        ValueError: another modality: no loader was published for it.
        MediaError: a medium that cannot be used.
    """
    if isinstance(media, list):
        return torch.stack([reference_input(modality, medium) for medium in media])
    if modality not in _REFERENCE:
        raise ValueError(f"no loader was ever published for {modality!r}, only for {', '.join(_REFERENCE)}")
    return _REFERENCE[modality](media)


def _reference_image(media: Media) -> torch.Tensor:
    return _scaled(torch.from_numpy(ImagePixels("reference")(media)["image"]).float() / 255)


def _reference_video(media: Media) -> torch.Tensor:
    return _scaled(torch.from_numpy(VideoViews("reference")(media)["frames"]))


def _scaled(x: torch.Tensor) -> torch.Tensor:
    """(..., 3, H, W) or (..., 3, T, H, W) in [0, 1], with the channels in axis -3 or, of video, -4."""
    shape = (3,) + (1,) * (2 if x.ndim == 3 else 3)
    return (x - torch.tensor(IMAGE_MEAN).view(shape)) / torch.tensor(IMAGE_STD).view(shape)


def _reference_audio(media: Media) -> torch.Tensor:
    return (torch.from_numpy(LogMel("reference")(media)["log_mel"]) - AUDIO_MEAN) / AUDIO_STD


def _reference_text(media: Media) -> torch.Tensor:
    text = media if isinstance(media, str) else decode_text(media).text
    return torch.from_numpy(_row(tokenizer.context(text, special=True)[0]))


_REFERENCE: dict[str, Callable[[Media], torch.Tensor]] = {
    "image": _reference_image,
    "vision": _reference_image,
    "video": _reference_video,
    "audio": _reference_audio,
    "text": _reference_text,
}
