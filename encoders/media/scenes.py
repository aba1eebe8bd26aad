"""Where a video cuts from one scene to the next. In: a clip and a stretch of it. Out: the scenes in it, in seconds.

PySceneDetect's content detector looks at every frame: the mean change of hue, saturation and brightness from frame to frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from encoders.media.video import Clip

THRESHOLD = 27.0  # PySceneDetect's own default: levels of 255 that frames differ by at a cut
SHORTEST_S = 0.6  # scenes; a cut sooner after another is none
SIDE = 64  # pixels of the short side of the frames that are compared
FRAMES_AT_ONCE = 256
SCENES = f"content-{THRESHOLD:g}-{SHORTEST_S:g}-{SIDE}"  # names this way of finding them


def find_scenes(clip: Clip, start_s: float, end_s: float) -> list[tuple[float, float]]:
    """The scenes between two times of a clip, in order and without gaps; the first starts and the last ends there.

    Raises:
        DecodeError: the video is damaged.
    """
    from scenedetect import FrameTimecode
    from scenedetect.detectors import ContentDetector

    detector = ContentDetector(threshold=THRESHOLD, min_scene_len=max(1, round(SHORTEST_S * clip.rate_hz)))
    cuts: list[float] = []
    for number, frame in enumerate(_frames(clip, start_s, end_s)):
        found = detector.process_frame(FrameTimecode(number, clip.rate_hz), np.ascontiguousarray(frame[:, :, ::-1]))
        cuts += [start_s + code.frame_num / clip.rate_hz for code in found]
    inside = [cut for cut in cuts if start_s + SHORTEST_S <= cut <= end_s - SHORTEST_S]
    return list(itertools.pairwise([start_s, *inside, end_s]))


def _frames(clip: Clip, start_s: float, end_s: float) -> Iterator[np.ndarray]:
    """Every frame between two times, uint8 (H, W, 3) in RGB, a few seconds decoded at once."""
    count = max(1, int((end_s - start_s) * clip.rate_hz + 1e-6))
    for first in range(0, count, FRAMES_AT_ONCE):
        at = start_s + (np.arange(first, min(count, first + FRAMES_AT_ONCE)) + 0.5) / clip.rate_hz
        yield from clip.frames_at(at.tolist(), SIDE)
