"""Small media of every modality and of many formats, made here. In: a modality. Out: files by name, as bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import av
import numpy as np
import OpenEXR
import pyarrow as pa
import pyarrow.parquet
import soundfile
from PIL import Image

IMU_COLUMNS = ("ax_mps2", "ay_mps2", "az_mps2", "gx_radps", "gy_radps", "gz_radps")
# Between vectors by the same weights: where these lie in memory, some processors add up in another order.
SAME = 1e-6


def sample(modality: str) -> bytes:
    """One file of the modality: the most usual format."""
    return next(iter(sample_files(modality).values()))


@cache
def sample_files(modality: str) -> dict[str, bytes]:
    """Files of one modality in every format the tests know, the most usual first."""
    return dict(_MAKERS[modality]())


def picture(width: int = 160, height: int = 120) -> np.ndarray:
    """uint8 (H, W, 3): a gradient, a bright square, some noise."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x * 255 / width, y * 255 / height, np.full(x.shape, 90)], 2)
    rgb[height // 4 : height // 2, width // 4 : width // 2] = (250, 240, 40)
    return np.clip(rgb + np.random.default_rng(0).normal(0, 3, rgb.shape), 0, 255).astype(np.uint8)


def picture_file(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    """The picture in a format that Pillow writes."""
    buffer = io.BytesIO()
    (image or Image.fromarray(picture())).save(buffer, kind, **options)
    return buffer.getvalue()


def tone(seconds: float = 2.5, rate_hz: int = 16_000, hz: float = 440.0) -> np.ndarray:
    """float32 (S,): a tone that grows louder."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.4 * np.sin(2 * np.pi * hz * time_s) * (0.3 + 0.7 * time_s / max(seconds, 1e-9))).astype(np.float32)


def sound_file(kind: str, wave: np.ndarray, rate_hz: int, **options: str) -> bytes:
    """The waveform (S,) or (S, C) in a format that libsndfile writes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate_hz, format=kind, **options)
    return buffer.getvalue()


def video_file(
    kind: str = "mp4",
    frames: np.ndarray | None = None,
    rate_hz: int = 10,
    codec: str = "libx264",
    sound: np.ndarray | None = None,
    keyframe_s: float = 2.0,
    **options: str,
) -> bytes:
    """Frames uint8 (N, H, W, 3) and a mono 16 kHz sound in a container that FFmpeg writes; N 0 leaves the video out."""
    frames = moving() if frames is None else frames
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind, options=options) as container:
        if len(frames):
            stream = container.add_stream(codec, rate=rate_hz)
            stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
            stream.gop_size = round(keyframe_s * rate_hz)
        if sound is not None:
            track = container.add_stream(
                "aac" if kind not in ("webm",) else "libopus", rate=48_000 if kind == "webm" else 16_000
            )
            track.layout = "mono"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if len(frames):
            container.mux(stream.encode())
        if sound is not None:
            whole = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            whole.sample_rate, whole.pts, whole.time_base = 16_000, 0, Fraction(1, 16_000)
            resampler = av.AudioResampler(track.format, "mono", track.rate, track.codec_context.frame_size or 1024)
            for piece in [*resampler.resample(whole), *resampler.resample(None)]:
                container.mux(track.encode(piece))
            container.mux(track.encode())
    return buffer.getvalue()


def moving(count: int = 20, height: int = 96, width: int = 128) -> np.ndarray:
    """uint8 (N, H, W, 3): frame i is grey of level 10 + 10 i (20 frames), with a stripe."""
    frames = np.stack([np.full((height, width, 3), 10 + 200 * i // count, np.uint8) for i in range(count)])
    frames[:, : height // 8] = (200, 40, 40)
    return frames


def trace(count: int = 250) -> np.ndarray:
    """float32 (T, 6): gravity along z, a shake along x, a slow turn around z."""
    time_s = np.arange(count)[:, None] / 100
    columns = [2 * np.sin(9 * time_s), 0 * time_s, 9.80665 + 0 * time_s, 0 * time_s, 0 * time_s, np.cos(2 * time_s)]
    return np.concatenate(columns, 1).astype(np.float32)


def csv_file(samples: np.ndarray, columns: tuple[str, ...] = IMU_COLUMNS, rate_hz: float | None = 100.0) -> bytes:
    """Rows of a trace under these column names, behind a column `t_s` if there is a rate."""
    table = samples if rate_hz is None else np.column_stack([np.arange(len(samples)) / rate_hz, samples])
    names = columns if rate_hz is None else ("t_s", *columns)
    lines = [",".join(names), *(",".join(f"{value:.9g}" for value in row) for row in table)]
    return "\n".join(lines).encode()


def npy_file(values: np.ndarray) -> bytes:
    """An NPY file."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=values.dtype == object)
    return buffer.getvalue()


def npz_file(**arrays: np.ndarray) -> bytes:
    """A compressed NPZ file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def exr_file(channels: dict[str, np.ndarray], compression: str = "ZIP", **header: object) -> bytes:
    """An EXR of these channels."""
    buffer = io.BytesIO()
    settings = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION"), "type": OpenEXR.scanlineimage, **header}
    OpenEXR.File(settings, channels).write(buffer)
    return buffer.getvalue()


def distances_mm() -> np.ndarray:
    """uint16 (96, 128): a slope from 1 to 8 m with a hole where nothing was measured."""
    slope = np.linspace(1000, 8000, 128)[None].repeat(96, 0).astype(np.uint16)
    slope[:20, :20] = 0
    return slope


def temperatures_ck() -> np.ndarray:
    """uint16 (96, 128) centikelvin: 10 degrees Celsius with a body of 37."""
    field = np.full((96, 128), 28_315, np.uint16)
    field[30:60, 40:80] = 31_015
    return field


def _images() -> Iterator[tuple[str, bytes]]:
    for name, kind in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("gif", "GIF"), ("bmp", "BMP"), ("tiff", "TIFF")):
        yield f"a.{name}", picture_file(kind)


def _videos() -> Iterator[tuple[str, bytes]]:
    yield "a.mp4", video_file("mp4", sound=tone())
    for name, kind, codec in (
        ("mkv", "matroska", "libx264"),
        ("webm", "webm", "libvpx"),
        ("avi", "avi", "mpeg4"),
        ("mov", "mov", "mpeg4"),
    ):
        yield f"a.{name}", video_file(kind, codec=codec)


def _sounds() -> Iterator[tuple[str, bytes]]:
    for name, kind in (("wav", "WAV"), ("flac", "FLAC"), ("ogg", "OGG"), ("mp3", "MP3"), ("aiff", "AIFF")):
        yield f"a.{name}", sound_file(kind, tone(), 16_000)
    yield "a.m4a", video_file("ipod", frames=np.empty((0, 0, 0, 3), np.uint8), sound=tone())
    yield "a.aac", video_file("adts", frames=np.empty((0, 0, 0, 3), np.uint8), sound=tone())


def _texts() -> Iterator[tuple[str, bytes]]:
    yield "a.txt", b"a red train in the snow, seen from afar"


def _depths() -> Iterator[tuple[str, bytes]]:
    yield "a.png", picture_file("PNG", Image.fromarray(distances_mm()))
    yield "a.tiff", picture_file("TIFF", Image.fromarray(distances_mm().astype(np.float32) / 1000))
    yield "b.tiff", picture_file("TIFF", Image.fromarray(distances_mm()))
    yield "a.npy", npy_file(distances_mm().astype(np.float64) / 1000)
    yield "a.exr", exr_file({"Z": distances_mm().astype(np.float32) / 1000})


def _thermals() -> Iterator[tuple[str, bytes]]:
    yield "a.png", picture_file("PNG", Image.fromarray(temperatures_ck()))
    yield "a.tiff", picture_file("TIFF", Image.fromarray(temperatures_ck()))
    yield "a.npy", npy_file(temperatures_ck() / np.float32(100))


def _traces() -> Iterator[tuple[str, bytes]]:
    yield "a.csv", csv_file(trace())
    buffer = io.BytesIO()
    pa.parquet.write_table(pa.table({"t_s": np.arange(250) / 100, **dict(zip(IMU_COLUMNS, trace().T, strict=True))}), buffer)
    yield "a.parquet", buffer.getvalue()
    yield "a.npy", npy_file(trace())


_MAKERS = {
    "image": _images,
    "video": _videos,
    "audio": _sounds,
    "text": _texts,
    "depth": _depths,
    "thermal": _thermals,
    "imu": _traces,
}
