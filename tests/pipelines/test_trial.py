"""A dry run on real media: it decodes and embeds a sample in this process, and leaves nothing behind."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import ray
from PIL import Image

from pipelines.embed import EmbedSettings, embed
from pipelines.forecast import Machine
from pipelines.sample import TRIED


def picture(width: int, seed: int) -> bytes:
    """A JPEG of noise."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (width, width, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_dry_run_tells_what_sources_cost_and_starts_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    small, large = picture(64, 0), picture(2000, 1)
    for k in range(270):
        (media / f"{k:03}.jpg").write_bytes(small)
    for k in range(30):
        (media / f"large-{k:03}.jpg").write_bytes(large)
    for k in range(3):
        (media / f"{k}.txt").write_text("a dog barks at the sea")
        (media / f"damaged-{k}.wav").write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt ")
    running = ray.is_initialized()
    prices = (Machine(name="mine", cpus=8, usd_an_hour=0.5),)
    report = embed(EmbedSettings(corpus=str(media), db=str(tmp_path / "db"), dry_run=True, prices=prices))
    assert ray.is_initialized() == running and list(tmp_path.iterdir()) == [media] and report.exit_code == 0
    assert report.plan is not None
    cost = report.plan.costs["image"]
    assert (cost.sources, cost.rows, cost.would_reject) == (300, 1.0, {}) and cost.tried <= TRIED + 4
    assert cost.bytes == 270 * len(small) + 30 * len(large)
    assert cost.decode_s > 0 and cost.tower_s > 0 and cost.core_s > cost.decode_s
    assert report.plan.costs["text"].sources == 3
    damaged = report.plan.costs["audio"]
    assert sum(damaged.would_reject.values()) == damaged.tried == 3, "counted, and no reason to stop"
    assert report.plan.seconds > report.plan.work_s > 0
    assert "image" in capsys.readouterr().err
    told = json.loads(report.to_json())
    assert told["plan"]["machines"][0]["machine"] == "mine" and told["planned"] == {"new": 306}


def test_a_dry_run_that_finds_nothing_to_do_tries_nothing(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "notes.xyz").write_text("no medium")
    report = embed(EmbedSettings(corpus=str(tmp_path / "media"), db=str(tmp_path / "db"), dry_run=True))
    assert report.plan is not None and report.plan.costs == {} and report.plan.seconds < 5
