"""Images: JPEG, PNG, WebP, ... bytes, files, URIs, PIL images, arrays -> a picture -> RGB at the scale asked for, facts."""

from __future__ import annotations

import io
import struct

import numpy as np
import torch
from PIL import Image

from encoders.errors import DecodeError, TooLargeError
from encoders.media.previews import LONGEST_SIDE, picture_preview
from encoders.media.shrink import pixels_of
from encoders.media.types import Facts, Media, read_media

MAX_PIXELS = 150_000_000  # width times height of the file, before any scaling
MAX_ASPECT = 64  # long over short side; beyond it, what a centre is cut from would take gigabytes once it is enlarged
# What Pillow's format plugins raise on damaged files; RuntimeError is AVIF's.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, LookupError, TypeError, OverflowError, RuntimeError)
_ORIENTATION = 0x0112  # the EXIF tag; its values 2 to 8 and what sets them upright:
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Picture:
    """A picture whose pixels are decoded when asked for, upright (EXIF orientation), in RGB.

    Attributes:
        width, height: of the whole picture, upright, in pixels, however small it is decoded.
        mime: MIME type of the file; None for one that never was a file.
    """

    def __init__(self, source: bytes | Image.Image) -> None:
        self._source = source
        self._decoded: dict[int, Image.Image] = {}  # by the factor it was shrunk by while decoding
        self._small: torch.Tensor | None = None
        image = open_picture(source) if isinstance(source, bytes) else source
        self._opened: Image.Image | None = image
        self._turn = self._turn_of(image)
        self.width, self.height = _turned(image.size, self._turn)
        self.mime = Image.MIME.get(image.format) if image.format else None

    def rgb(self, at_least: int | None = None) -> Image.Image:
        """The picture in RGB: transparency on white, CMYK and palettes converted, 16 bits shrunk to 8.

        Args:
            at_least: pixels that the short side needs; a JPEG is then decoded at 1/2, 1/4 or 1/8 where that suffices, which
                is much cheaper. None decodes all pixels.

        Raises:
            DecodeError: the pixels are damaged or cut off.
        """
        factor = self._factor(at_least)
        if factor not in self._decoded:
            self._decoded[factor] = self._decode(factor)
        return self._decoded[factor]

    def as_stored(self) -> Image.Image:
        """The picture in RGB as plain `convert` makes it: not set upright, alpha dropped, 16-bit grey mostly white.

        Raises:
            DecodeError: the pixels are damaged or cut off.
        """
        image = self._open()
        if self._turn is None and not image.has_transparency_data and not image.mode.startswith(("I", "F")):
            return self.rgb()
        try:
            return image.convert("RGB")
        except DAMAGED as error:
            raise _damaged(image, error) from error

    def keep(self, small_HWC: np.ndarray) -> None:
        """Take note of what `rgb` was shrunk to, uint8 (H, W, C), for `smallest`; enlarged or distorted it is passed over."""
        height, width = small_HWC.shape[:2]
        same_shape = abs(width * self.height - height * self.width) <= max(self.width, self.height)  # to a pixel
        if same_shape and width <= self.width:
            self._small = torch.from_numpy(np.require(small_HWC, requirements="W"))

    def smallest(self, at_least: int) -> torch.Tensor:
        """Like `rgb`, as pixels, but what was shrunk or decoded already and is large enough is taken first."""
        if self._small is not None and min(self._small.shape[:2]) >= at_least:
            return self._small
        enough = [f for f in self._decoded if f <= self._factor(at_least)]
        return pixels_of(self._decoded[max(enough)] if enough else self.rgb(at_least))

    def _turn_of(self, image: Image.Image) -> Image.Transpose | None:
        if image.format == "TIFF":  # Pillow turns them
            return None
        try:
            return _UPRIGHT.get(int(image.getexif().get(_ORIENTATION, 1)))
        except DAMAGED:  # a picture with broken EXIF is still a picture
            self._opened = None  # a PNG's EXIF may come after its pixels: if those are damaged, they are told of only once
            return None

    def _factor(self, at_least: int | None) -> int:
        if at_least is None or self.mime != "image/jpeg" or not isinstance(self._source, bytes):
            return 1
        return next((f for f in (8, 4, 2) if min(self.width, self.height) // f >= at_least), 1)

    def _decode(self, factor: int) -> Image.Image:
        image = self._open()
        try:
            if factor > 1:
                image.draft(None, (image.width // factor, image.height // factor))
            rgb = _to_rgb(image)
            rgb = rgb.copy() if rgb is self._source else rgb  # theirs may change
        except DAMAGED as error:
            raise _damaged(image, error) from error
        return rgb if self._turn is None else rgb.transpose(self._turn)

    def _open(self) -> Image.Image:
        """What was handed in; of a file an image that can be decoded once, first the one whose header was read."""
        if isinstance(self._source, Image.Image):
            return self._source
        opened, self._opened = self._opened, None
        return opened or open_picture(self._source)


def decode_image(media: Media) -> Picture:
    """Bytes, pathlib.Path, URI, open binary file; PIL.Image; numpy uint8 (H, W), (H, W, 3) or (H, W, 4).

    Of an animation the first frame is taken. Pixels are decoded later, by `Picture.rgb`.

    Raises:
        DecodeError: no picture that Pillow can read.
        TooLargeError: more than MAX_PIXELS.
    """
    if isinstance(media, Picture):
        return media
    if isinstance(media, Image.Image):
        return Picture(media)
    if isinstance(media, np.ndarray):
        return Picture(_from_array(media))
    return Picture(read_media(media))


def describe_image(picture: Picture) -> Facts:
    """Size, type and a small JPEG."""
    preview = picture_preview(picture.smallest(LONGEST_SIDE))
    return Facts(mime=picture.mime, width=picture.width, height=picture.height, preview=preview)


def open_picture(data: bytes) -> Image.Image:
    """Pillow's image over `data`, header read, pixels not yet.

    Raises:
        DecodeError: Pillow knows no such format, or the header is damaged.
        TooLargeError: more than MAX_PIXELS.
    """
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{error}; shrink the picture") from error
    except DAMAGED as error:
        raise DecodeError(f"no readable picture ({len(data):,} bytes, starting {data[:8]!r}); write it again") from error
    if image.width * image.height > MAX_PIXELS:
        raise TooLargeError(f"{image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are taken; shrink the picture")
    return image


def centre_square(image: Image.Image, side: int) -> Image.Image:
    """The largest centred square of an image of any mode, resized by area averaging to `side` pixels."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.resize((side, side), Image.Resampling.BOX, box=(left, top, left + edge, top + edge))


def middle(image: Image.Image) -> Image.Image:
    """The image; of a strip beyond MAX_ASPECT its middle."""
    width, height = (min(side, MAX_ASPECT * min(image.size)) for side in image.size)
    left, top = -((width - image.width) // 2), -((height - image.height) // 2)  # as much on either side: the centre stays
    return image if (width, height) == image.size else image.crop((left, top, image.width - left, image.height - top))


def _damaged(image: Image.Image, error: Exception) -> DecodeError:
    return DecodeError(f"the {image.format or image.mode} picture is damaged: {error}; write it again")


def _turned(size: tuple[int, int], turn: Image.Transpose | None) -> tuple[int, int]:
    sideways = turn is not None and turn not in (_UPRIGHT[2], _UPRIGHT[3], _UPRIGHT[4])
    return (size[1], size[0]) if sideways else size


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # the full range of 16 bits
        return Image.fromarray((np.asarray(image) / 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):  # no known range: its own
        return _stretched(np.asarray(image, np.float64)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def _stretched(values: np.ndarray) -> Image.Image:
    known = np.isfinite(values)
    if not known.any():
        raise ValueError("no pixel is a finite number")
    low, high = values[known].min(), values[known].max()
    level = (np.where(known, values, low) - low) / max(high - low, 1e-12)
    return Image.fromarray((level * 255).astype(np.uint8))


def _from_array(pixels: np.ndarray) -> Image.Image:
    shape_fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not shape_fits or not pixels.size:
        raise DecodeError(f"an image array is uint8 (H, W), (H, W, 3) or (H, W, 4), not {pixels.dtype} {pixels.shape}")
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise TooLargeError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels, at most {MAX_PIXELS:,} are taken")
    return Image.fromarray(np.ascontiguousarray(pixels))
