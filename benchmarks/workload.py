"""What the benchmarks of speed work on. In: a folder. Out: a corpus of JPEGs or sounds, spaces of random weights, wall times.

Both are made from seeds, so that the same numbers come everywhere. A folder that holds them is used again.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import soundfile
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.plain_tower import PlainTower
from encoders.embedder import Embedder
from encoders.imagebind import build
from encoders.space import load_space
from pipelines.heap import keep_freed_memory
from pipelines.stages import TENSOR_BYTES

SMALL = ((500, 375), (500, 333), (375, 500), (640, 480), (320, 240), (1024, 768), (500, 375), (1600, 1200))  # of the web
CAMERAS = ((640, 480), (1280, 960), (1600, 1200), (2048, 1536), (3264, 2448), (4032, 3024), (3024, 4032), (1024, 768))
KINDS = 128  # different pictures, or sounds; the rest are other names of the same files
SOUND_S, SOUND_HZ = 10, 16_000
BATCH = 32
INSTANT = {"vision_embed_dim": 32, "vision_num_blocks": 1, "vision_num_heads": 2, "out_embed_dim": 64}
HUGE_AUDIO = {"audio_embed_dim": 768, "audio_num_blocks": 12, "audio_num_heads": 12, "out_embed_dim": 1024}


def jpegs(folder: Path, count: int) -> Path:
    """A folder of so many JPEGs of mixed size, about 500 x 375, a thousand a subfolder."""
    return _files(folder / f"jpegs-{count}", count, [_jpeg(seed, SMALL) for seed in range(KINDS)], "jpg")


def photographs(folder: Path, count: int) -> Path:
    """The same of sizes that cameras and telephones make, up to 12 megapixels; 1.1 MB on average."""
    return _files(folder / f"photographs-{count}", count, [_jpeg(seed, CAMERAS) for seed in range(KINDS)], "jpg")


def sounds(folder: Path, count: int) -> Path:
    """A folder of so many WAVs of ten seconds."""
    return _files(folder / f"sounds-{count}", count, [_wav(seed) for seed in range(KINDS)], "wav")


def space(folder: Path, name: str) -> str:
    """The URI of a space of random weights: "ViT-B-32", "ViT-B-16", "audio" (ImageBind's), "instant" (a tower of no cost)."""
    torch.manual_seed(0)
    file = folder / f"{name}.safetensors"
    if name in ("audio", "instant"):
        sizes = HUGE_AUDIO if name == "audio" else INSTANT
        sizes = {**INSTANT, **sizes}  # the image tower names the space, and need not be large
        parts = ["vision", "audio"] if name == "audio" else ["vision"]
        if not file.exists():
            save_file(build(sizes, parts).state_dict(), file)
        modality = "audio" if name == "audio" else "image"
        return load_space("imagebind-huge", checkpoint=str(file), sizes=sizes, modalities=[modality]).uri
    if not file.exists():
        state = open_clip.create_model(name).state_dict()
        save_file({key: value.contiguous() for key, value in state.items()}, file)
    return load_space(f"open_clip:{name}", checkpoint=str(file), modalities=["image"]).uri


def embed_s(corpus: Path, db: Path, space_uri: str) -> tuple[float, dict[str, Any]]:
    """Wall seconds of the whole command that embeds a corpus, from its start to its end, and its report."""
    began = time.perf_counter()
    report = timed([sys.executable, "-m", "jobs.embed", str(corpus), "--db", str(db), "--space", space_uri])[1]
    return time.perf_counter() - began, report


def timed(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, dict[str, Any]]:
    """Wall seconds of a command, and the JSON of its last line."""
    began = time.perf_counter()
    given = {**os.environ, "OMP_NUM_THREADS": "1", "CI": "1", **(environment or {})}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=given)
    seconds = time.perf_counter() - began
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seconds, report


def bare_rate(space_uri: str, modality: str, seconds: float, as_ours: bool = False) -> float:
    """Items a second of the bare forward loop: a process a core, one thread each, the same batch in memory again and again.

    `as_ours`: not the tower as torch runs it, but as our actors do: by oneDNN, and freed memory is kept.
    """
    cores = os.cpu_count() or 1
    with get_context("spawn").Pool(cores) as pool:
        return sum(pool.starmap(_forward_loop, [(space_uri, modality, seconds, as_ours)] * cores, chunksize=1))


def _forward_loop(space_uri: str, modality: str, seconds: float, as_ours: bool) -> float:
    torch.set_num_threads(1)
    encoder = load_space(space_uri).encoder(modality)
    if as_ours:
        keep_freed_memory(TENSOR_BYTES)
    forward = Embedder(encoder, BATCH) if as_ours else PlainTower(encoder)
    features = {n: np.zeros((BATCH, *f.shape), f.dtype) + np.ones(1, f.dtype) for n, f in encoder.features.items()}
    forward(features)
    began, batches = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        forward(features)
        batches += 1
    return BATCH * batches / (time.perf_counter() - began)


def _files(folder: Path, count: int, kinds: list[bytes], ending: str) -> Path:
    for k in range(count):
        path = folder / f"{k // 1000:03}" / f"{k:06}.{ending}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            if k < len(kinds):
                path.write_bytes(kinds[k])
            else:
                path.hardlink_to(folder / "000" / f"{k % len(kinds):06}.{ending}")
    return folder


def _jpeg(seed: int, sizes: Sequence[tuple[int, int]]) -> bytes:
    """Smooth shapes with some grain, as photographs have: some two bits a pixel."""
    rng = np.random.default_rng(seed)
    width, height = sizes[seed % len(sizes)]
    shapes = Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 6, (height, width, 1))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _wav(seed: int) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 0.1, SOUND_S * SOUND_HZ).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, SOUND_HZ, format="WAV")
    return buffer.getvalue()
