"""Where a video cuts from one scene to the next. In: a clip and a stretch of it. Out: the scenes in it, in seconds.

PySceneDetect's content detector looks at every frame: the mean change of hue, saturation and brightness from frame to frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from encoders.media.video import Clip

THRESHOLD = 27.0  # PySceneDetect's own default: levels of 255 that frames differ by at a cut
SHORTEST_S = 0.6  # scenes; a cut sooner after another is none
SIDE = 64  # pixels of the short side of the frames that are compared
SCENES = f"content-{THRESHOLD:g}-{SHORTEST_S:g}-{SIDE}"  # names this way of finding them
_TICKS_HZ = 1_000_000  # the detector counts these, not frames: the rate of frames may vary


def find_scenes(clip: Clip, start_s: float, end_s: float) -> list[tuple[float, float]]:
    """The scenes between two times of a clip, in order and without gaps; the first starts and the last ends there.

    Decodes the stretch once, from the keyframe before it.

    Raises:
        DecodeError: the video is damaged.
    """
    from scenedetect import FrameTimecode
    from scenedetect.detectors import ContentDetector

    detector = ContentDetector(threshold=THRESHOLD, min_scene_len=round(SHORTEST_S * _TICKS_HZ))
    cuts: list[float] = []
    for time_s, frame in _with_stills(clip.stream(start_s, end_s, SIDE), end_s):
        code = FrameTimecode(round(time_s * _TICKS_HZ), float(_TICKS_HZ))
        found = detector.process_frame(code, np.ascontiguousarray(frame[:, :, ::-1]))
        cuts += [cut.frame_num / _TICKS_HZ for cut in found]
    inside = [cut for cut in cuts if start_s + SHORTEST_S <= cut <= end_s - SHORTEST_S]
    return list(itertools.pairwise([start_s, *inside, end_s]))


def _with_stills(frames: Iterable[tuple[float, np.ndarray]], end_s: float) -> Iterator[tuple[float, np.ndarray]]:
    """Frames with their times, one that stays on show twice.

    After quick changes the detector waits for a frame like the one before; slides, one frame each, have none.
    """
    shown: tuple[float, np.ndarray] | None = None
    for timed in frames:
        if shown is not None and timed[0] - shown[0] > SHORTEST_S:
            yield shown[0] + SHORTEST_S, shown[1]
        yield timed
        shown = timed
    if shown is not None and end_s - shown[0] > SHORTEST_S:
        yield shown[0] + SHORTEST_S, shown[1]
