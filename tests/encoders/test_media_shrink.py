"""Pillow's pixels reach torch as they are, and come out as small as asked for."""

import numpy as np
import pytest
from PIL import Image
from sample_media import picture

from encoders.media.shrink import pixels_of, shrunk


@pytest.mark.parametrize("size", [(1, 1), (500, 375), (31, 700), (4000, 3000)], ids=str)
def test_pixels_are_those_of_the_picture(size: tuple[int, int]) -> None:
    image = Image.fromarray(picture(*size))
    np.testing.assert_array_equal(pixels_of(image)[..., :3].numpy(), np.asarray(image))
    cropped = image.crop((size[0] // 3, 0, size[0], size[1]))
    np.testing.assert_array_equal(pixels_of(cropped)[..., :3].numpy(), np.asarray(cropped))


def test_pixels_outlive_their_picture() -> None:
    image = Image.fromarray(picture(320, 240))
    levels, kept = np.array(image), pixels_of(image)
    del image
    others = [Image.new("RGB", (320, 240), (9, 9, 9)) for _ in range(20)]  # that would be written over it
    np.testing.assert_array_equal(kept[..., :3].numpy(), levels)
    assert len(others) == 20


@pytest.mark.parametrize("filtered", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(500, 375), (1600, 1200), (60, 45)], ids=str)
def test_shrunk_pictures_are_pillows_but_for_a_level(filtered: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(picture(*size))
    found = shrunk(pixels_of(image), (90, 120), filtered)  # type: ignore[arg-type]
    expected = np.asarray(image.resize((120, 90), Image.Resampling[filtered.upper()]))
    assert found.shape[:2] == (90, 120) and found.dtype == np.uint8
    assert np.abs(found[..., :3].astype(int) - expected).max() <= 1
