"""A tower's products with its weights, on a CPU. In: what runs in a context. Out: the same to float32's last digits, sooner.

torch multiplies float32 matrices by MKL, which does not give its best on AMD's processors. oneDNN, which torch holds as well
and has its convolutions made by, took less than half the time there with AVX-512, and five sixths with AVX2 (ViT-B/32's shapes,
one core). N rows, T tokens, K columns of a weight, M of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class OneDnnProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context in which linear layers on a CPU, those of attention too, are made by oneDNN, under `torch.inference_mode`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here; else torch imports its compiler, which takes most of a second

    def __torch_dispatch__(
        self,
        operator: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Each operator as it is, but for those that have a faster way."""
        faster = _FASTER.get(operator)
        found = faster(*args, **(kwargs or {})) if faster is not None else None
        return operator(*args, **(kwargs or {})) if found is None else found


def _linear(x: torch.Tensor, weight_MK: torch.Tensor, bias_M: torch.Tensor | None = None) -> torch.Tensor | None:
    """(..., K) -> (..., M); None: torch's own way has to do."""
    if not _fits(x, weight_MK, bias_M):
        return None
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_MK, bias_M, "none", [], "")  # has no public name
    return product


def _self_attention(
    query_NTK: torch.Tensor,
    key_NTK: torch.Tensor,
    value_NTK: torch.Tensor,
    embed_dim: int,
    num_head: int,
    qkv_weight: torch.Tensor,
    qkv_bias: torch.Tensor,
    proj_weight: torch.Tensor,
    proj_bias: torch.Tensor,
    mask: torch.Tensor | None = None,
    need_weights: bool = True,
    *_: Any,
) -> tuple[torch.Tensor | None, None] | None:
    """What `nn.MultiheadAttention` calls where it can, and hides its products in."""
    to_others = key_NTK is not query_NTK or value_NTK is not query_NTK
    if to_others or mask is not None or need_weights or not _fits(query_NTK, proj_weight, proj_bias):
        return None
    qkv = _linear(query_NTK, qkv_weight, qkv_bias)
    if qkv is None:
        return None
    q, k, v = qkv.view(*query_NTK.shape[:2], 3, num_head, -1).permute(2, 0, 3, 1, 4)
    attended_NTK = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return _linear(attended_NTK, proj_weight, proj_bias), None


def _fits(x: torch.Tensor, weight_MK: torch.Tensor, bias_M: torch.Tensor | None) -> bool:
    """Whether oneDNN gives what torch does: it passes over the strides of a bias, and raises at much that torch takes."""
    given = [x, weight_MK] if bias_M is None else [x, weight_MK, bias_M]
    plain = all(type(one) in (torch.Tensor, nn.Parameter) and not one.is_nested for one in given)
    if not (plain and all((one.layout, one.dtype, one.device.type) == (torch.strided, torch.float32, "cpu") for one in given)):
        return False
    fitting = x.dim() > 1 and x.numel() > 0 and weight_MK.dim() == 2 and weight_MK.shape[1] == x.shape[-1]
    dense = weight_MK.is_contiguous() or weight_MK.t().is_contiguous()
    return fitting and dense and (bias_M is None or (bias_M.shape == weight_MK.shape[:1] and bias_M.is_contiguous()))


_FASTER: dict[Any, Callable[..., Any]] = (
    {torch.ops.aten.linear.default: _linear, torch.ops.aten._native_multi_head_attention.default: _self_attention}
    if torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    else {}
)
