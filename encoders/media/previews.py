"""Small pictures for the table. In: pictures, waveforms, series, maps. Out: JPEG bytes of at most 6 KB, 128 px."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from encoders.media.shrink import pixels_of, shrunk

LONGEST_SIDE = 128  # pixels
MAX_PREVIEW_BYTES = 6 * 1024
PLOT_SIZE = (128, 64)  # pixels
_QUALITIES = (75, 50, 25, 10)
_BACKGROUND, _AXIS = (250, 250, 250), (205, 205, 210)
_WAVE = (42, 111, 151)
_LINES = ((200, 60, 50), (50, 140, 70), (50, 90, 190))  # x, y, z
# Dark to light, evenly spaced in lightness; between the stops it is linear.
_STOPS = np.array([(13, 8, 64), (84, 20, 122), (152, 45, 110), (214, 82, 75), (247, 146, 60), (250, 219, 124), (255, 252, 225)])
COLOUR_MAP = np.stack([np.interp(np.linspace(0, 6, 256), np.arange(7), c) for c in _STOPS.T], 1).round().astype(np.uint8)


def picture_preview(pixels_HWC: torch.Tensor) -> bytes:
    """A picture, uint8 (H, W, C) of which the first three channels are RGB, shrunk to at most 128 px, as JPEG."""
    height, width = pixels_HWC.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1:
        size = max(1, round(height * scale)), max(1, round(width * scale))
        pixels_HWC = torch.from_numpy(shrunk(pixels_HWC, size, "bilinear"))
    picture = Image.fromarray(pixels_HWC[..., :3].numpy())
    data = b""
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        data = buffer.getvalue()
        if len(data) <= MAX_PREVIEW_BYTES:
            break
    return data


def map_preview(values: np.ndarray) -> bytes:
    """A float map (H, W) in false colours from its 1st to its 99th percentile, dark is low; NaN is grey."""
    known = np.isfinite(values)
    low, high = np.percentile(values[known], (1, 99))
    level = (np.where(known, values, low) - low) / max(high - low, 1e-9)
    colours = COLOUR_MAP[(np.clip(level, 0, 1) * 255).astype(np.uint8)]
    colours[~known] = 128
    return picture_preview(torch.from_numpy(colours))


def wave_preview(lowest: np.ndarray, highest: np.ndarray) -> bytes:
    """A waveform from the lowest and highest sample of each column, scaled to its loudest."""
    width, height = PLOT_SIZE
    image = Image.new("RGB", PLOT_SIZE, _BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.line((0, height // 2, width, height // 2), fill=_AXIS)
    scale = (height / 2 - 2) / max(float(np.abs([lowest, highest]).max()), 1e-4)
    for x, (low, high) in enumerate(zip(lowest, highest, strict=True)):
        draw.line((x, height / 2 - high * scale, x, height / 2 - low * scale), fill=_WAVE)
    return picture_preview(pixels_of(image))


def series_preview(panels: Sequence[np.ndarray]) -> bytes:
    """Panels above each other, each (T, 3) drawn as three lines (x red, y green, z blue) on a scale of its own."""
    width, height = PLOT_SIZE
    image = Image.new("RGB", PLOT_SIZE, _BACKGROUND)
    draw = ImageDraw.Draw(image)
    tall = height // len(panels)
    for index, panel in enumerate(panels):
        columns = panel[np.linspace(0, len(panel) - 1, width).astype(int)]
        low, high = float(columns.min()), float(columns.max())
        y = index * tall + 2 + (tall - 5) * (1 - (columns - low) / max(high - low, 1e-6))
        draw.line((0, (index + 1) * tall - 1, width, (index + 1) * tall - 1), fill=_AXIS)
        for line, colour in zip(y.T, _LINES, strict=True):
            draw.line([(x, float(value)) for x, value in enumerate(line)], fill=colour)
    return picture_preview(pixels_of(image))
