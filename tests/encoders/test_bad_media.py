"""Bad and odd media, in the demo's encoders, in ImageBind's in both profiles and in CLIP-style ones: a vector or a named error.

The table in docs/imagebind.md is this one.
"""

from __future__ import annotations

import json
import re
import struct
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hf_models import save_model
from PIL import Image
from sample_media import moving, picture, picture_file, sound_file, tone, video_file

from encoders.clip.open_clip_files import clip_tokenizer
from encoders.embedder import Embedder
from encoders.encoder import build_encoder, small_settings
from encoders.errors import DecodeError, TooLargeError
from encoders.space import load_space

pytestmark = [
    pytest.mark.timeout(120),  # none of them hangs
    pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning"),
]
ENCODERS = ("demo", "imagebind, reference", "imagebind, bindery")
CLIP_STYLE = "CLIP-style"  # one outcome for all of these; of each kind the modalities that are prepared in a way of their own
KINDS = {
    "open_clip": ("image", "text", "video"),
    "siglip": ("image", "text"),
    "siglip2": ("image", "video"),
    "clap": ("audio",),
    "clap-fused": ("audio",),
    "pe_audio_video": ("audio", "text", "video"),
}
VECTOR = None
Outcome = type[Exception] | None | dict[str, type[Exception] | None]  # of every encoder, or by encoder where they differ


def png(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def blank(mode: str, width: int, height: int, kind: str = "PNG") -> bytes:
    """A picture of one colour."""
    return picture_file(kind, Image.new(mode, (width, height)))


def with_nan() -> np.ndarray:
    wave = tone()
    wave[20_000] = np.nan
    return wave


def noise_video(kind: str) -> bytes:
    """A video that does not compress."""
    return video_file(kind, frames=np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8))


def overstated() -> bytes:
    """An MP4 whose header promises a thousand times its frames."""
    data = bytearray(video_file())
    for atom in (b"stts", b"stsz"):
        at = data.index(atom) + 12
        (count,) = struct.unpack_from(">I", data, at)
        struct.pack_into(">I", data, at, count * 1000)
    return bytes(data)


def zeros() -> bytes:
    """An MP4 with zeros where its frames were."""
    data = bytearray(noise_video("mp4"))
    at = data.index(b"mdat")
    (size,) = struct.unpack_from(">I", data, at - 4)
    data[at + 4 : at - 4 + size] = bytes(size - 8)
    return bytes(data)


SPECIAL = "a dog <|endoftext|> and <|startoftext|> a cat"
CASES: dict[str, tuple[str, Callable[[], Any], Outcome]] = {
    "image: JPEG cut in half": ("image", lambda: picture_file("JPEG")[:2000], DecodeError),
    "image: PNG cut in half": ("image", lambda: picture_file("PNG")[:9000], DecodeError),
    "image: CMYK JPEG": ("image", lambda: blank("CMYK", 40, 30, "JPEG"), VECTOR),
    "image: palette": ("image", lambda: picture_file("PNG", Image.fromarray(picture()).quantize(16)), VECTOR),
    "image: palette with a transparent entry": (
        "image",
        lambda: picture_file("PNG", Image.new("P", (9, 9)), transparency=0),
        VECTOR,
    ),
    "image: alpha": ("image", lambda: blank("RGBA", 40, 30), VECTOR),
    "image: grey with alpha": ("image", lambda: blank("LA", 40, 30), VECTOR),
    "image: 1 bit": ("image", lambda: blank("1", 40, 30), VECTOR),
    "image: 16-bit grey": ("image", lambda: blank("I;16", 40, 30), VECTOR),
    "image: float TIFF": ("image", lambda: blank("F", 40, 30, "TIFF"), VECTOR),
    "image: Lab TIFF": ("image", lambda: blank("LAB", 40, 30, "TIFF"), VECTOR),
    "image: 1 x 1 pixel": ("image", lambda: blank("RGB", 1, 1), VECTOR),
    "image: 30,000 x 600 pixels": ("image", lambda: blank("RGB", 30_000, 600, "JPEG"), VECTOR),
    "image: 30,000 x 1 pixels": ("image", lambda: blank("RGB", 30_000, 1), {"imagebind, reference": TooLargeError}),
    "image: 30,000 x 30,000 pixels promised": ("image", lambda: png(30_000, 30_000), TooLargeError),
    "image: 12,000 x 12,000 pixels promised, none there": ("image", lambda: png(12_000, 12_000), DecodeError),
    "image: no bytes": ("image", lambda: b"", DecodeError),
    "audio: no samples": ("audio", lambda: sound_file("WAV", np.zeros(0, np.float32), 16_000), DecodeError),
    "audio: one sample": ("audio", lambda: (np.ones(1, np.float32), 16_000), {"imagebind, reference": DecodeError}),
    "audio: one sample at 192 kHz": (
        "audio",
        lambda: (np.ones(1, np.float32), 192_000),
        {"imagebind, reference": DecodeError},
    ),
    "audio: 10 ms": ("audio", lambda: (tone(0.01), 16_000), {"imagebind, reference": DecodeError}),
    "audio: silence": ("audio", lambda: (np.zeros(32_000, np.float32), 16_000), VECTOR),
    "audio: NaN": ("audio", lambda: (with_nan(), 16_000), DecodeError),
    "audio: NaN in a file": ("audio", lambda: sound_file("WAV", with_nan(), 16_000, subtype="FLOAT"), DecodeError),
    "audio: louder than full scale": ("audio", lambda: (tone() * 1e4, 16_000), VECTOR),
    "audio: FLAC cut in half": ("audio", lambda: sound_file("FLAC", tone(), 16_000)[:9000], DecodeError),
    "audio: WAV cut in half": ("audio", lambda: sound_file("WAV", tone(), 16_000)[:40_000], VECTOR),
    "audio: MP3 cut after a quarter, though its header says otherwise": (
        "audio",
        lambda: sound_file("MP3", tone(12), 16_000)[: len(sound_file("MP3", tone(12), 16_000)) // 4],
        DecodeError,
    ),
    "audio: 0 Hz": ("audio", lambda: (tone(), 0), DecodeError),
    "video: cut in half": ("video", lambda: video_file()[:2000], DecodeError),
    "video: cut after a quarter, though its header says otherwise": (
        "video",
        lambda: noise_video("matroska")[: len(noise_video("matroska")) // 4],
        {"demo": DecodeError, "imagebind, bindery": DecodeError, CLIP_STYLE: DecodeError},
    ),
    "video: a header that promises 1,000 times its frames": ("video", overstated, DecodeError),
    "video: zeros where the frames were": ("video", zeros, DecodeError),
    "video: no frames": ("video", lambda: np.empty((0, 8, 8, 3), np.uint8), DecodeError),
    "video: sound only": ("video", lambda: sound_file("WAV", tone(), 16_000), DecodeError),
    "video: one frame": ("video", lambda: video_file(frames=moving(1)), VECTOR),
    "video: 2 x 2 pixels": ("video", lambda: video_file(frames=moving(4, 2, 2)), VECTOR),
    "video: 2 x 400 pixels": (
        "video",
        lambda: video_file(frames=moving(4, 2, 400)),
        {"imagebind, reference": TooLargeError, "imagebind, bindery": TooLargeError},
    ),
    "text: the tokenizer's special strings": ("text", lambda: SPECIAL, VECTOR),
    "text: only a special string": ("text", lambda: "<|endoftext|>", VECTOR),
    "text: other tokenizers' special strings": ("text", lambda: "<s> a dog </s></s> <pad><unk> [CLS] <|im_end|> a cat", VECTOR),
    "text: only other tokenizers' special strings": ("text", lambda: "<pad></s>", VECTOR),
    "text: nothing": ("text", lambda: "", DecodeError),
    "text: white space": ("text", lambda: " \n\u3000", DecodeError),
    "text: invisible characters": ("text", lambda: "&nbsp;", {"imagebind, bindery": DecodeError}),
    "text: NUL and other control characters": ("text", lambda: "a\0b\x07", VECTOR),
    "text: half of a surrogate pair": ("text", lambda: "a \ud800 dog", VECTOR),
    "text: Latin-1 bytes": ("text", lambda: "Möwe".encode("latin1"), DecodeError),
    "text: 999,999 letters without a space": ("text", lambda: "ab" * 499_999, VECTOR),
    "text: 1,000,001 letters": ("text", lambda: "a" * 1_000_001, TooLargeError),
}
for _rate_hz in (8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000):
    CASES[f"audio: {_rate_hz:,} Hz"] = ("audio", lambda rate_hz=_rate_hz: (tone(2.2, rate_hz), rate_hz), VECTOR)
for _channels in range(1, 9):
    CASES[f"audio: {_channels} channels"] = (
        "audio",
        lambda c=_channels: sound_file("WAV", np.stack([tone()] * c, 1), 16_000),
        VECTOR,
    )


def preprocess(encoder: str, modality: str) -> Callable[[Any], dict[str, np.ndarray]]:
    name, _, profile = encoder.partition(", ")
    return build_encoder(f"{name}/{modality}", {"profile": profile} if profile else {}).preprocess


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("case", CASES)
def test_the_outcome_is_the_one_that_is_stated(case: str, encoder: str) -> None:
    modality, make, outcome = CASES[case]
    expected = outcome.get(encoder) if isinstance(outcome, dict) else outcome
    medium, began = make(), time.monotonic()
    if expected is not None:
        with pytest.raises(expected) as caught:
            preprocess(encoder, modality)(medium)
        assert len(str(caught.value)) > 20
        return
    for array in preprocess(encoder, modality)(medium).values():
        assert np.isfinite(array).all()
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("modality", ["image", "audio", "video", "depth", "thermal", "imu"])
def test_an_empty_file_is_called_empty(modality: str) -> None:
    with pytest.raises(DecodeError, match="empty"):
        preprocess("demo", modality)(b"")


@cache
def clip_style(kind: str, modality: str) -> Callable[[Any], np.ndarray]:
    """medium -> vector, by a small model with random weights."""
    if kind == "open_clip":
        settings = small_settings(f"open_clip/{modality}")
        if modality == "text":
            settings["model"] = {"embed_dim": 16, "text_cfg": {**settings["model"]["text_cfg"], "vocab_size": 49_408}}
            settings |= {"tokens": {"length": 12, "pad_id": 0, "clean": "lower"}, "tokenizer": json.loads(clip_tokenizer())}
        encoder = build_encoder(f"open_clip/{modality}", settings)
    else:
        name, _, fused = kind.partition("-")
        with TemporaryDirectory() as folder:
            space = load_space(f"hf:{save_model(name, Path(folder), bool(fused))}", modalities=[modality], seconds=1.0)
            encoder = space.encoders[modality]
            encoder.tower  # noqa: B018 - built while its files are there
    return lambda medium: Embedder(encoder, 1)({k: v[None] for k, v in encoder.preprocess(medium).items()})[0]


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        pytest.param(case, kind, marks=[pytest.mark.slow] if "999,999" in case and kind != "open_clip" else [])
        for case in CASES
        for kind in KINDS
        if CASES[case][0] in KINDS[kind]
    ],
)
def test_the_outcome_of_clip_style_encoders_is_the_one_that_is_stated(case: str, kind: str) -> None:
    modality, make, outcome = CASES[case]
    expected = outcome.get(CLIP_STYLE) if isinstance(outcome, dict) else outcome
    if expected is None:
        assert np.linalg.norm(clip_style(kind, modality)(make())) == pytest.approx(1, abs=1e-3)
        return
    with pytest.raises(expected) as caught:
        clip_style(kind, modality)(make())
    assert len(str(caught.value)) > 20


def documented_row(case: str) -> str:
    """How docs/imagebind.md states the outcomes of a case."""
    outcome = CASES[case][2]
    outcomes = [outcome.get(encoder) if isinstance(outcome, dict) else outcome for encoder in (*ENCODERS, CLIP_STYLE)]
    stated = [error.__name__ if error else "vector" for error in outcomes]
    label = re.sub(r"^audio: [\d,]+ Hz$", "audio: 8 kHz to 192 kHz", case) if "audio: 0" not in case else case
    label = re.sub(r"^audio: \d channels$", "audio: 1 to 8 channels", label)
    modality, _, medium = label.partition(": ")
    return f"| {modality} | {medium.replace('|', chr(92) + '|')} | {' | '.join(stated)} |"


def test_the_page_states_these_outcomes_and_no_others() -> None:
    page = (Path(__file__).parents[2] / "docs" / "imagebind.md").read_text()
    stated = re.findall(r"^\| (?:image|video|audio|text) \| .* \|$", page.partition("\n## Bad and odd media")[2], re.MULTILINE)
    assert stated == list(dict.fromkeys(documented_row(case) for case in CASES))
