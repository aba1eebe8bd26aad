"""ImageBind's pictures and clips: sizes, offsets and frames by hand-computed examples and naive formulas, for any size."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sample_media import picture, picture_file, video_file

from encoders.errors import TooLargeError
from encoders.imagebind.preprocess import ImagePixels, VideoViews, reference_input
from encoders.imagebind.views import centre, clip_frames, long_side, resized
from encoders.media import seeking
from encoders.media.image import decode_image

SIZES = [(224, 224), (299, 224), (224, 299), (500, 375), (97, 640), (1, 1), (1, 40), (37, 1), (223, 225), (1000, 1001)]
RATES_HZ = [0.2, 1, 7.5, 12, 15, 23.976, 24, 25, 29.97, 30, 60, 120]


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width * 7919 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def numbered(count: int) -> np.ndarray:
    """uint8 (N, 48, 48, 3): the frame number in binary, in six columns of black or white."""
    bits = (np.arange(count)[:, None] >> np.arange(5, -1, -1)) & 1
    return np.repeat(np.repeat(bits, 8, 1)[:, None, :, None], 48, 1).repeat(3, 3).astype(np.uint8) * 255


def numbers(frames_CNHW: np.ndarray) -> tuple[int, ...]:
    """Which frames of `numbered` these are."""
    bits = frames_CNHW.mean((0, 2))[:, [round((k + 0.5) * 224 / 6) for k in range(6)]] > frames_CNHW.dtype.type(0.5)
    return tuple(int(row @ (1 << np.arange(5, -1, -1))) for row in bits)


@pytest.mark.parametrize(
    ("width", "offset"), [(224, 0), (225, 0), (226, 1), (227, 2), (297, 36), (298, 37), (299, 38), (300, 38)]
)
def test_the_centre_starts_at_half_of_what_is_over_and_halves_go_to_the_even_number(width: int, offset: int) -> None:
    pixels = noise(width, 224)
    np.testing.assert_array_equal(centre(resized(Image.fromarray(pixels))).transpose(1, 2, 0), pixels[:, offset : offset + 224])
    turned = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    np.testing.assert_array_equal(centre(resized(Image.fromarray(turned))).transpose(1, 2, 0), turned[offset : offset + 224])


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_picture_of_any_size_is_what_the_formula_says_and_in_bindery_two_levels_off_at_most(width: int, height: int) -> None:
    pixels = noise(width, height)
    long, short = max(width, height), min(width, height)
    resized = math.floor(224 * long / short)
    size = (224, resized) if height > width else (resized, 224)
    left, top = (int(np.round((side - 224) / 2)) for side in size)  # numpy rounds halves to even
    whole = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    wanted = whole[top : top + 224, left : left + 224].transpose(2, 0, 1)
    np.testing.assert_array_equal(ImagePixels("reference")(pixels)["image"], wanted)
    off = np.abs(ImagePixels()(pixels)["image"].astype(int) - wanted)
    assert off.max() <= 2 and off.mean() < 0.01
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    scaled = (wanted / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(deviation, (3, 1, 1))
    np.testing.assert_allclose(reference_input("vision", [pixels, pixels])[1].numpy(), scaled, atol=1e-6)


def test_the_profiles_differ_in_orientation_transparency_and_16_bit_grey() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    upright = Image.fromarray(picture())
    turned = picture_file("PNG", upright.transpose(Image.Transpose.ROTATE_180), exif=exif)
    np.testing.assert_array_equal(ImagePixels()(turned)["image"], ImagePixels()(upright)["image"])
    as_stored = ImagePixels("reference")(turned)["image"]
    np.testing.assert_allclose(as_stored, ImagePixels()(upright)["image"][:, ::-1, ::-1].astype(int), atol=2)
    clear = picture_file("PNG", Image.new("RGBA", (8, 8), (200, 10, 0, 0)))
    assert ImagePixels()(clear)["image"].min() == 255
    assert [int(channel.max()) for channel in ImagePixels("reference")(clear)["image"]] == [200, 10, 0]
    grey = picture_file("PNG", Image.fromarray(np.full((8, 8), 257 * 100, np.uint16)))
    assert ImagePixels()(grey)["image"].max() == 100
    assert ImagePixels("reference")(grey)["image"].min() == 255


def test_a_large_jpeg_is_decoded_small_in_bindery_and_looks_the_same() -> None:
    media = picture_file("JPEG", Image.fromarray(picture(2000, 1500)), quality=95)
    assert decode_image(media).rgb(at_least=448).size == (1000, 750)
    sane, exact = (ImagePixels(p)(media)["image"].astype(int) for p in ("bindery", "reference"))  # type: ignore[arg-type]
    assert 0 < np.abs(sane - exact).mean() < 0.5


def test_a_strip_gives_its_middle_in_bindery_and_is_too_large_for_the_reference() -> None:
    strip = np.zeros((2, 30_000, 3), np.uint8)
    strip[:, 14_990:15_010] = 200
    made = ImagePixels()(strip)["image"]
    assert made[:, :, 100:124].min() == 200
    with pytest.raises(TooLargeError, match="64 times"):
        ImagePixels("reference")(strip)


def test_the_frames_of_a_clip_are_its_first_and_last_by_rounding_of_doubles() -> None:
    assert clip_frames(62, 15.0)[2][0] == 17  # the start is 1.0666666666666669 s
    assert clip_frames(30, 24.0) == [(0, 29)] * 5
    assert clip_frames(180, 30.0) == [(0, 59), (30, 89), (60, 119), (90, 149), (120, 179)]
    assert clip_frames(101, 25.0) == [(0, 49), (13, 62), (26, 75), (39, 88), (51, 100)]
    assert clip_frames(1, 30.0) == [(0, 0)] * 5


def test_for_any_length_and_rate_frames_exist_and_span_two_seconds() -> None:
    random = np.random.default_rng(6)
    for _ in range(2000):
        count, rate_hz = (
            int(random.integers(1, 5000)),
            float(random.choice(RATES_HZ)),
        )
        pairs = clip_frames(count, rate_hz)
        assert pairs[0][0] == 0
        assert pairs == sorted(pairs)
        for first, last in pairs:
            assert 0 <= first <= last < count
            assert last - first <= math.ceil(2 * rate_hz)
        assert pairs[-1][1] >= count - 2


@pytest.mark.parametrize("kind", ["mp4", "matroska", "avi"])
@pytest.mark.parametrize(("count", "rate_hz"), [(62, 15), (7, 10), (1, 25)])
def test_both_profiles_take_the_frames_of_these_numbers(kind: str, count: int, rate_hz: int) -> None:
    media = video_file(kind, frames=numbered(count), rate_hz=rate_hz, codec="mpeg4" if kind == "avi" else "libx264")
    wanted = [pair for pair in clip_frames(count, float(rate_hz)) for _ in range(3)]
    assert [numbers(view) for view in VideoViews("reference")(media)["frames"]] == wanted
    assert [numbers(view / 255) for view in VideoViews("bindery")(media)["frames"]] == wanted


@pytest.mark.parametrize(
    ("width", "height"), [(320, 240), (240, 320), (100, 100), (641, 360), (31, 57), (224, 224), (299, 224)]
)
def test_reference_frames_are_bilinear_without_smoothing_in_three_crops(width: int, height: int) -> None:
    frame = noise(width, height)
    long = 224 * max(width, height) // min(width, height)
    out_h, out_w = (224, long) if height <= width else (long, 224)
    y = np.clip((np.arange(out_h) + 0.5) * height / out_h - 0.5, 0, None)
    x = np.clip((np.arange(out_w) + 0.5) * width / out_w - 0.5, 0, None)
    y0, x0 = y.astype(int), x.astype(int)
    y1, x1 = np.minimum(y0 + 1, height - 1), np.minimum(x0 + 1, width - 1)
    fy, fx = (y - y0)[:, None, None], (x - x0)[:, None]
    level = frame / 255
    upper = level[y0][:, x0] * (1 - fx) + level[y0][:, x1] * fx
    lower = level[y1][:, x0] * (1 - fx) + level[y1][:, x1] * fx
    resized = (upper * (1 - fy) + lower * fy).transpose(2, 0, 1)
    made = VideoViews("reference")((np.stack([frame, frame]), 1.0))["frames"]
    assert (made.dtype, made.shape) == (np.float32, (15, 3, 2, 224, 224))
    for crop, offset in enumerate((0, math.ceil((long - 224) / 2), long - 224)):
        wanted = resized[:, offset : offset + 224] if height > width else resized[:, :, offset : offset + 224]
        for view in range(crop, 15, 3):
            np.testing.assert_allclose(made[view, :, 0], wanted, atol=1e-4)
            np.testing.assert_array_equal(made[view, :, 0], made[view, :, 1])


def test_bindery_frames_are_smoothed_and_close_to_the_exact_ones_where_nothing_is_fine() -> None:
    y, x = np.mgrid[0:480, 0:640]
    smooth = np.stack([x * 255 / 640, y * 255 / 480, (x + y) * 255 / 1120], 2).astype(np.uint8)[None].repeat(4, 0)
    checks = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[None, :, :, None], 3, 3).repeat(4, 0)
    sane, exact = VideoViews()((smooth, 2.0))["frames"], VideoViews("reference")((smooth, 2.0))["frames"]
    assert (sane.dtype, sane.shape) == (np.uint8, exact.shape)
    assert np.abs(sane - 255 * exact).mean() < 1
    assert VideoViews()((checks, 2.0))["frames"].std() < 20 < 255 * VideoViews("reference")((checks, 2.0))["frames"].std()


def test_sizes_that_fit_stay() -> None:
    assert [long_side(*pair) for pair in ((848, 640), (4, 3), (1, 1), (1920, 1080), (640, 1))] == [296, 298, 224, 398, 143_360]


def test_of_two_hours_of_video_little_is_decoded_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.mp4"
    random = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    path.write_bytes(video_file(frames=np.repeat(random, 120, 0), rate_hz=1))
    decoded, taken, timed = 0, 0, seeking.timed_frames

    class Counting(io.FileIO):
        def read(self, size: int = -1, /) -> bytes:
            nonlocal taken
            data = super().read(size) or b""
            taken += len(data)
            return data

    def counted(*args: Any) -> Iterator[tuple[float, Any]]:
        nonlocal decoded
        for frame in timed(*args):
            decoded += 1
            yield frame

    monkeypatch.setattr(seeking, "timed_frames", counted)
    with Counting(path) as file:
        sane = VideoViews()(file)["frames"]
    assert decoded < 60
    assert taken < path.stat().st_size / 2
    exact = VideoViews("reference")(path)["frames"]
    assert np.abs(sane - 255 * exact).mean() < 10
