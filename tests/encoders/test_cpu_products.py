"""oneDNN's products are torch's own, whatever the shapes, and what it cannot make is left to torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
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

RANDOM = torch.Generator().manual_seed(0)
X, WEIGHT, BIAS = (torch.randn(*shape, generator=RANDOM) for shape in ((6, 5, 16), (24, 16), (24,)))
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
    "sparse": X[0].to_sparse(),
}
WEIGHTS = {
    "a matrix": WEIGHT,
    "turned": WEIGHT.t().contiguous().t(),
    "every second row": torch.cat([WEIGHT, WEIGHT])[::2],
    "the same row again and again": WEIGHT[:1].expand(24, 16),
    "a part of others": torch.cat([WEIGHT, WEIGHT])[8:32],
    "rows that overlap": WEIGHT.flatten()[:39].unfold(0, 16, 1),
    "a vector": WEIGHT[0],
}
BIASES = {
    "none": None,
    "a vector": BIAS,
    "every second value": BIAS.repeat_interleave(2)[::2],
    "the same value again and again": BIAS[:1].expand(24),
    "one value": BIAS[:1],
    "a number": BIAS[0],
    "a part of others": torch.cat([BIAS, BIAS])[5:29],
}


class Seen(TorchDispatchMode):
    """Counts operators below the modes that were entered after it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[str(operator)] += 1
        return operator(*args, **(kwargs or {}))


def answer(function: Callable[..., torch.Tensor], *arguments: Any) -> Any:
    """What it gives, or raises."""
    with torch.inference_mode():
        try:
            given = function(*arguments)
        except (RuntimeError, IndexError) as error:
            return str(error)
        return given if given.layout == torch.strided else given.to_dense()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_linear_layer_gives_what_torch_gives_and_raises_what_it_raises(weight: str, bias: str, dtype: torch.dtype) -> None:
    for x in INPUTS.values():
        added = BIASES[bias]
        given = (x.to(dtype), WEIGHTS[weight].to(dtype), added.to(dtype) if added is not None else None)
        wanted = answer(F.linear, *given)
        with OneDnnProducts():
            found = answer(F.linear, *given)
        if isinstance(wanted, str):
            assert found == wanted
        else:
            assert found.dtype == wanted.dtype and found.shape == wanted.shape
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_inputs_of_several_lengths_give_what_torch_gives() -> None:
    nested = torch.nested.nested_tensor([X[0], X[1, :2]])
    with torch.inference_mode():
        wanted = F.linear(nested, WEIGHT, BIAS).to_padded_tensor(0)
        with OneDnnProducts():
            found = F.linear(nested, WEIGHT, BIAS)
    torch.testing.assert_close(found.to_padded_tensor(0), wanted, atol=1e-5, rtol=1e-5)


def test_what_does_not_fit_raises_what_torch_raises() -> None:
    wanted = answer(F.linear, X[..., :15], WEIGHT)
    with OneDnnProducts():
        assert answer(F.linear, X[..., :15], WEIGHT) == wanted
    assert "cannot be multiplied" in wanted


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("rows", [1, 6])
def test_attention_gives_what_torch_gives(batch_first: bool, need_weights: bool, masked: bool, rows: int) -> None:
    layer = attention(batch_first)
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


@pytest.mark.parametrize("strided", ["in_proj_bias", "out_proj.bias"])
def test_attention_with_strided_biases_gives_what_torch_gives(strided: str) -> None:
    layer = attention()
    place, _, name = strided.rpartition(".")
    bias = torch.randn(2 * len(layer.get_parameter(strided)), generator=RANDOM)
    setattr(layer.get_submodule(place), name, nn.Parameter(bias[::2]))
    with torch.inference_mode():
        wanted = layer(X, X, X, need_weights=False)[0]
        with OneDnnProducts():
            torch.testing.assert_close(layer(X, X, X, need_weights=False)[0], wanted, atol=1e-5, rtol=1e-5)


def test_attention_to_others_gives_what_torch_gives() -> None:
    layer = attention()
    weights = (layer.in_proj_weight, layer.in_proj_bias, layer.out_proj.weight, layer.out_proj.bias)
    others = torch.randn(2, 6, 5, 16, generator=RANDOM)
    with torch.inference_mode():
        wanted = torch._native_multi_head_attention(X, *others, 16, 4, *weights, None, False)[0]
        with OneDnnProducts():
            found = torch._native_multi_head_attention(X, *others, 16, 4, *weights, None, False)[0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def attention(batch_first: bool = True) -> nn.MultiheadAttention:
    """A layer with biases that are not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.MultiheadAttention(16, 4, batch_first=batch_first).eval()
        for bias in (layer.in_proj_bias, layer.out_proj.bias):
            nn.init.normal_(bias)
    return layer


@pytest.mark.parametrize(
    "architecture", ["open_clip/image", "open_clip/text", "imagebind/image", "imagebind/audio", "demo/image"]
)
def test_towers_have_their_layers_and_attention_computed_by_onednn_and_give_the_same_vectors(architecture: str) -> None:
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
    left = {"linear", "_native_multi_head_attention", "addmm", "mm", "_transformer_encoder_layer_fwd"}
    assert not {f"aten.{name}.default" for name in left} & seen.names.keys(), seen.names
    assert seen.names["aten.matmul.default"] <= 1, "of open_clip's towers the last"
    assert seen.names["mkldnn._linear_pointwise.default"] > 2, seen.names
