"""Building blocks of towers. In: token or grid tensors. Out: tokens, vectors.

B batch, T tokens, W width of a token, C channels, D dimension of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from encoders.errors import SpaceError

POSITION_STD = 0.02


@dataclass(frozen=True)
class Size:
    """Of a tower of tokens: width of a token, how many blocks of how many heads, channels of a `ConvStem`."""

    width: int
    depth: int
    heads: int
    stem: tuple[int, ...]


# "tiny" suits thousands of pairs, "small" hundreds of thousands, "base" millions. M parameters: 0.4, 5, 34.
SIZES = {
    "tiny": Size(128, 2, 4, (32, 64, 128)),
    "small": Size(256, 8, 8, (64, 128, 256)),
    "base": Size(512, 16, 8, (96, 192, 384)),
}


def size_named(name: str) -> Size:
    """The size of this name.

    Raises:
        SpaceError: there is none.
    """
    if name not in SIZES:
        raise SpaceError(f"no size {name!r}; there are {', '.join(SIZES)}")
    return SIZES[name]


def sized(name: str) -> dict[str, str]:
    """A size as a setting of an encoder; "tiny" goes without saying, as encoders that were made before there were others."""
    return {} if name == "tiny" else {"size": name}


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int = 4, mlp_ratio: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)  # a bias of the keys would never receive a gradient
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))

    def forward(self, x_BTW: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens to tokens; `mask` is bool, broadcast to (B, heads, T, T), True where a query may look at a key."""
        q, k, v = self.qkv(self.attention_norm(x_BTW)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x_BTW = x_BTW + self.attention_out(attended.transpose(1, 2).flatten(2))
        return x_BTW + self.mlp(self.mlp_norm(x_BTW))  # type: ignore[no-any-return]


class ConvStem(nn.Module):
    """A picture to tokens: one 6x6 convolution of stride 4, 3x3 ones of stride 2, BatchNorm and ReLU after each.

    Args:
        in_channels: of the picture.
        channels: of each convolution; a stem of three shrinks each side sixteenfold.
        width: of a token.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip((in_channels, *channels), channels, strict=False)):
            kernel, stride = (6, 4) if index == 0 else (3, 2)
            layers += [nn.Conv2d(before, after, kernel, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], width, 1)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, T, W), T = H / 16 * W / 16 for a stem of three, row by row."""
        return self.layers(x_BCHW.contiguous(memory_format=torch.channels_last)).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class SeriesStem(nn.Module):
    """A time series to tokens: three 1-D convolutions of stride 2, so eight samples become one token."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv1d(in_channels, 64, 9, 2, padding=4), nn.BatchNorm1d(64), nn.ReLU()),
            *(nn.Conv1d(64, 128, 7, 2, padding=3), nn.BatchNorm1d(128), nn.ReLU()),
            nn.Conv1d(128, width, 5, 2, padding=2),
        )

    def forward(self, x_BCS: torch.Tensor) -> torch.Tensor:
        """(B, C, S) -> (B, T, W), T = S / 8 samples."""
        return self.layers(x_BCS).transpose(1, 2)  # type: ignore[no-any-return]


class TokenTower(nn.Module):
    """stem -> tokens + positions -> blocks -> norm -> mean -> linear head. Subclasses give `forward` its feature names.

    Args:
        stem: (B, ...) -> (B, tokens, width).
        tokens: T, how many the stem makes.
        width: W, of a token.
        depth: how many blocks.
        dim: D, of the vector.
        heads: of each block.
    """

    def __init__(self, stem: nn.Module, tokens: int, width: int, depth: int, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.stem = stem
        self.position = nn.Parameter(torch.randn(1, tokens, width) * POSITION_STD)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, dim)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """What the stem takes, in any number type -> (B, D), not normalised."""
        x_BTW = self.stem(x.to(self.position.dtype)) + self.position
        for block in self.blocks:
            x_BTW = block(x_BTW)
        return self.head(self.norm(x_BTW).mean(1))  # type: ignore[no-any-return]


class PixelScale(nn.Module):
    """uint8 to [-1, 1], as a tower's first layer: what travels to it stays 8-bit. Holds no weights."""

    centre: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.tensor(127.5), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels / 127.5 - 1, in the tower's number type."""
        return pixels.to(self.centre.dtype) / self.centre - 1
