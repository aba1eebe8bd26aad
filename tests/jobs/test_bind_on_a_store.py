"""Binding with two workers, everything on a real S3 server: pairs, vectors of images, checkpoints, the space that comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from encoders import load_space
from jobs.bind import BindConfig, bind
from pipelines.demo_world import scene, write_corpus

SCENES, SEED = 120, 1_700_000  # scenes of no training of the shipped space


def bound(place: str, workers: int) -> dict[str, Any]:
    """Bind depth to the demo space; the report."""
    config = BindConfig(
        modality="depth",
        pairs=f"{place}/media/pairs.parquet",
        space="demo",
        out=f"{place}/bound",
        epochs=2,
        batch_size=32,
        held_out=20,
        workers=workers,
    )
    report: dict[str, Any] = json.loads(json.dumps(bind(config).values))
    return report


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_on_a_store_learn_what_one_learns_on_a_disk(s3: str, ray_local: None, tmp_path: Path) -> None:
    write_corpus(str(tmp_path / "media"), [scene(SEED + k) for k in range(SCENES)], ["image", "depth"])
    store = fsspec.filesystem("s3")
    store.put(f"{tmp_path}/media/", f"{s3}/media/", recursive=True)

    one, two = bound(str(tmp_path), 1), bound(s3, 2)

    # Near, not equal: on CPUs the batch norms of the demo towers see one share only. Without them: encoders/test_gradients.py.
    assert two["losses"] == pytest.approx(one["losses"], rel=0.1)
    depth = [next((tmp_path / "media/depth").iterdir())]
    vectors = [load_space(f"{place}/bound").embed("depth", depth) for place in (str(tmp_path), s3)]
    assert float(np.sum(vectors[0] * vectors[1])) > 0.8
    assert two["image_vectors"]["table"].startswith(s3) and two["image_vectors"]["embedded"] == SCENES
    assert not [path for path in store.find(f"{s3}/bound") if "/.training/" in path]  # checkpoints go when all is well
