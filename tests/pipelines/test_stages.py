"""Features of any shape travel as fixed-size binary and come out equal; a reject's are zeros."""

import numpy as np
import pyarrow as pa
import pytest

from encoders.encoder import Feature
from encoders.media.types import Facts
from pipelines.replies import Decoded, Reject
from pipelines.stages import _from_binary, _to_binary


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float32", "bool"])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3, 4)])
def test_features_come_out_equal(shape: tuple[int, ...], dtype: str) -> None:
    feature = Feature(dtype, shape)
    rng = np.random.default_rng(0)
    sent = [np.ascontiguousarray(rng.integers(0, 2, shape).astype(dtype)) for _ in range(4)]
    results = [Decoded({"x": array}, Facts()) for array in sent]
    column = _to_binary([*results[:2], Reject("read", "E", "", True), *results[2:]], "x", feature)
    found = _from_binary(pa.chunked_array([column]).slice(1), feature)
    expected = [sent[1], np.zeros(shape, dtype), *sent[2:]]
    np.testing.assert_array_equal(found, np.stack([array.reshape(shape) for array in expected]))
    assert found.dtype == dtype
