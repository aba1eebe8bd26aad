"""Verdicts on made-up seconds, and the seconds of a real decoder."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from encoders import load_space
from pipelines.bottleneck import STAGES, busy_share, verdict
from pipelines.reach import PUBLIC
from pipelines.report import EmbedReport, Tally
from pipelines.stages import Decode, Embed, Job


@pytest.mark.parametrize(
    ("seconds", "limit"),
    [
        ({"tower": 9.0, "idle": 1.0, "read": 50.0, "decode": 50.0}, "the towers are the limit, busy 90%"),
        ({"tower": 3.0, "idle": 7.0, "read": 9.0, "decode": 1.0}, "reading is the limit, towers are busy 30%"),
        ({"tower": 3.0, "idle": 7.0, "read": 1.0, "decode": 9.0}, "decoding is the limit, towers are busy 30%"),
        ({"tower": 1.0}, "the towers are the limit, busy 100%"),
    ],
)
def test_the_verdict_names_the_stage_that_the_others_wait_for(seconds: dict[str, float], limit: str) -> None:
    assert str(verdict(seconds)).startswith(limit)


def test_before_any_tower_has_worked_there_is_no_verdict() -> None:
    assert verdict({}) is None and busy_share({"read": 3.0, "idle": 1.0}) is None


def test_the_report_has_seconds_by_stage_and_the_verdict() -> None:
    tally = Tally()
    tally.seconds.update({"tower": 1.00049, "idle": 9.0, "decode": 8.0})
    report = EmbedReport("run", "corpus", "table", "space", "fingerprint", "license", tally, 0.05)
    assert '"seconds_by_stage": {"tower": 1.0, "idle": 9.0, "decode": 8.0}, "bottleneck": "decoding is' in report.to_json()


def test_workers_measure_what_they_wait_for(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)).save(out, "JPEG")
    (tmp_path / "a.jpg").write_bytes(out.getvalue())
    space = load_space("demo")
    encoder = space.encoder("image")
    prints = {"image": encoder.fingerprint}
    job = Job(space.uri, prints, prints, {"image": "whole"}, "corpus", "run", 120.0, PUBLIC, batch_size=2)
    names = ("uri", "_location", "modality", "source_id", "version")
    row = dict.fromkeys(names, str(tmp_path / "a.jpg")) | {"modality": "image", "size_bytes": 1, "_part": 0, "_parts": 1}
    todo = pa.Table.from_pylist([{**row, "_offset": None, "_media": None}] * 4)
    decode, embed = Decode(job), Embed(job)
    found = []
    for rows in decode(todo):
        found.append(embed(rows))
        time.sleep(0.05)  # the tower has nothing to do
    seconds = {stage: sum(float(v.as_py()) for table in found for v in table[f"_{stage}_s"]) for stage in STAGES}
    assert seconds["tower"] > 0 and seconds["decode"] > 0 and seconds["read"] > 0
    assert seconds["idle"] >= 0.05
    assert [sum(v.as_py() for v in table["_slots"]) for table in found] == [2, 2]
