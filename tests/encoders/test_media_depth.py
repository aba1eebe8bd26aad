"""Depth: what renderers and data sets write becomes metres, intrinsics beside it are found, what is no map is refused."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
from functools import partial

import numpy as np
import OpenEXR
import pytest
from PIL import Image
from sample_media import distances_mm, exr_file, npy_file, npz_file, picture_file

from encoders.errors import DecodeError, MediaError, TooLargeError
from encoders.media.depth import decode_depth
from encoders.media.grids import MAX_NPZ_MEMBERS, NPY_MAGIC

METRES = distances_mm().astype(np.float32) / 1000
LOSSLESS = ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "ZSTD", "HTJ2K32")
LOSSY = ("PXR24", "B44", "B44A", "DWAA", "DWAB")


@pytest.mark.parametrize("compression", LOSSLESS + LOSSY)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_exr_of_every_compression_is_metres(compression: str, dtype: type) -> None:
    metres = decode_depth(exr_file({"Z": METRES.astype(dtype)}, compression)).metres
    exact = compression in LOSSLESS and dtype is np.float32
    np.testing.assert_allclose(metres[20:], METRES[20:], rtol=0 if exact else 0.02)
    assert compression in LOSSY or np.isnan(metres[:20, :20]).all()


def test_exr_of_integers_is_millimetres() -> None:
    np.testing.assert_allclose(decode_depth(exr_file({"Z": distances_mm().astype(np.uint32)})).metres[20:], METRES[20:], 1e-6)


def test_of_an_exrs_channels_the_measurement_is_found_by_name_and_anything_else_is_refused() -> None:
    other = np.full_like(METRES, 5)
    for channels in (
        {"whatever": METRES},
        {"Z": METRES, "A": other},
        {"Y": METRES, "A": other},
        {"R": other, "G": other, "B": other, "view.left.Depth": METRES, "Z": other},
        {"RGBA": np.stack([METRES] * 4, 2)},
        {"RGB": np.stack([METRES] * 3, 2)},
    ):
        np.testing.assert_array_equal(decode_depth(exr_file(channels)).metres[20:], METRES[20:])
    for channels in ({"RGB": np.stack([METRES, other, METRES], 2)}, {"a": METRES, "b": other}, {"R": METRES, "G": METRES}):
        with pytest.raises(DecodeError, match="none of the EXR's channels"):
            decode_depth(exr_file(channels))


def test_where_a_renderers_ray_met_nothing_nothing_was_measured() -> None:
    metres = np.full((8, 8), 3, np.float32)
    metres[0, :4] = (65_504, 1e10, np.inf, np.nan)
    decoded = decode_depth(exr_file({"Z": metres})).metres
    assert np.isnan(decoded[0, :4]).all()
    assert (decoded[1:] == 3).all()


def test_a_tiled_exr_is_read_and_a_deep_one_refused() -> None:
    tiled = exr_file({"Z": METRES}, type=OpenEXR.tiledimage, tiles=OpenEXR.TileDescription())
    np.testing.assert_array_equal(decode_depth(tiled).metres[20:], METRES[20:])
    deep = np.empty((4, 5), object)
    for place in np.ndindex(4, 5):
        deep[place] = np.ones(3, np.float32)
    with pytest.raises(DecodeError, match="one channel of numbers"):
        decode_depth(exr_file({"Z": deep}, "ZIPS", type=OpenEXR.deepscanline))


def test_a_damaged_exr_is_a_decode_error_wherever_it_is_cut_and_a_huge_one_is_refused_by_its_header() -> None:
    data = exr_file({"Z": METRES})
    for cut in (4, 8, 60, 200, 300, 400, len(data) // 2, len(data) - 3):
        with pytest.raises(DecodeError, match="EXR"):
            decode_depth(data[:cut])
    at = data.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    for window, error in (
        ((0, 0, 99_999, 99_999), TooLargeError),
        ((0, 0, 14_999, 14_999), TooLargeError),
        ((0, 0, 11_999, 11_999), DecodeError),
        ((0, 0, -5, -5), DecodeError),
    ):
        with pytest.raises(error):
            decode_depth(data[:at] + struct.pack("<4i", *window) + data[at + 16 :])


def test_npz_holds_the_map_by_name_or_as_its_only_map() -> None:
    camera = np.eye(3)
    for file in (
        npz_file(depth=METRES, mask=np.ones((96, 128))),
        npz_file(whatever=METRES, K=camera, id=np.array(7)),
        npz_file(Depth=METRES, other=METRES),
    ):
        np.testing.assert_array_equal(decode_depth(file).metres[20:], METRES[20:])
    with pytest.raises(DecodeError, match="an array called 'depth' or a single map, this one has left, right"):
        decode_depth(npz_file(left=METRES, right=METRES))
    with pytest.raises(DecodeError, match="one channel of numbers"):
        decode_depth(npz_file(depth=np.zeros((5, 5, 3))))


def test_npz_that_is_damaged_or_holds_objects_or_would_unpack_to_gigabytes_is_refused() -> None:
    good = npz_file(depth=METRES)
    for cut in (10, len(good) // 2, len(good) - 10):
        with pytest.raises(DecodeError, match="NPZ"):
            decode_depth(good[:cut])
    for at in (*range(60), *range(-120, 0)):  # its headers, its directory
        broken = bytearray(good)
        broken[at] ^= 0x80
        with contextlib.suppress(MediaError):
            decode_depth(bytes(broken))
    with pytest.raises(DecodeError, match="allow_pickle=False"):
        decode_depth(npz_file(depth=np.array([{"a": 1}], object)))
    with pytest.raises(TooLargeError, match="when unpacked"):
        decode_depth(_zip("depth.npy", bytes(123_457)).replace(struct.pack("<I", 123_457), struct.pack("<I", 2_000_000_000)))
    with pytest.raises(TooLargeError, match="arrays"):
        decode_depth(npz_file(**{f"a{k}": METRES[:1, :1] for k in range(MAX_NPZ_MEMBERS + 1)}))
    with pytest.raises(DecodeError, match="this one has nothing"):
        decode_depth(_zip("readme.txt", b"read me"))


def test_an_npy_that_promises_more_than_it_holds_is_refused_before_room_is_made() -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 999999), }".ljust(117) + b"\n"
    huge = NPY_MAGIC + bytes([1, 0]) + struct.pack("<H", len(header)) + header + bytes(400)
    with pytest.raises(DecodeError, match="cut off"):
        decode_depth(huge)


@pytest.mark.parametrize(
    ("beside", "focal_length_px"),
    [
        ({"fx": 140.0}, 140.0),
        ({"focal_length_px": 150.0, "fx": 140.0}, 150.0),
        ({"K": np.diag([160.0, 161.0, 1.0])}, 160.0),
        ({"intrinsics": np.diag([160.0, 161.0, 1.0])}, 160.0),
        ({"camera_matrix": np.eye(4) * 160}, None),  # not 3 x 3
        ({"fx": 0.0}, None),
        ({"fx": np.nan}, None),
        ({"fx": 1.2}, None),  # metres? millimetres? no pixels for sure
        ({"fx": 1e6}, None),
        ({}, None),
    ],
)
def test_a_focal_length_beside_the_map_is_found_if_a_camera_can_have_it(
    beside: dict[str, float | np.ndarray], focal_length_px: float | None
) -> None:
    media = npz_file(depth=METRES, **{k: np.asarray(v) for k, v in beside.items()})
    assert decode_depth(media).focal_length_px == focal_length_px


def test_a_focal_length_in_an_exr_header_is_found() -> None:
    assert decode_depth(exr_file({"Z": METRES}, fx=140.0)).focal_length_px == 140.0
    assert decode_depth(exr_file({"Z": METRES})).focal_length_px is None


def test_rotated_bits_of_sun_rgbd_become_millimetres_by_the_setting() -> None:
    rotated = (distances_mm() << 3) | (distances_mm() >> 13)
    media = picture_file("PNG", Image.fromarray(rotated))
    np.testing.assert_allclose(decode_depth(media, encoding="sunrgbd").metres[20:], METRES[20:], rtol=1e-6)
    np.testing.assert_allclose(decode_depth(media).metres[20:], 8 * METRES[20:], rtol=1e-6)
    with pytest.raises(DecodeError, match="sunrgbd"):
        decode_depth(METRES, encoding="sunrgbd")


def test_the_unit_of_floats_can_be_set_apart_from_that_of_integers() -> None:
    millimetres = partial(decode_depth, metres_per_float=0.001)
    np.testing.assert_allclose(millimetres(npy_file(METRES * 1000)).metres[20:], METRES[20:], rtol=1e-6)
    np.testing.assert_allclose(millimetres(distances_mm()).metres[20:], METRES[20:], rtol=1e-6)


def test_numbers_beyond_float32_are_not_measured_and_one_pixel_is_a_map() -> None:
    assert np.isnan(decode_depth(np.array([[1e300, 2.0]])).metres).tolist() == [[True, False]]
    assert decode_depth(np.full((1, 1), 2000, np.uint16)).metres.tolist() == [[2.0]]
    with pytest.raises(TooLargeError, match="pixels"):
        decode_depth(np.broadcast_to(np.uint16(1), (20_000, 20_000)))


def _zip(name: str, data: bytes) -> bytes:
    """An archive of one file, not compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()
