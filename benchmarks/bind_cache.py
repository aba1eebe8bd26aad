"""What does it save to run the frozen tower once? In: nothing. Out: benchmarks/results/bind_cache.json, and ratios.

    .venv/bin/python -m benchmarks.bind_cache [--check]

The training loop as `bindery bind` runs it, ten epochs of an audio tower against an image tower that is run in every step
(`--no-cache`), or once, before the first (its vectors kept): the demo space's tower on 64-pixel pictures, and a ViT-B/16 of
open_clip's on 224-pixel ones. End to end in CPU time of one process and thread; features are made beforehand, decoding
is not counted, though a cache spares that too. A ViT-B is timed over fewer pairs: the ratio does not depend on their number.
--check: exit 1 below the thresholds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.thresholds import missed
from encoders.embedder import Embedder
from encoders.encoder import Encoder, build_encoder, seeded_tower
from encoders.space import load_space
from encoders.training.loop import train
from encoders.training.recipe import Recipe
from encoders.training.sides import Frozen, Learner, Recomputed

RESULT = Path(__file__).parent / "results" / "bind_cache.json"
EPOCHS = 10
VIT_B = {
    "model": {"embed_dim": 128, "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16}},
    "pixels": {
        "kind": "pixels", "size": [224, 224], "resize": [224, 224], "mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28],
        "scale": 1 / 255,
    },
}  # fmt: skip


def features(encoder: Encoder, count: int) -> dict[str, torch.Tensor]:
    """Noise of the encoder's features."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, feature in encoder.features.items():
        values = torch.randint(0, 255, (count, *feature.shape), generator=generator)
        made[name] = values.to(getattr(torch, feature.dtype))
    return made


def seconds(image: Encoder, pairs: int, batch: int, cached: bool) -> float:
    """CPU seconds of ten epochs, filling the cache included."""
    audio = build_encoder("demo/audio")
    query = Learner(seeded_tower(audio, 0), features(audio, pairs), audio.augment)
    pictures = features(image, pairs)
    image.tower.eval()  # built outside the clock
    began = time.process_time()
    if cached:
        vectors = Embedder(image, 64, "cpu")({name: values.numpy() for name, values in pictures.items()})
        target: Any = Frozen(torch.from_numpy(vectors))
    else:
        target = Recomputed(image.tower, pictures)
    train(query, target, Recipe(epochs=EPOCHS, batch_size=batch))
    return time.process_time() - began


def main() -> int:
    """Both towers, both ways."""
    torch.set_num_threads(1)
    towers = {
        "demo": (load_space("demo").encoders["image"], 1024, 128),
        "ViT-B/16": (build_encoder("open_clip/image", VIT_B), 32, 16),
    }
    runs: dict[str, Any] = {}
    for name, (image, pairs, batch) in towers.items():
        again, once = seconds(image, pairs, batch, cached=False), seconds(image, pairs, batch, cached=True)
        million = sum(p.numel() for p in image.tower.parameters()) / 1e6
        runs[name] = {
            "tower_million_parameters": round(million, 2), "pairs": pairs, "recomputed_cpu_s": round(again, 2),
            "cached_cpu_s": round(once, 2), "ratio": round(again / once, 2),
        }  # fmt: skip
        print(name, runs[name], file=sys.stderr)
    document = {
        "what": f"CPU time of {EPOCHS} epochs of the demo audio tower; ratio: image tower run in every step / run once",
        "machine": f"{psutil.cpu_count()} CPUs, one thread used; shared when this was run",
        "load_average": round(os.getloadavg()[0], 1),
        "runs": runs,
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps({name: run["ratio"] for name, run in runs.items()}))
    return int("--check" in sys.argv[1:] and bool(missed(RESULT.name, document)))


if __name__ == "__main__":
    sys.exit(main())
