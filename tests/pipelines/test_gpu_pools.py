"""The way of a run on a cluster with GPUs: one that Ray counts, and that is not there. Towers compute on a CPU instead."""

from __future__ import annotations

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

from encoders.space import load_space
from pipelines.pools import GPU_ROWS


@pytest.mark.slow
def test_with_a_gpu_an_actor_a_cpu_decodes_and_every_row_gets_its_vector(tmp_path: Path) -> None:
    words = {f"w{k}": f"a red train, number {k}".encode() for k in range(2 * GPU_ROWS + 60)}  # for two calls at once
    corpus = pa.table({"id": list(words), "modality": ["text"] * len(words), "media": list(words.values())})
    pq.write_table(corpus, tmp_path / "m.parquet")
    done = subprocess.run(
        [sys.executable, "-m", "jobs.embed", str(tmp_path / "m.parquet"), "--db", str(tmp_path / "db")],
        env={**os.environ, "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": 2, "GPU": 1})},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,  # actors for which there is no room would wait for ever
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, report["embedded"], report["audit"]["unique_ids"]) == (0, len(words), True)
    assert report["seconds_by_stage"]["tower"] > 0
    rows = lance.dataset(str(tmp_path / "db" / "media.lance")).to_table(columns=["uri", "vector"]).to_pylist()
    wanted = load_space("demo").embed("text", [words[row["uri"].partition("#")[2]] for row in rows])
    np.testing.assert_allclose([row["vector"] for row in rows], wanted, atol=1e-4)
