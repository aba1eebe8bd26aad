"""Are our towers as fast as the modules people use? In: nothing. Out: benchmarks/results/tower_speed.json, and ratios.

    .venv/bin/python -m benchmarks.tower_speed [--batches 1 4] [--check]

Float32 on one CPU thread, evaluation mode, random weights: a forward of ImageBind's vision and text towers beside open_clip's
modules of the same size (a ViT-B with patches of 14; CLIP's text transformer), and of its audio tower beside a trunk of torch's
own nn.MultiheadAttention with `add_bias_kv`, as the published model is made. Forwards take turns in one process, A B B A. What
is compared is the process's CPU time, because the machine may be shared: the ratio is of medians, theirs over ours, so that
above 1 ours is faster. --check: exit 1 below the threshold.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import psutil
import torch
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import nn

from benchmarks.thresholds import missed
from encoders.imagebind import build, reference_forward

RESULT = Path(__file__).parent / "results" / "tower_speed.json"
ROUNDS = 5
BASE = {"width": 768, "layers": 12, "heads": 12}
TEXT = {"width": 512, "layers": 12, "heads": 8}
Forward = Callable[[], torch.Tensor]


class PlainBlock(nn.Module):
    """A pre-norm block of torch's own parts, sequence first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, add_bias_kv=True)
        self.norm_1, self.norm_2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_TBW: torch.Tensor) -> torch.Tensor:
        """Tokens to tokens."""
        y_TBW = self.norm_1(x_TBW)
        x_TBW = x_TBW + self.attn(y_TBW, y_TBW, y_TBW, need_weights=False)[0]
        return x_TBW + self.mlp(self.norm_2(x_TBW))  # type: ignore[no-any-return]


class PlainAudio(nn.Module):
    """The published audio tower as its description reads, of torch's own parts."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, 16, 10, bias=False)
        self.norm = nn.LayerNorm(width)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 229, width))
        self.blocks = nn.Sequential(*(PlainBlock(width, heads) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 1024, bias=False))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, 1, 128, 204) -> (B, 1024)."""
        x_BTW = self.norm(self.proj(x_BCHW).flatten(2).transpose(1, 2))
        x_BTW = torch.cat([self.cls_token.expand(len(x_BTW), -1, -1), x_BTW], 1) + self.pos_embed
        return self.head(self.blocks(x_BTW.transpose(0, 1))[0])  # type: ignore[no-any-return]


def ours(modality: str, size: dict[str, int], x: torch.Tensor, dim: int) -> Forward:
    """A forward of our tower of this size."""
    names = {"width": "embed_dim", "layers": "num_blocks", "heads": "num_heads"}
    sizes = {f"{modality}_{names[key]}": value for key, value in size.items()}
    model = build({"out_embed_dim": dim, **sizes}, [modality])
    return lambda: reference_forward(model, modality, x)


def contests(batch: int) -> dict[str, tuple[Forward, Forward]]:
    """Ours and theirs, by name, on the same input."""
    image, sound = torch.randn(batch, 3, 224, 224), torch.randn(batch, 1, 128, 204)
    ids = torch.randint(1, 49_000, (batch, 77))
    ids[:, -1] = 49_407
    vision = VisionTransformer(image_size=224, patch_size=14, mlp_ratio=4.0, output_dim=512, **BASE).eval()
    text = TextTransformer(output_dim=512, **TEXT).eval()
    audio = PlainAudio(**BASE).eval()
    return {
        "vision, B/14": (ours("vision", BASE, image, 512), lambda: vision(image)),
        "text, CLIP base": (ours("text", TEXT, ids, 512), lambda: text(ids)),
        "audio, huge's": (ours("audio", BASE, sound, 1024), lambda: audio(sound)),
    }


def seconds(forward: Forward) -> float:
    """CPU seconds of one forward."""
    began = time.process_time()
    forward()
    return time.process_time() - began


def compare(mine: Forward, theirs: Forward) -> dict[str, float]:
    """Medians of turns taken."""
    mine(), theirs()  # caches fill, memory is taken
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(ROUNDS):
        order = [("ours", mine), ("theirs", theirs)]
        for name, forward in order if turn % 2 == 0 else reversed(order):
            times[name].append(seconds(forward))
    ours_s, theirs_s = (statistics.median(times[name]) for name in ("ours", "theirs"))
    return {
        "ours_ms": round(1000 * ours_s, 1),
        "theirs_ms": round(1000 * theirs_s, 1),
        "ratio": round(theirs_s / ours_s, 3),
        "ratio_of_fastest": round(min(times["theirs"]) / min(times["ours"]), 3),
    }


def main() -> int:
    """Measure, write the result, print it, judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        runs = {f"{name}, batch {batch}": compare(*pair) for batch in asked.batches for name, pair in contests(batch).items()}
    result = {
        "what": "CPU time of a float32 forward, ours against open_clip's module or torch's own parts; ratio theirs / ours",
        "machine": f"{psutil.cpu_count()} CPUs, one thread used, {platform.machine()}",
        "load_average": round(psutil.getloadavg()[0], 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "open_clip": open_clip.__version__},
        "rounds": ROUNDS,
        "runs": runs,
    }
    asked.result.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return int(asked.check and bool(missed(RESULT.name, result)))


if __name__ == "__main__":
    raise SystemExit(main())
