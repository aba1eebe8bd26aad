"""oneDNN's products are torch's own, whatever the shapes, and what it cannot make is left to torch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.cpu_products import OneDnnProducts
from encoders.embedder import Embedder
from encoders.encoder import build_encoder, seeded_tower, small_settings

X = torch.randn(6, 5, 16, generator=torch.Generator().manual_seed(0))
INPUTS = {
    "rows": X[0],
    "one row": X[0, :1],
    "a vector": X[0, 0],
    "none": X[0, :0],
    "three axes": X,
    "four axes": X[None],
    "turned": X.transpose(0, 1),
    "every second column": X.flatten(1)[:, :32:2],
    "the same row again and again": X[0, :1].expand(7, 16),
    "float64": X.double(),
    "bfloat16": X.bfloat16(),
}


class Seen(TorchDispatchMode):
    """Counts operators below the modes that were entered after it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[str(operator)] += 1
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_a_linear_layer_gives_what_torch_gives(name: str, bias: bool, turned: bool) -> None:
    x = INPUTS[name]
    weight, added = torch.randn(24, 16, dtype=x.dtype), torch.randn(24, dtype=x.dtype) if bias else None
    weight = weight.t().contiguous().t() if turned else weight
    with torch.inference_mode():
        wanted = F.linear(x, weight, added)
        with OneDnnProducts():
            found = F.linear(x, weight, added)
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("rows", [1, 6])
def test_attention_gives_what_torch_gives(batch_first: bool, need_weights: bool, masked: bool, rows: int) -> None:
    layer = nn.MultiheadAttention(16, 4, batch_first=batch_first).eval()
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if masked else None
    x = X[:rows] if batch_first else X[:rows].transpose(0, 1)
    with torch.inference_mode():
        wanted, weights = layer(x, x, x, attn_mask=mask, need_weights=need_weights)
        with OneDnnProducts():
            found, found_weights = layer(x, x, x, attn_mask=mask, need_weights=need_weights)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert (found_weights is None) == (weights is None)
    if weights is not None:
        torch.testing.assert_close(found_weights, weights, atol=1e-5, rtol=1e-5)


def test_attention_to_others_gives_what_torch_gives() -> None:
    layer = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    with torch.inference_mode():
        wanted = layer(X, X.flip(0), X.flip(1), need_weights=False)[0]
        with OneDnnProducts():
            torch.testing.assert_close(layer(X, X.flip(0), X.flip(1), need_weights=False)[0], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "architecture", ["open_clip/image", "open_clip/text", "imagebind/image", "imagebind/audio", "demo/image"]
)
def test_towers_make_all_their_products_by_onednn_and_the_same_vectors(architecture: str) -> None:
    encoder = build_encoder(architecture, small_settings(architecture))
    encoder.__dict__["tower"] = seeded_tower(encoder, 1).float().eval().requires_grad_(False)
    random = np.random.default_rng(0)
    shapes = {name: (3, *feature.shape) for name, feature in encoder.features.items()}
    features = {name: random.integers(0, 9, shape).astype(encoder.features[name].dtype) for name, shape in shapes.items()}
    with torch.inference_mode():
        plain = F.normalize(encoder.tower(**{name: torch.from_numpy(values) for name, values in features.items()}), dim=-1)
    with Seen() as seen:
        vectors = Embedder(encoder, 3, "cpu")(features)
    np.testing.assert_allclose(vectors, plain, atol=1e-5)
    left = {"aten.linear.default", "aten._native_multi_head_attention.default", "aten.addmm.default"} & seen.names.keys()
    assert not left and seen.names["mkldnn._linear_pointwise.default"] > 2, seen.names
