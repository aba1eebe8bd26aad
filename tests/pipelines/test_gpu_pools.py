"""The way of a run on a cluster with GPUs: two that Ray counts, and that are not there. Towers compute on a CPU instead."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from encoders.space import load_space
from pipelines.pools import GPU_ROWS

PICTURES = 40


def picture(k: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(k).integers(0, 255, (8, 8, 3), np.uint8)).resize((96, 96)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.slow
def test_with_gpus_an_actor_a_cpu_decodes_and_every_row_of_each_modality_gets_its_vector(tmp_path: Path) -> None:
    media = {f"w{k}": f"a red train, number {k}".encode() for k in range(2 * GPU_ROWS + 60)}  # for two calls at once
    media |= {f"p{k}": picture(k) for k in range(PICTURES)}
    modalities = ["text" if name[0] == "w" else "image" for name in media]
    pq.write_table(pa.table({"id": list(media), "modality": modalities, "media": list(media.values())}), tmp_path / "m.parquet")
    done = subprocess.run(
        [sys.executable, "-m", "jobs.embed", str(tmp_path / "m.parquet"), "--db", str(tmp_path / "db")],
        env={**os.environ, "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": 2, "GPU": 2})},
        stdout=subprocess.PIPE,
        text=True,
        timeout=180,  # actors for which there is no room would wait for ever
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, report["embedded"], report["audit"]["unique_ids"]) == (0, len(media), True)
    assert report["seconds_by_stage"]["tower"] > 0 and report["resources"] == {"cpus": 2, "gpus": 2}
    table = lance.dataset(str(tmp_path / "db" / "media.lance")).to_table(columns=["uri", "modality", "vector"])
    for modality in ("text", "image"):
        rows = [row for row in table.to_pylist() if row["modality"] == modality]
        wanted = load_space("demo").embed(modality, [media[row["uri"].partition("#")[2]] for row in rows])
        np.testing.assert_allclose([row["vector"] for row in rows], wanted, atol=1e-4)
