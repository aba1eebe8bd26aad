"""Pictures and clips for ImageBind's vision tower. In: media. Out: pixels of 224 x 224, not yet scaled.

H height, W width, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from encoders.errors import TooLargeError
from encoders.imagebind.clips import CLIP_S, Profiled, clip_starts
from encoders.media.image import MAX_ASPECT, decode_image, middle
from encoders.media.shrink import pixels_of, shrunk
from encoders.media.types import Media
from encoders.media.video import Clip, decode_video

SIDE = 224  # pixels
DECODE_SIDE = 2 * SIDE  # a large JPEG is decoded no smaller than this: 0.3 levels off on average, up to 5 times as fast
VIDEO_CLIPS = 5


def long_side(long: int, short: int) -> int:
    """The long side in pixels of a picture whose short side becomes SIDE."""
    return SIDE * long // short


@dataclass(frozen=True)
class ImagePixels(Profiled):
    """Short side to 224 by a bicubic filter, and the centre of that. Holds settings only.

    With profile "reference" the filter is Pillow's, else torch's, which is four times as fast and 0.004 levels off on average.
    """

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """Anything `decode_image` takes -> {"image": uint8 (3, 224, 224)}.

        Raises:
            MediaError: damaged or too large; with profile "reference", longer than MAX_ASPECT times its short side.
        """
        picture = decode_image(media)
        if self.exact:
            return {"image": centre(resized(picture.as_stored()))}
        decoded_HWC = pixels_of(middle(picture.rgb(at_least=DECODE_SIDE)))
        resized_HWC = shrunk(decoded_HWC, _target(*decoded_HWC.shape[:2]), "bicubic")
        picture.keep(resized_HWC)
        return {"image": centre(resized_HWC)}


def resized(image: Image.Image) -> np.ndarray:
    """An RGB image of any size as uint8 (H, W, 3), its short side 224."""
    _check_aspect(max(image.size), min(image.size))
    height, width = _target(image.height, image.width)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def centre(image_HWC: np.ndarray) -> np.ndarray:
    """The centre of the first three channels of it, (3, 224, 224)."""
    top, left = (round((side - SIDE) / 2) for side in image_HWC.shape[:2])  # halves to the even number
    return np.ascontiguousarray(image_HWC[top : top + SIDE, left : left + SIDE, :3].transpose(2, 0, 1))


def _target(height: int, width: int) -> tuple[int, int]:
    """Height and width once the short side is SIDE."""
    long = long_side(max(height, width), min(height, width))
    return (SIDE, long) if height <= width else (long, SIDE)


def _check_aspect(long: int, short: int) -> None:
    if long > MAX_ASPECT * short:
        raise TooLargeError(f"{long} x {short} pixels: one side is over {MAX_ASPECT} times the other; cut out what matters")


@dataclass(frozen=True)
class VideoViews(Profiled):
    """Five clips of 2 s, of each the first and the last frame, of these three crops. Holds settings only."""

    def __call__(self, media: Media) -> dict[str, np.ndarray]:
        """Anything `decode_video` takes -> {"frames": (15, 3, 2, 224, 224)}, view 3 * clip + crop.

        uint8, resized with anti-aliasing, upright; with profile "reference" float32 in [0, 1], as stored.

        Raises:
            MediaError: damaged, without frames, or longer than MAX_ASPECT times its short side.
        """
        clip = decode_video(media)
        _check_aspect(max(clip.width, clip.height), min(clip.width, clip.height))
        return {"frames": self._reference(clip) if self.exact else self._upright(clip)}

    def _reference(self, clip: Clip) -> np.ndarray:
        pairs = clip_frames(clip.num_frames, clip.rate_hz)
        wanted = sorted({number for pair in pairs for number in pair})
        crops = dict(zip(wanted, (_crops(_bilinear(frame)) for frame in clip.numbered(wanted)), strict=True))
        return _views([(crops[first], crops[last]) for first, last in pairs])

    def _upright(self, clip: Clip) -> np.ndarray:
        pairs = clip_frames(max(1, round(clip.duration_s * clip.rate_hz)), clip.rate_hz)
        wanted = sorted({number for pair in pairs for number in pair})
        frames = clip.frames_at([number / clip.rate_hz for number in wanted], at_least=SIDE)
        shrunk_HWC = (shrunk(torch.from_numpy(frame), _target(*frame.shape[:2]), "bilinear") for frame in frames)
        crops = {number: _crops(frame.transpose(2, 0, 1)) for number, frame in zip(wanted, shrunk_HWC, strict=True)}
        return _views([(crops[first], crops[last]) for first, last in pairs])


def clip_frames(count: int, rate_hz: float) -> list[tuple[int, int]]:
    """The numbers of the two frames taken of each of the five clips of a video of `count` frames."""
    pairs = []
    for start in clip_starts(count / rate_hz, VIDEO_CLIPS):
        first = math.ceil(rate_hz * float(start))
        end = min(math.ceil(rate_hz * float(start + Fraction(CLIP_S))), count)
        first = min(first, count - 1)  # under one frame a clip, there may be none in it
        pairs.append((first, max(first, end - 1)))
    return pairs


def _bilinear(frame_HWC: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> float32 (3, H', W') in [0, 1], short side 224, without anti-aliasing."""
    frame_1CHW = torch.from_numpy(frame_HWC).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(frame_1CHW, _target(*frame_HWC.shape[:2]), mode="bilinear", align_corners=False)[0].numpy()


def _crops(frame_CHW: np.ndarray) -> list[np.ndarray]:
    """Start, middle and end of the longer side."""
    height, width = frame_CHW.shape[1:]
    long = max(height, width)
    offsets = (0, -((SIDE - long) // 2), long - SIDE)  # the middle rounded up
    if height > width:
        return [frame_CHW[:, top : top + SIDE] for top in offsets]
    return [frame_CHW[:, :, left : left + SIDE] for left in offsets]


def _views(pairs: list[tuple[list[np.ndarray], list[np.ndarray]]]) -> np.ndarray:
    return np.stack([np.stack(pair, 1) for firsts, lasts in pairs for pair in zip(firsts, lasts, strict=True)])
