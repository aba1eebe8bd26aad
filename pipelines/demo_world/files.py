"""Scenes as ordinary files. In: a scene, modalities. Out: the bytes of its files, the same on every machine.

Most files of a modality have one format, some another (`ALTERNATIVE_SHARE`, by seed), as in any real corpus. Encoders whose
output depends on the processor (FFmpeg's AAC, its RGB to YUV conversion, linear prediction in FLAC) are not used: the sound
track of a video is FLAC with fixed predictors, its colours are converted here.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from PIL import Image

from pipelines.demo_world.inertia import RATE_HZ as IMU_RATE_HZ
from pipelines.demo_world.inertia import imu
from pipelines.demo_world.picture import FRAMES_PER_S, SIDE_PX, Stage
from pipelines.demo_world.scene import Scene, Stream, caption, random_numbers
from pipelines.demo_world.sound import audio
from pipelines.demo_world.synthesis import RATE_HZ as SOUND_RATE_HZ

ALTERNATIVE_SHARE = 0.2
JPEG_QUALITY = 90
FULL_SCALE = 32767
IMU_COLUMNS = ("t_s", "ax_mps2", "ay_mps2", "az_mps2", "gx_radps", "gy_radps", "gz_radps")
X264 = {"preset": "veryfast", "crf": "20", "x264-params": "threads=1:cpu-independent=1"}
FLAC = {"lpc_type": "fixed"}
BIT_EXACT = {"fflags": "+bitexact"}


class Take:
    """One scene; its stage and its sound are made once, when first asked for."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    @cached_property
    def stage(self) -> Stage:
        """For pictures."""
        return Stage(self.scene)

    @cached_property
    def samples(self) -> npt.NDArray[np.int16]:
        """(32000,) int16, 16 kHz."""
        return np.rint(FULL_SCALE * audio(self.scene)).astype(np.int16)


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _jpeg(take: Take) -> bytes:
    return _saved(Image.fromarray(take.stage.image()), "JPEG", quality=JPEG_QUALITY)


def _png(take: Take) -> bytes:
    return _saved(Image.fromarray(take.stage.image()), "PNG")


def _depth_png(take: Take) -> bytes:
    return _saved(Image.fromarray(take.stage.depth_mm()), "PNG")


def _thermal_png(take: Take) -> bytes:
    return _saved(Image.fromarray(take.stage.thermal_ck()), "PNG")


def _thermal_tiff(take: Take) -> bytes:
    return _saved(Image.fromarray(take.stage.thermal_ck()), "TIFF")


def _txt(take: Take) -> bytes:
    return (caption(take.scene) + "\n").encode()


def _wav(take: Take) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, take.samples, SOUND_RATE_HZ, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _flac(take: Take) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="flac", options=BIT_EXACT) as container:
        _add_sound(container, _sound_stream(container), take.samples)
    return file.getvalue()


def _mp4(take: Take) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options=BIT_EXACT) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_S, options=X264)
        stream.width = stream.height = SIDE_PX
        stream.pix_fmt = "yuv420p"
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        sound = _sound_stream(container)  # all streams come before the first packet
        for picture in take.stage.video():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_yuv420(picture), format="yuv420p")))
        container.mux(stream.encode(None))
        _add_sound(container, sound, take.samples)
    return file.getvalue()


def _sound_stream(container: Any) -> Any:
    stream = container.add_stream("flac", rate=SOUND_RATE_HZ, options=FLAC)
    stream.layout = "mono"
    stream.codec_context.flags |= av.codec.context.Flags.bitexact
    return stream


def _add_sound(container: Any, stream: Any, samples: npt.NDArray[np.int16]) -> None:
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = SOUND_RATE_HZ, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _yuv420(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """RGB (H, W, 3) -> planes Y, U, V (3 H / 2, W) of BT.601, limited range, in whole numbers."""
    red, green, blue = picture.astype(np.int32).transpose(2, 0, 1)
    height, width = red.shape
    y = ((66 * red + 129 * green + 25 * blue + 128) >> 8) + 16
    blocks = picture.astype(np.int32).reshape(height // 2, 2, width // 2, 2, 3).sum(axis=(1, 3))
    red, green, blue = (blocks >> 2).transpose(2, 0, 1)
    u = ((-38 * red - 74 * green + 112 * blue + 128) >> 8) + 128
    v = ((112 * red - 94 * green - 18 * blue + 128) >> 8) + 128
    return np.concatenate([y.ravel(), u.ravel(), v.ravel()]).reshape(height * 3 // 2, width).astype(np.uint8)


def _csv(take: Take) -> bytes:
    rows = (f"{i / IMU_RATE_HZ:.2f}," + ",".join(f"{v:.4f}" for v in row) for i, row in enumerate(imu(take.scene).tolist()))
    return ("\n".join([",".join(IMU_COLUMNS), *rows]) + "\n").encode()


def _parquet(take: Take) -> bytes:
    trace = imu(take.scene)
    time_s = np.arange(len(trace), dtype=np.float32) / np.float32(IMU_RATE_HZ)
    file = io.BytesIO()
    pq.write_table(pa.table(dict(zip(IMU_COLUMNS, (time_s, *trace.T), strict=True))), file)
    return file.getvalue()


@dataclass(frozen=True)
class Format:
    """One way to write a modality."""

    suffix: str
    write: Callable[[Take], bytes]


FORMATS = {  # the usual one, and where there is one the alternative
    "image": (Format("jpg", _jpeg), Format("png", _png)),
    "video": (Format("mp4", _mp4),),
    "audio": (Format("wav", _wav), Format("flac", _flac)),
    "text": (Format("txt", _txt),),
    "depth": (Format("png", _depth_png),),
    "thermal": (Format("png", _thermal_png), Format("tiff", _thermal_tiff)),
    "imu": (Format("csv", _csv), Format("parquet", _parquet)),
}
MODALITIES = tuple(FORMATS)


def scene_files(scene: Scene, modalities: Sequence[str]) -> dict[str, tuple[str, bytes]]:
    """The files of a scene: modality -> (path within the corpus, bytes)."""
    take = Take(scene)
    made = {}
    for modality in modalities:
        dice = random_numbers(Stream.FORMAT, scene.seed, MODALITIES.index(modality)).random()
        kind = FORMATS[modality][-1 if dice < ALTERNATIVE_SHARE else 0]
        made[modality] = (f"{modality}/{scene.seed:06d}.{kind.suffix}", kind.write(take))
    return made
