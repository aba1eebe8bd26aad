"""Copies are found whatever rounding did to them, and what is only much alike is not taken for a copy."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.copies import groups_of_copies


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("dim", [64, 1024])
def test_each_row_is_with_its_copies_and_with_nothing_else(dim: int) -> None:
    rng = np.random.default_rng(dim)
    kinds = unit(rng.normal(size=(2000, dim)))
    kinds[1::2] = unit(kinds[::2] + 0.01 / np.sqrt(dim) * rng.normal(size=(1000, dim)))  # a cosine of .99995: no copies
    which = rng.integers(0, len(kinds), 6000)
    rounded = unit(kinds[which] + 1e-6 / np.sqrt(dim) * rng.normal(size=(len(which), dim)))

    groups = groups_of_copies(rounded)

    of_kind = {kind: set(groups[which == kind].tolist()) for kind in set(which.tolist())}
    assert all(len(found) == 1 for found in of_kind.values())
    assert len(set(groups.tolist())) == len(of_kind)


def test_no_rows_are_no_groups() -> None:
    assert groups_of_copies(np.empty((0, 64), np.float32)).shape == (0,)
