"""What the published loaders made of the published samples is what `reference_input` makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from encoders.imagebind.log_mel import clip_samples
from encoders.imagebind.preprocess import ImagePixels, reference_input
from encoders.imagebind.views import clip_frames


@pytest.fixture(scope="module")
def answers(reference: Path) -> dict[str, torch.Tensor]:
    return load_file(reference / "golden_preprocess.safetensors")


@pytest.fixture(scope="module")
def facts(reference: Path) -> dict[str, Any]:
    return json.loads((reference / "golden_preprocess.json").read_text())  # type: ignore[no-any-return]


def test_images_are_equal(reference: Path, answers: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    for name, known in facts["images"].items():
        pixels = ImagePixels("reference")(reference / "media" / name)["image"]
        np.testing.assert_array_equal(pixels.transpose(1, 2, 0), answers[f"image.{Path(name).stem}.pixels"].numpy())
        scaled = reference_input("image", reference / "media" / name)
        assert torch.equal(scaled[:, ::8, ::8], answers[f"image.{Path(name).stem}.norm_s8"])
        assert float(scaled.double().sum()) == pytest.approx(known["sum"], rel=1e-6)


def test_texts_are_equal(answers: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    assert torch.equal(reference_input("text", facts["texts"]), answers["text.tokens"].long())


def test_sounds_are_equal_within_rounding(reference: Path, answers: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    for name, known in facts["audio"].items():
        difference = (reference_input("audio", reference / "media" / name) - answers[f"audio.{Path(name).stem}"]).abs()
        assert difference.mean() < 1e-5
        assert difference.max() < 1e-3
        assert clip_samples(known["samples_at_16k"]) == [(c["first_sample"], c["stop_sample"]) for c in known["clips"]]


def test_videos_are_equal_within_rounding(reference: Path, answers: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    for name, known in facts["video"].items():
        assert [[*pair] for pair in clip_frames(known["frames"], known["avg_fps"])] == [c["chosen"] for c in known["clips"]]
        made = reference_input("video", reference / "media" / name)
        assert (made[..., ::8, ::8] - answers[f"video.{Path(name).stem}.s8"]).abs().max() < 1e-4
        torch.testing.assert_close(made[7], answers[f"video.{Path(name).stem}.view7_f16"].float(), atol=2e-3, rtol=1e-3)
