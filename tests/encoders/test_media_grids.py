"""Depth and thermal: what was measured keeps its unit, what was not is left out, pictures of measurements are refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_media import distances_mm, npy_file, picture, picture_file, sample_files, temperatures_ck

from encoders.encoder import build_encoder
from encoders.errors import DecodeError
from encoders.media.depth import decode_depth, describe_depth
from encoders.media.imu import decode_imu
from encoders.media.thermal import decode_thermal, describe_thermal


@pytest.mark.parametrize("name", sorted(sample_files("depth")))
def test_every_format_of_depth_is_metres_with_holes(name: str) -> None:
    metres = decode_depth(sample_files("depth")[name]).metres
    assert np.isnan(metres[:20, :20]).all()
    np.testing.assert_allclose(metres[20:], distances_mm()[20:] / 1000, rtol=1e-5)


def test_the_unit_of_integer_depth_can_be_set_and_floats_are_metres() -> None:
    media = picture_file("PNG", Image.fromarray(distances_mm()))
    np.testing.assert_allclose(decode_depth(media, 0.0002).metres[50], distances_mm()[50] * 0.0002, rtol=1e-5)
    floats = distances_mm() / np.float32(1000)
    np.testing.assert_allclose(decode_depth(floats, 0.0002).metres[50], floats[50])
    fifth = build_encoder("demo/depth", {"metres_per_unit": 0.0002})
    assert fifth.preprocess(media)["depth"].mean() < build_encoder("demo/depth").preprocess(media)["depth"].mean()


def test_zero_negative_nan_and_infinite_distances_are_holes_and_do_not_spoil_their_neighbours() -> None:
    metres = np.full((128, 128), 2.0, np.float32)
    metres[::2, ::3] = [[v] for v in np.resize([0, -1, np.nan, np.inf], 64)]
    depth = decode_depth(metres)
    assert np.isnan(depth.metres[::2, ::3]).all()
    np.testing.assert_allclose(depth.square(32), 2.0, rtol=1e-5)
    pixels = build_encoder("demo/depth").preprocess(metres)["depth"]
    assert len(np.unique(pixels)) == 1


def test_demo_depth_is_logarithmic_and_zero_where_nothing_was_measured() -> None:
    preprocess = build_encoder("demo/depth").preprocess
    grey = [int(preprocess(np.full((64, 64), m, np.float32))["depth"][0, 0, 0]) for m in (0.1, 0.3, 3.0, 30.0, 90.0)]
    assert grey == [1, 1, 128, 255, 255]
    hole = np.full((64, 64), 3.0, np.float32)
    hole[:32] = np.nan
    assert set(preprocess(hole)["depth"][0, :, 0]) == {0, 128}


@pytest.mark.parametrize("decode", [decode_depth, decode_thermal])
def test_pictures_objects_and_damage_are_refused(decode: object) -> None:
    bad = [
        picture_file("PNG"),
        picture(),
        npy_file(np.array([{"a": 1}], object)),
        npy_file(np.zeros(5)),
        npy_file(np.zeros((3, 4, 5))),
        npy_file(np.zeros((4, 4), complex)),
        npy_file(distances_mm())[:200],
        picture_file("PNG", Image.fromarray(distances_mm()))[:150],
        picture_file("TIFF", Image.fromarray(distances_mm()))[:1500],
    ]
    for media in bad:
        with pytest.raises(DecodeError):
            decode(media)  # type: ignore[operator]


def test_nothing_in_an_npy_is_ever_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    media = npy_file(np.array([Trap()], object))
    np.load(io.BytesIO(media), allow_pickle=True)
    assert (tmp_path / "sprung").exists()  # the trap works
    (tmp_path / "sprung").unlink()
    for decode in (decode_depth, decode_thermal, decode_imu):
        with pytest.raises(DecodeError, match="allow_pickle=False"):
            decode(media)
    assert not (tmp_path / "sprung").exists()


def test_depth_of_8_bits_or_without_any_distance_is_refused() -> None:
    with pytest.raises(DecodeError, match="8 bits"):
        decode_depth(picture_file("PNG", Image.fromarray(picture()[:, :, 0])))
    with pytest.raises(DecodeError, match="nothing was measured"):
        decode_depth(np.zeros((4, 4), np.uint16))


@pytest.mark.parametrize("name", sorted(sample_files("thermal")))
def test_every_format_of_thermal_is_kelvin(name: str) -> None:
    frame = decode_thermal(sample_files("thermal")[name])
    assert frame.absolute
    np.testing.assert_allclose(frame.values, temperatures_ck() / 100, rtol=1e-5)


def test_demo_thermal_has_one_scale_for_temperatures_and_stretches_what_has_none() -> None:
    preprocess = build_encoder("demo/thermal").preprocess
    freezing, boiling = (int(preprocess(np.full((64, 64), k, np.float32))["thermal"][0, 0, 0]) for k in (273.15, 373.15))
    assert (freezing, boiling) == (round(30 / 130 * 255), 255)
    brightness = np.full((96, 128), 100, np.uint8)
    brightness[30:60, 40:80] = 140
    stretched = preprocess(brightness)["thermal"]
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert not decode_thermal(brightness).absolute
    assert preprocess(np.full((8, 8), 7, np.uint8))["thermal"].max() == 0


def test_temperatures_that_are_no_numbers_or_below_zero_kelvin_are_refused() -> None:
    for value in (np.nan, np.inf, -4.0):
        frame = np.full((4, 4), 300.0)
        frame[1, 1] = value
        with pytest.raises(DecodeError, match="kelvin"):
            decode_thermal(frame)


def test_facts_show_the_map_in_false_colours_with_near_and_hot_light() -> None:
    depth, thermal = describe_depth(decode_depth(distances_mm())), describe_thermal(decode_thermal(temperatures_ck()))
    for facts in (depth, thermal):
        assert (facts.width, facts.height) == (128, 96)
        assert facts.preview is not None
    near = np.asarray(Image.open(io.BytesIO(depth.preview or b"")).convert("L")).astype(int)
    hot = np.asarray(Image.open(io.BytesIO(thermal.preview or b"")).convert("L")).astype(int)
    assert near[60, 5] > near[60, 120] + 100
    assert hot[45, 60] > hot[10, 10] + 100
