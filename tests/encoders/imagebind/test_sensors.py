"""ImageBind's depth, thermal and IMU inputs: values by hand, settings that say what they do, and shapes for any medium."""

from __future__ import annotations

import dataclasses
import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from encoders.encoder import build_encoder, seeded_tower
from encoders.errors import DecodeError, SpaceError
from encoders.imagebind.sensors import Brightness, Disparity, Motion
from encoders.media.depth import decode_depth
from encoders.media.imu import decode_imu
from encoders.media.thermal import decode_thermal

G = 9.80665
PAGE = Path(__file__).parents[3] / "docs" / "media.md"
ALL: list[Callable[..., object]] = [Disparity, Brightness, Motion]


def disparity(metres: np.ndarray, **settings: object) -> np.ndarray:
    """(224, 224) of a map in metres."""
    return Disparity(**settings)(metres)["disparity"][0]  # type: ignore[arg-type]


def brightness(values: np.ndarray, **settings: object) -> np.ndarray:
    """(224, 224) of a frame."""
    return Brightness(**settings)(values)["thermal"][0]  # type: ignore[arg-type]


def motion(samples: np.ndarray, rate_hz: float, **settings: object) -> np.ndarray:
    """(6, 2000) of a trace."""
    return Motion(**settings)((samples, rate_hz))["imu"]  # type: ignore[arg-type]


def test_two_metres_at_520_pixels_and_75_millimetres_are_19_5_pixels_of_disparity() -> None:
    # 0.075 m * 520 px / 2 m = 19.5 px; 19.5 / 75 = 0.26
    two_metres = np.full((480, 640), 2000, np.uint16)
    np.testing.assert_allclose(disparity(two_metres), 0.26, rtol=1e-6)
    np.testing.assert_allclose(disparity(two_metres, baseline_m=0.095, focal_length_px=570.0), 0.095 * 570 / 2 / 75, rtol=1e-6)
    np.testing.assert_allclose(disparity(two_metres, max_disparity_px=39.0), 0.5, rtol=1e-6)
    np.testing.assert_allclose(disparity(two_metres, metres_per_unit=0.0005), 0.52, rtol=1e-6)


@pytest.mark.parametrize(("metres", "expected"), [(0.001, 1.0), (0.3, 1.0), (0.52, 1.0), (50.0, 0.0104), (900.0, 0.0104)])
def test_distances_are_clipped_to_50_metres_and_disparities_to_75_pixels(metres: float, expected: float) -> None:
    np.testing.assert_allclose(disparity(np.full((64, 64), metres)), expected, rtol=1e-5)


def test_distances_are_clipped_where_the_settings_say() -> None:
    np.testing.assert_allclose(disparity(np.full((64, 64), 20.0), farthest_m=8.0), 39 / 8 / 75, rtol=1e-6)
    np.testing.assert_allclose(disparity(np.full((64, 64), 0.1), nearest_m=1.0), 39 / 75, rtol=1e-6)


def test_holes_are_left_out_of_every_average_and_are_far_where_nothing_is_known_around_them() -> None:
    metres = np.full((448, 448), 2.0)
    metres[::7, ::5] = 0
    np.testing.assert_allclose(disparity(metres), 0.26, rtol=1e-5)
    metres[:, 224:] = np.nan
    half = disparity(metres)
    np.testing.assert_allclose(half[:, :112], 0.26, rtol=1e-5)
    assert (half[:, 114:] == 0).all()


def test_in_the_reference_profile_holes_are_nearest_as_the_recipe_clips_them() -> None:
    metres = np.full((448, 448), 2.0)
    metres[:, 224:] = 0
    half = disparity(metres, profile="reference")
    np.testing.assert_allclose(half[:, :110], 0.26, rtol=1e-5)
    np.testing.assert_allclose(half[:, 114:], 1.0)


def test_the_focal_length_is_the_settings_else_the_files_else_the_default() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, depth=np.full((480, 640), 2.0), fx=np.array(600.0))
    assert disparity(buffer.getvalue())[0, 0] == pytest.approx(0.3)  # type: ignore[arg-type]
    assert disparity(buffer.getvalue(), focal_length_px=400.0)[0, 0] == pytest.approx(0.2)  # type: ignore[arg-type]
    assert disparity(np.full((480, 640), 2.0))[0, 0] == pytest.approx(0.26)


def test_sun_rgbd_needs_its_setting_alone() -> None:
    rotated = np.full((530, 730), (2000 << 3) & 0xFFFF, np.uint16)
    np.testing.assert_allclose(disparity(rotated, encoding="sunrgbd", farthest_m=8.0), 0.26, rtol=1e-6)


def test_the_short_side_becomes_224_and_the_centre_is_cut_out_as_for_pictures() -> None:
    # 448 wide, 224 high: nothing is scaled, columns 112 to 335 stay. 299 wide: offset 37.5, halves to even: 38.
    for width, first in ((448, 112), (299, 38), (224, 0)):
        ramp = np.tile(np.linspace(0.2, 0.9, width, dtype=np.float32), (224, 1))
        np.testing.assert_allclose(
            brightness(273.15 + 100 * ramp, range_celsius=(0, 100)), ramp[:, first : first + 224], atol=1e-6
        )
    tall = np.tile(np.linspace(1, 3, 448, dtype=np.float32)[:, None], (1, 224))
    np.testing.assert_allclose(disparity(tall), 0.52 / tall[112:336], rtol=1e-5)


def test_scaling_agrees_with_pillow_on_the_whole_map() -> None:
    levels = np.random.default_rng(0).random((300, 517)).astype(np.float32)
    whole = np.asarray(Image.fromarray(levels).resize((224 * 517 // 300, 224), Image.Resampling.BICUBIC))
    first = round((whole.shape[1] - 224) / 2)
    cut = brightness(273.15 + 100 * levels, range_celsius=(0, 100))
    # The long side is 386.03 pixels and is made 386.
    np.testing.assert_allclose(cut, np.clip(whole[:, first : first + 224], 0, 1), atol=2e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (3000, 2), (2, 100_000), (223, 225)])
def test_maps_of_any_shape_give_the_same_shape(shape: tuple[int, int]) -> None:
    for found in (disparity(np.full(shape, 2.0)), brightness(np.full(shape, 300.0)), brightness(np.full(shape, 51, np.uint8))):
        assert (found.shape, found.dtype) == ((224, 224), np.float32)
        assert np.ptp(found) < 1e-6


def test_8_bits_stay_what_the_camera_made_of_them_in_both_profiles() -> None:
    grey = np.random.default_rng(0).integers(60, 200, (480, 640), np.uint8)
    official = np.asarray(Image.fromarray(grey).resize((298, 224), Image.Resampling.BICUBIC))[:, 37:261] / 255
    off = np.abs(brightness(grey, profile="reference") - official) * 255
    assert off.max() < 1.01  # the crop is computed alone, its places rounded otherwise:
    assert (off > 0.01).mean() < 1e-3
    np.testing.assert_allclose(brightness(grey), official, atol=1.01 / 255)


def test_temperatures_are_scaled_by_a_fixed_range_or_by_each_frame() -> None:
    kelvin = np.full((224, 224), 293.15)
    np.testing.assert_allclose(brightness(kelvin, range_celsius=[0, 40]), 0.5, atol=1e-6)
    np.testing.assert_allclose(brightness(kelvin, range_celsius=[0, 40], profile="reference"), 128 / 255, atol=1e-6)
    assert brightness(kelvin, range_celsius=(30, 40)).max() == 0
    assert brightness(kelvin, range_celsius=(-40, 10)).min() == 1
    ramp = np.tile(np.linspace(280, 300, 224), (224, 1))
    for frame in (ramp, ramp - 273.15, (ramp * 100).astype(np.uint16)):
        scaled = brightness(frame)
        assert (scaled.min(), scaled.max()) == (0, 1)
        np.testing.assert_allclose(scaled[0, 112], 0.5, atol=0.01)
    assert brightness(kelvin).max() == 0  # nothing is warmer than anything


def test_declared_counts_are_scaled_by_each_frame_and_undeclared_ones_refused() -> None:
    counts = np.tile(np.linspace(7000, 9000, 224), (224, 1)).astype(np.uint16)
    assert brightness(counts, unit="counts")[0, 112] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(DecodeError, match="declare the unit"):
        brightness(counts)


def test_imu_is_metres_and_radians_per_second_in_six_rows() -> None:
    samples = np.tile([0.0, 0.5, 1.0, 180.0, 0.0, -90.0], (1000, 1))
    found = motion(samples, 200.0, acceleration_unit="g", rotation_unit="deg/s")
    assert (found.shape, found.dtype) == ((6, 2000), np.float32)
    np.testing.assert_allclose(found[:, 7], [0, G / 2, G, np.pi, 0, -np.pi / 2], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("tower_rate_hz", "covered_s"), [(400.0, 5.0), (200.0, 10.0)])
def test_2000_steps_are_5_seconds_or_10_from_the_middle(tower_rate_hz: float, covered_s: float) -> None:
    ramp = np.repeat((np.arange(6000) + 0.5)[:, None] / 200, 6, 1)  # 30 s, each sample its own time in s
    found = motion(ramp, 200.0, tower_rate_hz=tower_rate_hz)[0]
    assert found[0] == pytest.approx(15 - covered_s / 2, abs=0.01)
    assert found[-1] == pytest.approx(15 + covered_s / 2, abs=0.01)


def test_normalised_per_sensor_each_axis_is_centred_and_each_sensor_has_deviation_1() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal([0, 3, G, 0, 0, 1], [1, 2, 3, 0.1, 0.2, 0.3], (2000, 6))
    found = motion(samples, 400.0, normalise="per_sensor")
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose([np.sqrt((found[:3] ** 2).mean()), np.sqrt((found[3:] ** 2).mean())], 1, rtol=1e-4)
    assert found[2].std() == pytest.approx(3 * found[0].std(), rel=0.1)
    still = motion(np.tile([0, 0, G, 0, 0, 0], (500, 1)), 100.0, normalise="per_sensor")
    assert np.abs(still).max() < 1


def test_a_gap_is_an_error_unless_the_settings_bridge_it() -> None:
    times = np.delete(np.arange(1000) / 100, slice(400, 540))
    rows = "\n".join(f"{t},0,0,9.8,0,0,0" for t in times)
    media = f"t_s,ax,ay,az,gx,gy,gz\n{rows}".encode()
    with pytest.raises(DecodeError, match="no samples for"):
        Motion()(media)
    np.testing.assert_allclose(Motion(max_gap_s=2.0)(media)["imu"][2], 9.8, rtol=1e-5)


def test_decoded_media_come_back_as_they_are() -> None:
    depth, thermal, trace = decode_depth(np.ones((4, 4))), decode_thermal(np.full((4, 4), 300.0)), decode_imu(np.zeros((9, 6)))
    assert Disparity().decode(depth) is depth
    assert Brightness().decode(thermal) is thermal
    assert Motion().decode(trace) is trace


@pytest.mark.parametrize("make", ALL)
def test_settings_pickle_and_compare(make: Callable[..., object]) -> None:
    assert pickle.loads(pickle.dumps(make())) == make()
    assert Brightness(range_celsius=[0, 40]) == Brightness(range_celsius=(0, 40))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (Disparity, {"profile": "official"}),
        (Disparity, {"encoding": "kitti"}),
        (Disparity, {"focal_length_px": 0.0}),
        (Disparity, {"baseline_m": -0.1}),
        (Disparity, {"metres_per_unit": float("nan")}),
        (Disparity, {"nearest_m": 60.0}),
        (Disparity, {"std": 0.0}),
        (Brightness, {"profile": ""}),
        (Brightness, {"unit": "fahrenheit"}),
        (Brightness, {"kelvin_per_unit": 0.0}),
        (Brightness, {"range_celsius": (40, 0)}),
        (Brightness, {"range_celsius": (1, 2, 3)}),
        (Motion, {"normalise": "yes"}),
        (Motion, {"acceleration_unit": "gal"}),
        (Motion, {"rotation_unit": "infer"}),
        (Motion, {"rate_hz": 0.0}),
        (Motion, {"tower_rate_hz": float("inf")}),
        (Motion, {"max_gap_s": -1.0}),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(make: Callable[..., object], settings: dict[str, object]) -> None:
    with pytest.raises(SpaceError, match=next(iter(settings))):
        make(**settings)


@pytest.mark.parametrize("modality", ["depth", "thermal"])
def test_mean_and_deviation_of_the_settings_are_the_towers_first_layer(modality: str) -> None:
    small = {"sizes": {"depth_embed_dim": 48, "depth_num_heads": 4, "thermal_embed_dim": 48, "thermal_num_heads": 4}}
    usual = build_encoder(f"imagebind/{modality}", small)
    raw = build_encoder(f"imagebind/{modality}", {**small, "mean": 0.0, "std": 1.0})
    assert (raw.settings["mean"], raw.settings["std"]) == (0.0, 1.0)
    seen, unscaled = seeded_tower(usual, 0).eval(), seeded_tower(raw, 0).eval()
    picture = torch.rand(1, 1, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(seen(picture), unscaled((picture - usual.settings["mean"]) / usual.settings["std"]))
        assert not torch.allclose(seen(picture), unscaled(picture))


@pytest.mark.parametrize(("modality", "make"), [("depth", Disparity), ("thermal", Brightness), ("imu", Motion)])
def test_the_page_names_every_setting_with_its_default(modality: str, make: type) -> None:
    table = PAGE.read_text().partition(f"| setting of `imagebind/{modality}` |")[2].partition("\n\n")[0]
    stated = [(name, default.strip('"')) for name, default in re.findall(r"^\| `(\w+)` \| `(.+?)` \|", table, re.MULTILINE)]
    assert stated == [(field.name, str(field.default)) for field in dataclasses.fields(make)]
