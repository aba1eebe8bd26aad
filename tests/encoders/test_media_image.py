"""Pictures: what Pillow reads becomes upright RGB; what it cannot read is refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sample_media import picture, picture_file

from encoders.clip.pixels import Pixels
from encoders.errors import DecodeError, TooLargeError
from encoders.imagebind.views import ImagePixels
from encoders.media.image import centre_square, decode_image, describe_image

# Pillow's remarks on files that are damaged or large on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")


def rgb(media: object) -> np.ndarray:
    """All pixels as int."""
    return np.asarray(decode_image(media).rgb()).astype(int)


def test_lossless_formats_arrays_and_pil_images_give_the_same_pixels() -> None:
    for media in (
        picture_file("PNG"),
        picture_file("BMP"),
        picture_file("WEBP", lossless=True),
        Image.fromarray(picture()),
        picture(),
    ):
        np.testing.assert_array_equal(rgb(media), picture())


def test_a_jpeg_decoded_small_keeps_its_size_and_its_looks() -> None:
    large = Image.fromarray(picture(1600, 1200))
    whole = decode_image(picture_file("JPEG", large, quality=95))
    small = whole.rgb(at_least=128)
    assert small.size == (200, 150)
    assert (whole.width, whole.height) == (1600, 1200)
    difference = np.abs(
        np.asarray(centre_square(small, 64)).astype(int) - np.asarray(centre_square(whole.rgb(), 64)).astype(int)
    )
    assert difference.mean() < 1.5


def test_what_was_asked_for_before_does_not_change_what_is_decoded() -> None:
    media = picture_file("JPEG", Image.fromarray(picture(800, 600)))
    fresh, used = decode_image(media), decode_image(media)
    used.rgb()
    used.smallest(40)
    np.testing.assert_array_equal(np.asarray(fresh.rgb(at_least=128)), np.asarray(used.rgb(at_least=128)))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation: int, kind: str) -> None:
    upright = Image.fromarray(picture())
    stored = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how the camera held it: the inverse transposition
    image = upright.transpose(Image.Transpose(stored[orientation])) if orientation in stored else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    media = picture_file(kind, image, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(rgb(media), picture())
    assert (decode_image(media).width, decode_image(media).height) == (160, 120)


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    half = Image.new("RGBA", (4, 4), (200, 0, 0, 128))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([200, 0, 0])
    for image, expected in ((clear, (255, 255, 255)), (half, (227, 127, 127))):
        np.testing.assert_allclose(rgb(picture_file("PNG", image))[0, 0], expected, atol=1)
    assert tuple(rgb(picture_file("PNG", palette))[0, 0]) == (200, 0, 0)
    assert tuple(rgb(picture_file("PNG", palette, transparency=0))[0, 0]) == (255, 255, 255)


def test_cmyk_grey_and_bilevel_pictures_become_rgb() -> None:
    ink = rgb(picture_file("JPEG", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95))[8, 8]
    assert ink[0] > 230
    assert max(ink[1:]) < 30
    assert tuple(rgb(picture_file("PNG", Image.new("L", (4, 4), 77)))[0, 0]) == (77, 77, 77)
    assert tuple(rgb(picture_file("PNG", Image.new("1", (4, 4), 1)))[0, 0]) == (255, 255, 255)


def test_16_bit_grey_is_shrunk_to_8_bits_and_floats_are_stretched() -> None:
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(16, 16)
    np.testing.assert_array_equal(rgb(picture_file("PNG", Image.fromarray(ramp)))[..., 0].ravel(), np.arange(256))
    floats = rgb(picture_file("TIFF", Image.fromarray(ramp.astype(np.float32) / 1000)))[..., 1]
    assert (floats.min(), floats.max()) == (0, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_truncated_file_is_a_decode_error(kind: str) -> None:
    media = picture_file(kind)
    for keep in (len(media) // 2, 20):
        with pytest.raises(DecodeError):
            decode_image(media[:keep]).rgb()


@pytest.mark.parametrize("size", [(160, 120), (800, 600)], ids=str)
def test_a_png_with_damaged_pixels_is_a_decode_error_though_its_exif_was_looked_for_behind_them(size: tuple[int, int]) -> None:
    media = bytearray(picture_file("PNG", Image.fromarray(picture(*size))))
    media[len(media) // 2 : len(media) // 2 + 40] = bytes(40)
    with pytest.raises(DecodeError):
        decode_image(bytes(media)).rgb()


def test_damaged_bytes_are_decoded_or_refused_but_nothing_else_is_raised() -> None:
    random = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        for _ in range(40):
            media = bytearray(picture_file(kind))
            for at in random.integers(0, min(len(media), 600), 12):
                media[at] = random.integers(256)
            try:
                decode_image(bytes(media)).rgb()
            except (DecodeError, TooLargeError) as error:
                assert str(error)


def test_a_picture_of_the_callers_is_neither_kept_nor_changed() -> None:
    theirs = Image.open(io.BytesIO(picture_file("JPEG", Image.fromarray(picture(1600, 1200)))))
    ImagePixels()(theirs)
    assert theirs.size == (1600, 1200), "not shrunk while it was decoded"
    for mine in (theirs, Image.fromarray(picture())):
        held = decode_image(mine)
        before = np.asarray(held.rgb()).copy()
        mine.putpixel((0, 0), (1, 2, 3))
        np.testing.assert_array_equal(np.asarray(held.rgb()), before)


def test_a_decompression_bomb_is_too_large() -> None:
    for side in (13_000, 60_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
        png = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
        )
        with pytest.raises(TooLargeError, match="pixels"):
            decode_image(png)


def test_an_array_of_another_type_or_shape_is_refused_by_name() -> None:
    for array in (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(DecodeError, match="uint8"):
            decode_image(array)
    with pytest.raises(TypeError, match="always means text"):
        decode_image("photo.jpg")


def test_facts_tell_size_and_type_and_show_the_picture() -> None:
    facts = describe_image(decode_image(picture_file("JPEG", Image.fromarray(picture(1600, 1200)))))
    assert (facts.mime, facts.width, facts.height) == ("image/jpeg", 1600, 1200)
    assert facts.preview is not None
    assert Image.open(io.BytesIO(facts.preview)).size == (128, 96)
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    hardest = describe_image(decode_image(noise)).preview
    assert hardest is not None
    assert len(hardest) <= 6 * 1024


@pytest.mark.parametrize(
    ("size", "preprocess"),
    [
        ((1600, 1200), ImagePixels()),
        ((1200, 1600), Pixels((224, 224), (224, 224))),
        ((1600, 1200), Pixels((224, 224), (224, 224), mode="squash")),
        ((9000, 20), ImagePixels()),
        ((1600, 1200), Pixels((64, 64), (64, 64))),
        ((20, 20), ImagePixels()),
    ],
    ids=["shrunk", "upright", "squashed", "strip", "smaller than a preview", "enlarged"],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_preview_shows_the_whole_picture_whatever_was_made_of_it_before(
    size: tuple[int, int], preprocess: Callable[[Any], object], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = picture_file("JPEG", Image.fromarray(picture(*size)), exif=exif)
    prepared, untouched = decode_image(file), decode_image(file)
    preprocess(prepared)
    shown, expected = (describe_image(each).preview for each in (prepared, untouched))
    assert shown is not None and expected is not None
    levels, wanted = (np.asarray(Image.open(io.BytesIO(each))).astype(int) for each in (shown, expected))
    assert levels.shape == wanted.shape and np.abs(levels - wanted).mean() < 8
