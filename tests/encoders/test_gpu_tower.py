"""Vectors that a GPU makes. These run where one is at hand: none was when they were written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sample_media import picture

from encoders.embedder import Embedder
from encoders.space import load_space

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: there is no GPU")


def _pictures(count: int) -> dict[str, np.ndarray]:
    encoder = load_space("demo").encoder("image")
    rows = [encoder.preprocess(np.roll(picture(), 5 * k, axis=1)) for k in range(count)]
    return {name: np.stack([row[name] for row in rows]) for name in encoder.features}


def test_a_gpu_makes_the_vectors_of_the_cpu_whatever_the_batch_and_however_many_threads_call() -> None:
    encoder, batches = load_space("demo").encoder("image"), [_pictures(count) for count in (64, 1, 37, 64, 5)]
    wanted = [Embedder(encoder, 64, "cpu")(batch) for batch in batches]
    embedder = Embedder(load_space("demo").encoder("image"), 64, "cuda")
    with ThreadPoolExecutor(2) as pool:
        for ours, theirs in zip(pool.map(embedder, 10 * batches), 10 * wanted, strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
            assert (ours * theirs).sum(1).min() >= 0.999
