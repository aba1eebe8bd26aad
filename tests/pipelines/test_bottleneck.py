"""Verdicts on made-up seconds, and the seconds of a real decoder."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
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


def _work(folder: Path, sources: int) -> tuple[Job, pa.Table]:
    """A run over so many pictures, two a batch."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)).save(out, "JPEG")
    (folder / "a.jpg").write_bytes(out.getvalue())
    space = load_space("demo")
    encoder = space.encoder("image")
    prints = {"image": encoder.fingerprint}
    job = Job(space.uri, prints, prints, {"image": "whole"}, "corpus", "run", 120.0, PUBLIC, batch_size=2)
    names = ("uri", "_location", "modality", "source_id", "version")
    row = dict.fromkeys(names, str(folder / "a.jpg")) | {"modality": "image", "size_bytes": 1, "_part": 0, "_parts": 1}
    return job, pa.Table.from_pylist([{**row, "_offset": None, "_media": None}] * sources)


def test_workers_measure_what_they_wait_for(tmp_path: Path) -> None:
    job, todo = _work(tmp_path, sources=4)
    decode, embed = Decode(job), Embed(job)
    found = []
    for rows in decode(todo):
        found.append(embed(rows))
        time.sleep(0.05)  # the tower has nothing to do
    seconds = {stage: sum(float(v.as_py()) for table in found for v in table[f"_{stage}_s"]) for stage in STAGES}
    assert seconds["tower"] > 0 and seconds["decode"] > 0 and seconds["read"] > 0
    assert seconds["idle"] >= 0.05
    assert [sum(v.as_py() for v in table["_slots"]) for table in found] == [2, 2]


def test_two_threads_that_share_a_tower_get_their_own_rows_and_no_second_counts_twice(tmp_path: Path) -> None:
    job, todo = _work(tmp_path, sources=16)
    batches = list(Decode(job)(todo))
    alone, shared = Embed(job), Embed(job)
    wanted = [alone(rows) for rows in batches]
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(shared, batches))
    wall_s = time.perf_counter() - began
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours["vector"].to_pylist(), theirs["vector"].to_pylist(), atol=1e-6)
    counted = [float(v.as_py()) for table in found for stage in ("tower", "idle") for v in table[f"_{stage}_s"]]
    assert min(counted) >= 0
    assert sum(counted) <= wall_s
