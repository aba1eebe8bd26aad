"""Thermal: declared and inferred units, JPEGs of cameras, the raw values that FLIR's carry; what cannot be told is refused."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image
from sample_media import exr_file, npy_file, npz_file, picture, picture_file, temperatures_ck

from encoders.errors import DecodeError, TooLargeError
from encoders.media.thermal import decode_thermal

KELVIN = temperatures_ck().astype(np.float32) / 100
R1, B, F, O, R2 = 16528.178, 1427.5, 1.0, -1307, 0.012258549  # noqa: E741 of a real camera's kind


def test_declared_units_become_kelvin() -> None:
    for media, unit, kelvin_per_unit in (
        (KELVIN, "kelvin", 0.01),
        (KELVIN - 273.15, "celsius", 0.01),
        (np.rint(KELVIN * 10).astype(np.uint16), "kelvin", 0.1),
        (np.rint(KELVIN * 64).astype(np.uint16), "kelvin", 1 / 64),
        (np.rint((KELVIN - 273.15) * 100).astype(np.int16), "celsius", 0.01),
        (npz_file(thermal=KELVIN), "kelvin", 0.01),
        (exr_file({"Y": KELVIN}), "kelvin", 0.01),
    ):
        frame = decode_thermal(media, unit, kelvin_per_unit)
        assert frame.absolute
        np.testing.assert_allclose(frame.values, KELVIN, atol=0.051)


def test_counts_become_brightness_by_the_frames_own_percentiles() -> None:
    counts = np.linspace(7000, 9000, 100 * 100).reshape(100, 100).astype(np.uint16)
    frame = decode_thermal(counts, "counts")
    assert not frame.absolute
    assert (frame.values.min(), frame.values.max()) == (0, 1)
    assert frame.values[50, 0] == pytest.approx(0.5, abs=0.01)
    assert decode_thermal(np.full((4, 4), 7000, np.uint16), "counts").values.max() == 0


@pytest.mark.parametrize(
    ("low", "high", "unit"),
    [
        (250, 330, "kelvin"),
        (273, 1200, "kelvin"),
        (-40, 60, "celsius"),
        (15, 190, "celsius"),
        (15, 400, None),  # a flame in Celsius, or nonsense
        (0, 16_383, None),  # counts
        (0, 40_000, None),
        (-300, 20, None),
    ],
)
def test_a_unit_is_inferred_only_where_the_values_leave_no_doubt(low: float, high: float, unit: str | None) -> None:
    values = np.linspace(low, high, 64 * 64, dtype=np.float32).reshape(64, 64)
    if unit is None:
        with pytest.raises(DecodeError, match="neither kelvin nor degrees Celsius for certain; declare the unit"):
            decode_thermal(values, "infer")
    else:
        offset = 273.15 if unit == "celsius" else 0
        np.testing.assert_allclose(decode_thermal(values, "infer").values, values + offset, rtol=1e-6)


def test_integers_are_inferred_in_their_step_and_raw_counts_of_14_bits_are_refused() -> None:
    np.testing.assert_allclose(decode_thermal(temperatures_ck(), "infer").values, KELVIN, rtol=1e-6)
    with pytest.raises(DecodeError, match="declare the unit"):
        decode_thermal(np.linspace(7000, 9000, 4096).reshape(64, 64).astype(np.uint16), "infer")


def test_values_below_absolute_zero_or_no_numbers_are_refused_in_every_unit() -> None:
    for unit in ("kelvin", "celsius", "counts", "infer"):
        for bad in (np.nan, np.inf, 1e300):
            frame = np.full((8, 8), 20.0)
            frame[0, 0] = bad
            with pytest.raises(DecodeError, match="no kelvin"):
                decode_thermal(frame, unit)
    with pytest.raises(DecodeError, match="below 0"):
        decode_thermal(np.full((8, 8), -300.0), "celsius")


def test_8_bits_are_brightness_whatever_the_unit() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for unit in ("kelvin", "celsius", "counts", "infer"):
        frame = decode_thermal(grey, unit)
        assert not frame.absolute
        np.testing.assert_array_equal(frame.values, grey / np.float32(255))


def test_a_grey_jpeg_is_brightness_in_one_channel_or_three_and_false_colours_are_refused() -> None:
    grey = np.linspace(0, 255, 128, dtype=np.uint8)[None].repeat(96, 0)
    for image in (Image.fromarray(grey), Image.fromarray(grey).convert("RGB")):
        frame = decode_thermal(picture_file("JPEG", image))
        assert (frame.absolute, frame.mime) == (False, "image/jpeg")
        np.testing.assert_allclose(frame.values, grey / 255, atol=0.02)
    with pytest.raises(DecodeError, match="false colours"):
        decode_thermal(picture_file("JPEG"))
    with pytest.raises(DecodeError):
        decode_thermal(picture_file("JPEG", Image.fromarray(grey))[:400])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["raw", "png"])
@pytest.mark.parametrize("emissivity", [1.0, 0.95])
def test_a_flir_jpeg_is_kelvin_by_the_raw_values_and_constants_it_carries(order: str, kind: str, emissivity: float) -> None:
    raw = np.linspace(10_000, 20_000, 60 * 80).reshape(60, 80).astype(np.uint16)
    frame = decode_thermal(flir_jpeg(raw, order, kind, emissivity), "infer")
    assert (frame.absolute, frame.values.shape, frame.mime) == (True, (60, 80), "image/jpeg")
    # Back from kelvin to what the sensor saw: its own surface and the reflection of 20 degrees Celsius.
    back = emissivity * _signal(frame.values.astype(np.float64)) + (1 - emissivity) * _signal(293.15)
    np.testing.assert_allclose(back, raw, rtol=1e-4)


def test_a_temperature_of_a_flir_jpeg_by_hand() -> None:
    # 293.15 K: 16528.178 / (0.012258549 (e^(1427.5 / 293.15) - 1)) + 1307 = 11,738
    frame = decode_thermal(flir_jpeg(np.full((4, 4), 11_738, np.uint16)))
    np.testing.assert_allclose(frame.values, 293.15, atol=0.01)


def test_a_flir_jpeg_without_raw_values_is_a_picture_even_in_false_colours() -> None:
    bare = picture_file("JPEG", Image.fromarray(picture()))
    segment = b"\xff\xe1" + struct.pack(">H", 2 + 8 + 4) + b"FLIR\0\x01\0\0" + b"none"
    frame = decode_thermal(bare[:2] + segment + bare[2:])
    assert (frame.absolute, frame.values.shape) == (False, (120, 160))


def test_a_damaged_flir_part_is_refused_and_never_read_beyond_its_end() -> None:
    raw = np.full((60, 80), 12_000, np.uint16)
    whole = flir_block(raw)
    for block in (whole[:30], whole[:100], whole[:2000], whole[:-10]):
        with pytest.raises(DecodeError, match="FLIR"):
            decode_thermal(wrap(block))
    for constants in ((0, B, F, O, R2), (R1, B, F, O, 0), (np.nan, B, F, O, R2), (R1, B, F, -30_000, R2)):
        with pytest.raises(DecodeError, match="constants"):
            decode_thermal(wrap(flir_block(raw, constants=constants)))
    with pytest.raises(TooLargeError):
        decode_thermal(wrap(flir_block(raw, size=(60_000, 60_000))))
    with pytest.raises(DecodeError):
        decode_thermal(wrap(flir_block(raw, size=(800, 600))))


def test_pieces_of_a_flir_part_are_put_in_order_by_their_numbers() -> None:
    raw = np.linspace(10_000, 20_000, 240 * 320).reshape(240, 320).astype(np.uint16)  # more than one segment holds
    pieces = segments(flir_block(raw))
    assert len(pieces) > 2
    bare = picture_file("JPEG")
    shuffled = bare[:2] + b"".join(pieces[::-1]) + bare[2:]
    np.testing.assert_array_equal(decode_thermal(shuffled).values, decode_thermal(wrap(flir_block(raw))).values)


def test_one_pixel_is_a_frame_and_objects_are_refused() -> None:
    assert decode_thermal(np.full((1, 1), 29_315, np.uint16), "infer").values[0, 0] == pytest.approx(293.15)
    with pytest.raises(DecodeError, match="allow_pickle=False"):
        decode_thermal(npy_file(np.array([[{}]], object)))


def _signal(kelvin: np.ndarray | float) -> np.ndarray:
    return np.asarray(R1 / (R2 * (np.exp(B / kelvin) - F)) - O)


def flir_jpeg(raw: np.ndarray, order: str = "<", kind: str = "raw", emissivity: float = 1.0) -> bytes:
    """A false-colour JPEG with the raw values and constants of a camera."""
    return wrap(flir_block(raw, order, kind, emissivity))


def flir_block(
    raw: np.ndarray,
    order: str = "<",
    kind: str = "raw",
    emissivity: float = 1.0,
    constants: tuple[float, ...] = (R1, B, F, O, R2),
    size: tuple[int, int] | None = None,
) -> bytes:
    """An FFF block: header, a directory of two records, the records."""
    width, height = size or raw.shape[::-1]
    if kind == "png":
        buffer = io.BytesIO()
        Image.fromarray(raw.byteswap()).save(buffer, "PNG")
        pixels = buffer.getvalue()
    else:
        pixels = raw.astype(f"{order}u2").tobytes()
    record = struct.pack(f"{order}HHH", 2, width, height).ljust(32, b"\0") + pixels
    camera = bytearray(0x400)
    r1, b, f, o, r2 = constants
    struct.pack_into(f"{order}H", camera, 0, 2)
    struct.pack_into(f"{order}f", camera, 0x20, emissivity)
    struct.pack_into(f"{order}f", camera, 0x28, 293.15)
    struct.pack_into(f"{order}3f", camera, 0x58, r1, b, f)
    struct.pack_into(f"{order}if", camera, 0x308, o, r2)
    start = 64 + 2 * 32
    directory = b"".join(
        struct.pack(">HHIIIIIII", number, 1, 100, 1, offset, length, 0, 0, 0)
        for number, offset, length in ((32, start, len(camera)), (1, start + len(camera), len(record)))
    )
    header = b"FFF\0" + b"camera".ljust(16, b"\0") + struct.pack(">III", 101, 64, 2)
    return header.ljust(64, b"\0") + directory + bytes(camera) + record


def segments(block: bytes) -> list[bytes]:
    """The APP1 segments that carry a block."""
    pieces = [block[k : k + 65_000] for k in range(0, len(block), 65_000)]
    return [
        b"\xff\xe1" + struct.pack(">H", 2 + 8 + len(piece)) + b"FLIR\0\x01" + bytes([number, len(pieces) - 1]) + piece
        for number, piece in enumerate(pieces)
    ]


def wrap(block: bytes) -> bytes:
    """A JPEG in false colours that carries a block."""
    bare = picture_file("JPEG")
    return bare[:2] + b"".join(segments(block)) + bare[2:]
