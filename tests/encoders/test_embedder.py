"""Features to vectors: how many items go through a tower at once."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sample_media import picture

from encoders import embedder
from encoders.embedder import Embedder
from encoders.space import load_space


def test_no_more_than_input_bytes_go_through_a_tower_at_once_with_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_space("demo").encoders["image"]
    rows = [encoder.preprocess(np.roll(picture(), 9 * k, axis=1)) for k in range(8)]
    batch = {name: np.stack([row[name] for row in rows]) for name in encoder.features}
    whole = Embedder(encoder, 8, "cpu")
    wanted, sizes = whole(batch), []
    whole.tower.register_forward_pre_hook(
        lambda _, __, inputs: sizes.append(len(next(iter(inputs.values())))), with_kwargs=True
    )
    for bytes_, expected in ((None, [8]), (3 * batch["image"][0].nbytes, [3, 3, 2]), (1, [1] * 8)):
        sizes.clear()
        monkeypatch.setattr(embedder, "INPUT_BYTES", bytes_ or embedder.INPUT_BYTES)
        np.testing.assert_allclose(whole(batch), wanted, atol=1e-6)
        assert sizes == expected
        assert whole.slots(batch) == max(expected) * len(expected)  # 9 for 8 rows in threes: one place stays empty


def test_features_that_may_not_be_written_to_are_read() -> None:
    encoder = load_space("demo").encoders["image"]
    batch = {name: values[None] for name, values in encoder.preprocess(picture()).items()}
    wanted = Embedder(encoder, 1, "cpu")(batch)
    for values in batch.values():
        values.flags.writeable = False  # as they come out of Ray's store
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(Embedder(encoder, 1, "cpu")(batch), wanted)
