"""How fast does a JPEG become 224 x 224 pixels, how exactly? In: nothing. Out: a table, benchmarks/results/decode_image.json.

    .venv/bin/python -m benchmarks.decode_image [--check]

One core, CPU time, pictures of 500 x 375 and 4000 x 3000: ours in both profiles beside what other libraries offer.
Differences are to the published loader's pixels, in levels of 255. --check: exit 1 unless ours in the reference profile is
exact and fast enough (thresholds.yaml).
"""

from __future__ import annotations

import importlib.util
import io
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch
import torchvision
import torchvision.transforms.functional as tv
from PIL import Image

from benchmarks.thresholds import missed
from encoders.imagebind.preprocess import ImagePixels

RESULT = Path(__file__).parent / "results" / "decode_image.json"
SIZES = ((500, 375), (4000, 3000))
SIDE = 224
ROUNDS = 5
OURS = "Bindery, profile reference"

Decode = Callable[[bytes], np.ndarray]  # a JPEG file -> uint8 (224, 224, 3)


def jpeg(width: int, height: int, seed: int) -> bytes:
    """A picture of noise at all scales, with the detail of a photograph."""
    random = np.random.default_rng(seed)
    field = np.zeros((height, width, 3), np.float32)
    for scale in (1, 2, 4, 8, 16, 32, 64, 128):
        coarse = random.normal(size=(height // scale + 2, width // scale + 2, 3)).astype(np.float32)
        field += scale**0.7 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    level = np.clip(128 + 50 * field / field.std(), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(level).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def scaled_size(width: int, height: int) -> tuple[int, int]:
    """With the short side 224."""
    return (SIDE * width // height, SIDE) if width >= height else (SIDE, SIDE * height // width)


def crop(pixels_HWC: np.ndarray) -> np.ndarray:
    """The centre."""
    top, left = (round((side - SIDE) / 2) for side in pixels_HWC.shape[:2])
    return pixels_HWC[top : top + SIDE, left : left + SIDE]


def ours(profile: str) -> Decode:
    """Our preprocess, channels last for comparison."""
    preprocess = ImagePixels(profile)  # type: ignore[arg-type]
    return lambda data: preprocess(data)["image"].transpose(1, 2, 0)


def pillow(data: bytes, draft: bool = False) -> np.ndarray:
    """Pillow alone; with `draft` decoded at 1/2, 1/4 or 1/8 as long as that is not below 224."""
    image = Image.open(io.BytesIO(data))
    size = scaled_size(*image.size)
    if draft:
        image.draft("RGB", size)
    return crop(np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC)))


def opencv(data: bytes, flag: int, interpolation: int) -> np.ndarray:
    """OpenCV alone."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    assert decoded is not None, "a JPEG of ours"
    image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return crop(cv2.resize(image, scaled_size(image.shape[1], image.shape[0]), interpolation=interpolation))


def vision(data: bytes) -> np.ndarray:
    """torchvision alone, with anti-aliasing."""
    image = torchvision.io.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), torchvision.io.ImageReadMode.RGB)
    width, height = scaled_size(image.shape[2], image.shape[1])
    small = tv.resize(image, [height, width], tv.InterpolationMode.BICUBIC, antialias=True)
    return crop(small.permute(1, 2, 0).numpy())


def simple(data: bytes) -> np.ndarray:
    """simplejpeg decoding no smaller than 224, Pillow resizing."""
    import simplejpeg

    image = Image.fromarray(simplejpeg.decode_jpeg(data, min_height=SIDE, min_width=SIDE, min_factor=1))
    return crop(np.asarray(image.resize(scaled_size(*image.size), Image.Resampling.BICUBIC)))


def paths() -> dict[str, Decode]:
    """All that is tried, by name."""
    reduced = cv2.IMREAD_REDUCED_COLOR_2
    known: dict[str, Decode] = {
        OURS: ours("reference"),
        "Bindery, profile bindery": ours("bindery"),
        "Pillow, bicubic": pillow,
        "Pillow draft, bicubic": lambda data: pillow(data, draft=True),
        "OpenCV, area": lambda data: opencv(data, cv2.IMREAD_COLOR, cv2.INTER_AREA),
        "OpenCV, bicubic": lambda data: opencv(data, cv2.IMREAD_COLOR, cv2.INTER_CUBIC),
        "OpenCV at half size, area": lambda data: opencv(data, reduced, cv2.INTER_AREA),
        "torchvision, bicubic": vision,
    }
    if importlib.util.find_spec("simplejpeg"):
        known["simplejpeg scaled, Pillow bicubic"] = simple
    return known


def seconds_each(decode: Decode, files: list[bytes]) -> float:
    """CPU seconds a picture, the best of a few rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for data in files:
            decode(data)
        best = min(best, (time.process_time() - start) / len(files))
    return best


def measure(width: int, height: int) -> list[dict[str, Any]]:
    """Every path on pictures of one size."""
    files = [jpeg(width, height, seed) for seed in range(24 if width < 1000 else 3)]
    exact = [pillow(data).astype(int) for data in files]
    rows = []
    for name, decode in paths().items():
        difference = np.stack([np.abs(decode(data) - wanted) for data, wanted in zip(files, exact, strict=True)])
        row: dict[str, Any] = {
            "size": f"{width} x {height}",
            "path": name,
            "per_s": round(1 / seconds_each(decode, files), 1),
            "mean_levels": round(float(difference.mean()), 3),
            "max_levels": int(difference.max()),
        }
        print("{size:12} {path:36} {per_s:7.1f}/s   off by {mean_levels:.3f} on average, {max_levels} at most".format(**row))
        rows.append(row)
    return rows


def main() -> int:
    """Measure, write the result, judge."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = [row for size in SIZES for row in measure(*size)]
    versions = {m.__name__: m.__version__ for m in (cv2, np, torch, torchvision)} | {"PIL": PIL.__version__}
    result = {
        "what": "JPEG file to uint8 224 x 224, pictures a second of CPU time on one core; differences to the published loader",
        "machine": f"{platform.machine()}, one core",
        "versions": {"python": platform.python_version(), **versions},
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return int("--check" in sys.argv and bool(missed(RESULT.name, result)))


if __name__ == "__main__":
    raise SystemExit(main())
