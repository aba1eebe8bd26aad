"""The ImageBind model, to load the official weights into. In: sizes, scaled inputs. Out: vectors of one space.

Written from a description of what the published model computes, not from its code. The module tree bears the names of the
official checkpoint. B batch, S clips, T tokens, W width of a token, H heads, D dimension of the space.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from encoders.imagebind.inputs import PictureInput, TextInput, TraceInput, VisionInput

MODALITIES = ("vision", "text", "audio", "depth", "thermal", "imu")
ALIASES = MappingProxyType({"image": "vision", "video": "vision"})  # Bindery's names of the official "vision"
HUGE: Mapping[str, int | float] = MappingProxyType(
    {"out_embed_dim": 1024}
    | {"vision_embed_dim": 1280, "vision_num_blocks": 32, "vision_num_heads": 16}
    | {"text_embed_dim": 1024, "text_num_blocks": 24, "text_num_heads": 16}
    | {"audio_embed_dim": 768, "audio_num_blocks": 12, "audio_num_heads": 12, "audio_drop_path": 0.1}
    | {"depth_embed_dim": 384, "depth_num_blocks": 12, "depth_num_heads": 8, "depth_drop_path": 0.0}
    | {"thermal_embed_dim": 768, "thermal_num_blocks": 12, "thermal_num_heads": 12, "thermal_drop_path": 0.0}
    | {"imu_embed_dim": 512, "imu_num_blocks": 6, "imu_num_heads": 8, "imu_drop_path": 0.7}
)
SCALES = MappingProxyType({"text": 1 / 0.07, "audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0})  # of unit vectors
MAX_SCALE = 100.0
HEAD_DROPOUT = 0.5  # of IMU
EPS = 1e-6  # of every LayerNorm but the stems'


class Attention(nn.Module):
    """Multi-head attention with one packed projection, and in some towers one learned key and value beside the tokens'."""

    def __init__(self, width: int, heads: int, causal: bool, extra_key: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))  # rows of q, then k, then v
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.bias_k = nn.Parameter(torch.empty(1, 1, width)) if extra_key else None
        self.bias_v = nn.Parameter(torch.empty(1, 1, width)) if extra_key else None
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                nn.init.xavier_normal_(extra)

    def forward(self, x_BTW: torch.Tensor) -> torch.Tensor:
        """Tokens to tokens, (B, T, W)."""
        q, k, v = F.linear(x_BTW, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        if self.bias_k is not None and self.bias_v is not None:
            k, v = _appended(k, self.bias_k), _appended(v, self.bias_v)
        q, k, v = (x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in (q, k, v))
        # The causal mask is in the state dict, but the kernel makes it itself, which is faster.
        attended_BHTC = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(attended_BHTC.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers, the inner one 4 times as wide, with exact GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x_BTW: torch.Tensor) -> torch.Tensor:
        """Tokens to tokens."""
        return self.fc2(F.gelu(self.fc1(x_BTW)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm transformer block; in training each of its two branches is dropped for a share of the samples.

    The published code draws what it drops along its first axis, which is the sequence's: token positions for the whole batch at
    once. Here samples are dropped, as the paper's stochastic depth means it. Evaluation is the same.
    """

    def __init__(self, attn: Attention, width: int, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.attn = attn
        self.norm_1 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width)
        self.norm_2 = nn.LayerNorm(width, eps=EPS)

    def forward(self, x_BTW: torch.Tensor) -> torch.Tensor:
        """Tokens to tokens."""
        x_BTW = x_BTW + self._dropped(self.attn(self.norm_1(x_BTW)))
        return x_BTW + self._dropped(self.mlp(self.norm_2(x_BTW)))

    def _dropped(self, branch_BTW: torch.Tensor) -> torch.Tensor:
        if not self.training or self.drop_path == 0:
            return branch_BTW
        keep = 1 - self.drop_path
        return branch_BTW * branch_BTW.new_empty(len(branch_BTW), 1, 1).bernoulli_(keep).div_(keep)


class Trunk(nn.Module):
    """The blocks; vision's have a LayerNorm before them. Drop rates rise in a line from 0 to `drop_path` at the last block."""

    def __init__(self, modality: str, width: int, depth: int, heads: int, drop_path: float) -> None:
        super().__init__()
        if modality == "vision":
            self.pre_transformer_layer: nn.Module = nn.Sequential(nn.LayerNorm(width, eps=EPS))
        else:
            self.pre_transformer_layer = nn.Identity()
        causal, extra_key = modality == "text", modality not in ("vision", "text")
        rates = [drop_path * k / max(depth - 1, 1) for k in range(depth)]
        self.blocks = nn.Sequential(*(Block(Attention(width, heads, causal, extra_key), width, rate) for rate in rates))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x_BTW: torch.Tensor) -> torch.Tensor:
        """Tokens to tokens."""
        return self.blocks(self.pre_transformer_layer(x_BTW))  # type: ignore[no-any-return]


class TextHead(nn.Module):
    """LayerNorm and Linear, under the names that text's have."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.LayerNorm(width, eps=EPS), nn.Linear(width, dim, bias=False))

    def forward(self, x_BW: torch.Tensor) -> torch.Tensor:
        """The pooled token to a vector (B, D)."""
        return self.proj(x_BW)  # type: ignore[no-any-return]


class Scale(nn.Module):
    """Unit vectors times exp of one number, at most 100; the number is learned or fixed."""

    log_logit_scale: torch.Tensor

    def __init__(self, scale: float, learned: bool) -> None:
        super().__init__()
        start = torch.tensor(math.log(scale))
        if learned:
            self.log_logit_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_logit_scale", start)

    def forward(self, unit_BD: torch.Tensor) -> torch.Tensor:
        """(B, D), scaled."""
        return unit_BD * self.log_logit_scale.exp().clamp(max=MAX_SCALE)


class Normalise(nn.Module):
    """Vectors to norm 1."""

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        """(B, D) -> (B, D)."""
        return F.normalize(x_BD, dim=-1)


class ImageBind(nn.Module):
    """The encoders of some modalities, which share nothing but the space that they end in.

    Args:
        sizes: complete, as `HUGE`.
        modalities: official names, in the official order.
    """

    def __init__(self, sizes: Mapping[str, Any], modalities: Iterable[str]) -> None:
        super().__init__()
        dim = sizes["out_embed_dim"]
        width = {m: sizes[f"{m}_embed_dim"] for m in modalities}
        self.modality_preprocessors = nn.ModuleDict({m: _input(m, width[m]) for m in width})
        self.modality_trunks = nn.ModuleDict(
            {
                m: Trunk(m, width[m], sizes[f"{m}_num_blocks"], sizes[f"{m}_num_heads"], sizes.get(f"{m}_drop_path", 0.0))
                for m in width
            }
        )
        self.modality_heads = nn.ModuleDict({m: _head(m, width[m], dim) for m in width})
        scales = {m: [Scale(SCALES[m], learned=m == "text")] if m in SCALES else [] for m in width}
        self.modality_postprocessors = nn.ModuleDict({m: nn.Sequential(Normalise(), *scales[m]) for m in width})

    def encode(self, modality: str, x: torch.Tensor) -> torch.Tensor:
        """Scaled inputs of one modality without a clip axis -> (B, D), of the modality's own norm."""
        source = self.modality_preprocessors[modality]
        x_BTW = self.modality_trunks[modality](source(x))
        pooled_BW = x_BTW[torch.arange(x.shape[0], device=x.device), x.argmax(-1)] if modality == "text" else x_BTW[:, 0]
        return self.modality_postprocessors[modality](self.modality_heads[modality](pooled_BW))  # type: ignore[no-any-return]


def build(sizes: Mapping[str, Any] | None = None, modalities: Iterable[str] | None = None) -> ImageBind:
    """An untrained ImageBind in evaluation mode; its `state_dict` has the names and shapes of the official one.

    Args:
        sizes: what differs from `HUGE`, by the same keys; None is the published imagebind_huge.
        modalities: which encoders to build, by official names or Bindery's; None is all six. "image" and "video" share one.

    Raises:
        ValueError: unknown sizes or modalities, or sizes that cannot be built.
    """
    wanted = set(MODALITIES) if modalities is None else {official(m) for m in modalities}
    return ImageBind(complete(sizes or {}), [m for m in MODALITIES if m in wanted]).eval()


def official(modality: str) -> str:
    """The official name of a modality; Bindery's "image" and "video" are "vision".

    Raises:
        ValueError: ImageBind has no such modality.
    """
    name = ALIASES.get(modality, modality)
    if name not in MODALITIES:
        raise ValueError(f"ImageBind has no modality {modality!r}; it has {', '.join((*ALIASES, *MODALITIES))}")
    return name


def complete(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """`HUGE` with these sizes in place of its own.

    Raises:
        ValueError: unknown keys, or sizes that cannot be built.
    """
    if unknown := sorted(sizes.keys() - HUGE.keys()):
        raise ValueError(f"unknown ImageBind sizes {', '.join(unknown)}; known are {', '.join(HUGE)}")
    made = {**HUGE, **sizes}
    for name, value in made.items():
        if name.endswith("_drop_path"):
            if not 0 <= value < 1:
                raise ValueError(f"ImageBind size {name} is {value}; a drop rate lies from 0 to below 1")
        elif not isinstance(value, int) or value < 1:
            raise ValueError(f"ImageBind size {name} is {value!r}; use a whole number above 0")
    for m in MODALITIES:
        width, heads = made[f"{m}_embed_dim"], made[f"{m}_num_heads"]
        if width % heads:
            raise ValueError(f"ImageBind size {m}_embed_dim is {width}, which {m}_num_heads = {heads} do not divide")
    return made


def reference_forward(model: ImageBind, modality: str, batch: torch.Tensor) -> torch.Tensor:
    """What the official forward gives: scaled vectors, averaged over clips where the input has a clip axis.

    Args:
        model: see `build`.
        modality: the official name or Bindery's.
        batch: normalised as the official loaders do. vision (B, 3, H, W), a set of images (B, S, 3, H, W) or views of a video
            (B, S, 3, 2, H, W); audio (B, 1, 128, 204), depth and thermal (B, 1, 224, 224), all three with S clips after B too;
            imu (B, 6, 2000); text (B, 77) token ids.

    Returns:
        (B, D). Norms are the modality's scale, less where clips differ.

    Raises:
        ValueError: the model has no such modality, or the shape is none of its shapes.
    """
    modality = official(modality)
    if modality not in model.modality_trunks:
        raise ValueError(f"this model was built without {modality!r}; it has {', '.join(model.modality_trunks)}")
    if batch.ndim < 5:
        return model.encode(modality, batch)
    scaled = model.encode(modality, batch.flatten(0, 1))
    return scaled.reshape(*batch.shape[:2], -1).mean(1)


def _appended(x_BTW: torch.Tensor, one_11W: torch.Tensor) -> torch.Tensor:
    return torch.cat([x_BTW, one_11W.to(x_BTW.dtype).expand(x_BTW.shape[0], 1, -1)], 1)


def _input(modality: str, width: int) -> nn.Module:
    if modality == "vision":
        return VisionInput(width)
    if modality == "text":
        return TextInput(width)
    if modality == "imu":
        return TraceInput(width)
    return PictureInput(modality, width)


def _head(modality: str, width: int, dim: int) -> nn.Module:
    """The official head picks its token in second place; here the token comes picked, so that one is normalised, not all."""
    if modality == "text":
        return TextHead(width, dim)
    dropout = [nn.Dropout(HEAD_DROPOUT)] if modality == "imu" else []
    return nn.Sequential(nn.LayerNorm(width, eps=EPS), nn.Identity(), *dropout, nn.Linear(width, dim, bias=False))
