"""How far do ImageBind's two profiles move vectors? In: nothing. Out: benchmarks/results/profile_distance.json, and a table.

    .venv/bin/python -m benchmarks.profile_distance [imagebind_huge.pth]

Eight made media of every kind, each through profile "reference" and "bindery" and then through the same tower. Without a
checkpoint the tower is a small one of random weights: that tells how the inputs differ, not what training made of it, and
random towers find everything similar. So the distance (1 - cosine) between the profiles stands beside that between media.
"""

from __future__ import annotations

import io
import json
import platform
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from encoders import load_space
from encoders.encoder import Encoder, build_encoder, seeded_tower

RESULT = Path(__file__).parent / "results" / "profile_distance.json"
COUNT = 8
OFFICIAL = ("vision", "text", "audio")
SIZES = {"out_embed_dim": 256}
for _modality in OFFICIAL:
    SIZES |= {f"{_modality}_embed_dim": 192, f"{_modality}_num_blocks": 6, f"{_modality}_num_heads": 6}
TEXTS = ("a dog in the snow", "Two cars, one red", "bird song at dawn", "The sea!", "a child's house", "rain", "3 boats", "fog")
PROFILES = ("reference", "bindery")


def pink(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Noise in [0, 1] whose amplitude falls with the frequency along time or both sides, as in photographs."""
    axes = (0, 1) if len(shape) > 1 else (0,)
    random = np.random.default_rng(seed)
    spectrum = np.fft.fftn(random.normal(size=shape), axes=axes)
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(shape[a]) * shape[a] for a in axes), indexing="ij")))
    frequency = np.maximum(frequency, 1).reshape(frequency.shape + (1,) * (len(shape) - len(axes)))
    field = np.fft.ifftn(spectrum / frequency, axes=axes).real
    spread: np.ndarray = (field - field.min()) / np.ptp(field)
    return spread


def picture(width: int, height: int, seed: int) -> Image.Image:
    """A picture of pink noise in colours."""
    return Image.fromarray((pink((height, width, 3), seed) * 255).astype(np.uint8))


def packed(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sideways(seed: int) -> bytes:
    """A photograph whose EXIF data say that the camera was held upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return packed(picture(640, 480, seed), "JPEG", quality=90, exif=exif)


def cut_out(seed: int) -> bytes:
    """A picture of which the outer half is transparent."""
    image = picture(400, 400, seed).convert("RGBA")
    alpha = Image.new("L", image.size, 0)
    alpha.paste(255, (60, 60, 340, 340))
    image.putalpha(alpha)
    return packed(image, "PNG")


def grey_16(seed: int) -> bytes:
    """A 16-bit grey picture."""
    return packed(Image.fromarray((pink((300, 400), seed) * 65_535).astype(np.uint16)), "PNG")


def sound(seconds: float, channels: int, seed: int, offset: float = 0.0) -> tuple[np.ndarray, int]:
    """Pink noise that swells, different in each channel, at 44.1 kHz."""
    count = round(seconds * 44_100)
    swell = 0.3 + 0.7 * np.sin(np.linspace(0, 3 * seconds, count)) ** 2
    waves = [(pink((count,), 100 * seed + c) - 0.5) * swell + offset for c in range(channels)]
    return np.stack(waves).astype(np.float32), 44_100


def video(width: int, height: int, seed: int) -> bytes:
    """Four seconds of a window that pans over pink noise."""
    large = np.asarray(picture(width * 5 // 4, height, seed))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for k in range(40):
            left = k * (large.shape[1] - width) // 40
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(large[:, left : left + width]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


KINDS: tuple[tuple[str, str, Callable[[int], Any]], ...] = (
    ("image", "JPEG, 500 x 375", lambda k: packed(picture(500, 375, k), "JPEG", quality=90)),
    ("image", "JPEG, 2000 x 1500", lambda k: packed(picture(2000, 1500, k), "JPEG", quality=90)),
    ("image", "EXIF orientation", sideways),
    ("image", "transparent border", cut_out),
    ("image", "16-bit grey", grey_16),
    ("video", "320 x 240", lambda k: video(320, 240, k)),
    ("video", "1280 x 720", lambda k: video(1280, 720, k)),
    ("audio", "mono, 10 s", lambda k: sound(10, 1, k)),
    ("audio", "mono, 4 s", lambda k: sound(4, 1, k)),
    ("audio", "mono, 4 s, offset 0.2", lambda k: sound(4, 1, k, 0.2)),
    ("audio", "stereo, 10 s", lambda k: sound(10, 2, k)),
    ("audio", "mono, 1 s", lambda k: sound(1, 1, k)),
    ("audio", "mono, 0.2 s", lambda k: sound(0.2, 1, k)),
    ("text", "plain", lambda k: TEXTS[k]),
    ("text", "with <|endoftext|>", lambda k: f"a text <|endoftext|> {TEXTS[k]}"),
)


def encoders(checkpoint: str | None) -> Iterator[tuple[str, dict[str, Encoder], torch.nn.Module]]:
    """For each modality its encoder in both profiles, and the tower that they share."""
    for modality in ("image", "video", "audio", "text"):
        if checkpoint:
            named = partial(load_space, "imagebind-huge", checkpoint=checkpoint, modalities=[modality])
            both = {p: named(profile=p).encoders[modality] for p in PROFILES}
            yield modality, both, both["bindery"].tower
        else:
            both = {p: build_encoder(f"imagebind/{modality}", {"sizes": SIZES, "profile": p}) for p in PROFILES}
            yield modality, both, seeded_tower(both["bindery"], 0).eval()


def vector(tower: torch.nn.Module, features: dict[str, np.ndarray]) -> torch.Tensor:
    """The unit vector of one medium."""
    with torch.inference_mode():
        return torch.nn.functional.normalize(tower(**{k: torch.from_numpy(v)[None] for k, v in features.items()})[0], dim=0)


def distance(both: dict[str, Encoder], tower: torch.nn.Module, media: list[Any]) -> dict[str, float]:
    """Cosine distances between the profiles of a medium, and between different media in profile "bindery"."""
    vectors = {p: torch.stack([vector(tower, both[p].preprocess(medium)) for medium in media]).double() for p in PROFILES}
    between = 1 - (vectors["reference"] * vectors["bindery"]).sum(1)
    others = 1 - vectors["bindery"] @ vectors["bindery"].T
    return {
        "mean": float(between.mean().clamp(min=0)),
        "largest": float(between.max().clamp(min=0)),
        "different_media": float(others.sum() / (len(media) * (len(media) - 1))),
    }


def main() -> None:
    """Measure all kinds, print them, keep them."""
    torch.set_num_threads(1)
    checkpoint = sys.argv[1] if len(sys.argv) > 1 else None
    runs = []
    for modality, both, tower in encoders(checkpoint):
        for _, kind, make in (entry for entry in KINDS if entry[0] == modality):
            runs.append({"modality": modality, "kind": kind, **distance(both, tower, [make(k) for k in range(COUNT)])})
            row = "{modality:6} {kind:24} {mean:.1e} (largest {largest:.1e}); different media {different_media:.1e}"
            print(row.format(**runs[-1]))
    result = {
        "what": "1 - cosine between the vectors of profile 'reference' and 'bindery'",
        "tower": "imagebind_huge" if checkpoint else f"random weights, {SIZES}",
        "media_of_each_kind": COUNT,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "runs": runs,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
