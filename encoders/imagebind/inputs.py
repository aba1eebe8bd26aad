"""From scaled inputs to tokens, one class a kind of input: stem, class token, positions.

The modules bear the names of the official checkpoint.  B batch, C channels, H height, W width (of a token too), T tokens.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

FRAMES = 2  # of a clip
VISION_PATCH, VISION_GRID = 14, 16  # pixels; patches a side at 224 pixels
PICTURES = {  # patch side and stride in pixels, (height, width) of the input
    "audio": (16, 10, (128, 204)),
    "depth": (16, 16, (224, 224)),
    "thermal": (16, 16, (224, 224)),
}
CHANNELS, STEPS, WINDOW = 6, 2000, 8  # of IMU: accelerometer and gyroscope, samples, samples a token
VOCABULARY, CONTEXT = 49_408, 77


class Positions(nn.Module):
    """A learned position table (1, T, W), class token first."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, width) * width**-0.5)


class Stem(nn.Module):
    """A layer that makes tokens of patches, and a LayerNorm."""

    def __init__(self, proj: nn.Module, width: int) -> None:
        super().__init__()
        self.proj = proj
        self.norm_layer = nn.LayerNorm(width)  # eps 1e-5 here, unlike everywhere else


class FramesStem(nn.Module):
    """The convolution over pairs of frames, in the place that the checkpoint has it: behind a layer without parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        kernel = (FRAMES, VISION_PATCH, VISION_PATCH)
        self.proj = nn.Sequential(nn.Identity(), nn.Conv3d(3, width, kernel, kernel, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) or clips of two frames (B, 3, 2, H, W) -> (B, W, H / 14, W / 14).

        One temporal slice is all there is, so that a 2-D convolution does it. An image stands for a clip of two equal frames.
        """
        weight = self.proj.get_parameter("1.weight")
        if x.ndim == 4:
            return F.conv2d(x, weight.sum(2), stride=VISION_PATCH)
        return F.conv2d(x.flatten(1, 2), weight.flatten(1, 2), stride=VISION_PATCH)


class VisionInput(nn.Module):
    """Images, or clips of two frames."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_token = _class_token(width)
        self.rgbt_stem = FramesStem(width)
        self.pos_embedding_helper = Positions(VISION_GRID**2 + 1, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) or (B, 3, 2, H, W), H = W -> (B, T, W).

        Raises:
            ValueError: another shape.
        """
        if x.ndim not in (4, 5) or x.shape[1] != 3 or x.shape[-1] != x.shape[-2] or (x.ndim == 5 and x.shape[2] != FRAMES):
            raise ValueError(
                f"vision takes square images (B, 3, H, H) or clips of two frames (B, 3, 2, H, H), with clips S as "
                f"(B, S, 3, H, H) or (B, S, 3, 2, H, H); without the batch and clip axes this one is {_shape(x)}"
            )
        patches_BWHW = self.rgbt_stem(x)
        position = _resized(self.pos_embedding_helper.pos_embed, patches_BWHW.shape[-1])
        return _with_class(self.cls_token, patches_BWHW.flatten(2).transpose(1, 2)) + position


class PictureInput(nn.Module):
    """Pictures of one channel and one size: audio's spectrograms, depth, thermal."""

    def __init__(self, modality: str, width: int) -> None:
        super().__init__()
        kernel, stride, self.size = PICTURES[modality]
        self.modality = modality
        self.cls_token = _class_token(width)
        self.stem_name = "depth_stem" if modality == "depth" else "rgbt_stem"
        self.add_module(self.stem_name, Stem(nn.Conv2d(1, width, kernel, stride, bias=False), width))
        tokens = math.prod((side - kernel) // stride + 1 for side in self.size)
        self.pos_embedding_helper = Positions(tokens + 1, width)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) -> (B, T, W), patches row by row.

        Raises:
            ValueError: another shape.
        """
        if tuple(x_BCHW.shape[1:]) != (1, *self.size):
            raise ValueError(
                f"{self.modality} takes (B, 1, {self.size[0]}, {self.size[1]}), or that with a clip axis after B; without the "
                f"batch and clip axes this one is {_shape(x_BCHW)}"
            )
        stem = self.get_submodule(self.stem_name)
        assert isinstance(stem, Stem)
        tokens_BTW = stem.norm_layer(stem.proj(x_BCHW).flatten(2).transpose(1, 2))
        return _with_class(self.cls_token, tokens_BTW) + self.pos_embedding_helper.pos_embed


class TraceInput(nn.Module):
    """IMU signals, in windows that do not overlap."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, STEPS // WINDOW + 1, width) * 0.01)
        self.cls_token = _class_token(width)
        self.imu_stem = Stem(nn.Linear(CHANNELS * WINDOW, width, bias=False), width)

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        """(B, 6, 2000 to 2007), the rest over 2000 cut off -> (B, 251, W). A window's numbers are channel by channel.

        Raises:
            ValueError: another shape.
        """
        if x_BCT.ndim != 3 or x_BCT.shape[1] != CHANNELS or x_BCT.shape[2] // WINDOW != STEPS // WINDOW:
            raise ValueError(f"imu takes (B, {CHANNELS}, {STEPS}); without the batch axis this one is {_shape(x_BCT)}")
        windows = x_BCT[..., :STEPS].reshape(x_BCT.shape[0], CHANNELS, -1, WINDOW).transpose(1, 2).flatten(2)
        return _with_class(self.cls_token, self.imu_stem.norm_layer(self.imu_stem.proj(windows))) + self.pos_embed


class TextInput(nn.Module):
    """Token ids of CLIP's vocabulary. The mask is part of the checkpoint; attention makes its own, equal one."""

    mask: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, CONTEXT, width) * 0.01)
        self.register_buffer("mask", torch.full((CONTEXT, CONTEXT), -math.inf).triu(1))
        self.token_embedding = nn.Embedding(VOCABULARY, width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Whole numbers (B, 77) -> (B, 77, W).

        Raises:
            ValueError: another shape.
        """
        if ids_BT.ndim != 2 or ids_BT.shape[1] != CONTEXT:
            raise ValueError(f"text takes (B, {CONTEXT}) token ids; without the batch axis this one is {_shape(ids_BT)}")
        return self.token_embedding(ids_BT) + self.pos_embed  # type: ignore[no-any-return]


def _class_token(width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(1, 1, width) * width**-0.5)


def _with_class(token: torch.Tensor, x_BTW: torch.Tensor) -> torch.Tensor:
    return torch.cat([token.to(x_BTW.dtype).expand(x_BTW.shape[0], -1, -1), x_BTW], 1)


def _resized(position_1TW: torch.Tensor, side: int) -> torch.Tensor:
    """Vision's position table for `side` x `side` patches: bicubic without anti-aliasing, in float32; the class's stays."""
    if side == VISION_GRID:
        return position_1TW
    grid_1WHW = position_1TW[:, 1:].float().transpose(1, 2).reshape(1, -1, VISION_GRID, VISION_GRID)
    resized = F.interpolate(grid_1WHW, (side, side), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    return torch.cat([position_1TW[:, :1], resized.to(position_1TW.dtype)], 1)


def _shape(x: torch.Tensor) -> tuple[int, ...]:
    return tuple(x.shape[1:])
