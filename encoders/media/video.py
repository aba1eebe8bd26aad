"""Video: MP4, MOV, MKV, WebM, AVI, ... bytes, files, URIs, arrays of frames -> a clip -> frames at times, facts.

Only frames that are asked for are kept; files are streamed, never read whole. `encoders.media.seeking` finds them.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Self

import av
import numpy as np
import torch
from av.video.reformatter import Interpolation, VideoReformatter

from encoders.errors import DecodeError, TooLargeError
from encoders.media.containers import open_container
from encoders.media.previews import LONGEST_SIDE, picture_preview
from encoders.media.seeking import duration_of, frames_between, frames_numbered, frames_on_show, rotation_of, video_stream
from encoders.media.sniff import HEAD_BYTES, sniff
from encoders.media.types import Facts, Media, read_head

MAX_PIXELS = 8192 * 8192  # of one frame
MAX_DURATION_S = 24 * 3600.0
ARRAY_RATE_HZ = 25.0  # of frames that come as an array without a rate


class Clip:
    """A video whose frames are decoded when asked for, upright.

    Attributes:
        width, height: of a frame, upright, in pixels.
        duration_s: seconds.
        rate_hz: frames a second, on average.
        mime: MIME type of the file; None for one that never was a file.
    """

    _start_s: float  # where a part begins, in seconds of the whole
    _is_part = False
    _whole: Clip | None = None  # of a part: what it is part of, which knows when each frame is shown
    _poster: np.ndarray | None

    def __init__(self, media: Media) -> None:
        self._media = media
        self._start_s, self._poster = 0.0, None
        self.mime = sniff(read_head(media, HEAD_BYTES), "").mime
        with open_container(media) as container:
            stream = video_stream(container)
            self._rotation = rotation_of(container, stream)
            self._stored_size = width, height = stream.codec_context.width, stream.codec_context.height
            self.width, self.height = (height, width) if self._rotation % 180 else (width, height)
            self.rate_hz = float(stream.average_rate or stream.guessed_rate or ARRAY_RATE_HZ)
            self.duration_s = duration_of(container, stream)
        if width * height > MAX_PIXELS:
            raise TooLargeError(f"frames of {width} x {height} pixels, at most {MAX_PIXELS:,} are taken; shrink the video")
        if self.duration_s > MAX_DURATION_S:
            raise TooLargeError(f"{self.duration_s:,.0f} s of video, at most {MAX_DURATION_S:,.0f} s are taken; split it")

    def part(self, start_s: float, end_s: float) -> Self:
        """The stretch between two times in seconds, as far as the clip goes; a view, nothing is decoded yet.

        Raises:
            DecodeError: it has no duration.
        """
        first_s, last_s = (max(0.0, min(time_s, self.duration_s)) for time_s in (start_s, end_s))
        if not last_s > first_s:
            raise DecodeError(f"no video between {start_s:.3f} s and {end_s:.3f} s: it lasts {self.duration_s:.3f} s")
        part = copy.copy(self)
        part._start_s, part.duration_s, part._is_part, part._poster = self._start_s + first_s, last_s - first_s, True, None
        part._whole = self._whole or self
        return part

    def frames(self, count: int, at_least: int | None = None) -> np.ndarray:
        """`count` frames spread evenly over the clip: those on show at (i + 1/2) / count of its duration.

        Args:
            count: how many; a clip of fewer frames repeats some.
            at_least: pixels that the short side needs; larger frames are shrunk to it while they are converted.

        Returns:
            uint8 (count, H, W, 3).

        Raises:
            DecodeError: damaged, without frames, or cut off before half of its duration.
        """
        frames = self.frames_at([(i + 0.5) / count * self.duration_s for i in range(count)], at_least)
        self._poster = frames[count // 2]
        return frames

    def frames_at(self, times_s: Sequence[float], at_least: int | None = None) -> np.ndarray:
        """The frames on show at rising times in seconds from the start, uint8 (len(times_s), H, W, 3); else as `frames`."""
        with open_container(self._media) as container:
            stream = video_stream(container)
            converter = VideoReformatter()  # one for all frames: it costs as much to set up as to decode a small one
            frames: list[np.ndarray] = []
            times_s = [self._start_s + time_s for time_s in times_s]
            for frame in frames_on_show(container, stream, times_s, self._start_s + self.duration_s, 1 / self.rate_hz):
                frames.append(frames[-1] if frame is None else self._convert(converter, frame, at_least))
        return np.stack(frames)

    def stream(self, start_s: float, end_s: float, at_least: int | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """Every frame between two times, decoded in one pass from the keyframe before; one at least, and one held at a time.

        Args:
            start_s, end_s: seconds from the start of the clip.
            at_least: as of `frames`.

        Yields:
            Since when it is shown, in seconds from the start of the clip, and the frame, uint8 (H, W, 3). The first is the one
            on show at `start_s`.

        Raises:
            DecodeError: damaged, without frames, or cut off before half of what comes before `end_s`.
        """
        first_s, last_s = self._start_s + start_s, self._start_s + min(end_s, self.duration_s)
        with open_container(self._media) as container:
            stream, converter = video_stream(container), VideoReformatter()
            for shown_s, frame in frames_between(container, stream, first_s, last_s, 1 / self.rate_hz):
                yield max(start_s, shown_s - self._start_s), self._convert(converter, frame, at_least)

    @property
    def num_frames(self) -> int:
        """How many frames there are; found by reading every packet, though decoding none."""
        first, end = self._numbers()
        return end - first

    def numbered(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Frames by their number from 0, uint8 (H, W, 3) in full size as stored, so not set upright.

        Args:
            numbers: rising, below `num_frames`.

        Raises:
            DecodeError: one of them cannot be decoded, nor any after it.
        """
        first, _ = self._numbers()
        times_s = (self._whole or self)._times_s
        with open_container(self._media) as container:
            stream = video_stream(container)
            for frame in frames_numbered(container, stream, [first + n for n in numbers], times_s, 1 / self.rate_hz):
                yield frame.to_ndarray(format="rgb24")

    def _numbers(self) -> tuple[int, int]:
        """The frames of this part, (first, end) in numbers of the whole file."""
        times_s, slack_s = (self._whole or self)._times_s, 0.25 / self.rate_hz
        return (
            bisect_left(times_s, self._start_s - slack_s),
            bisect_left(times_s, self._start_s + self.duration_s - slack_s) if self._is_part else len(times_s),
        )

    @cached_property
    def _times_s(self) -> list[float]:
        """When each frame of the file is shown, in seconds from its start; evenly spaced where the file does not say."""
        with open_container(self._media) as container:
            stream = video_stream(container)
            origin, unit_s = stream.start_time or 0, float(stream.time_base or 0)
            stamps = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
        known = sorted(stamp for stamp in stamps if stamp is not None)
        if len(known) < len(stamps):
            return [k / self.rate_hz for k in range(len(stamps))]
        return [(stamp - origin) * unit_s for stamp in known]

    def poster(self) -> np.ndarray:
        """A frame of the middle, uint8 (H, W, 3): one that was decoded before, if any."""
        if self._poster is None:
            self._poster = self.frames_at([self.duration_s / 2], LONGEST_SIDE)[0]
        return self._poster

    def _convert(self, converter: VideoReformatter, frame: av.VideoFrame, at_least: int | None) -> np.ndarray:
        factor = min(1.0, (at_least or math.inf) / min(self._stored_size))
        width, height = (max(1, round(side * factor)) for side in self._stored_size)  # one size, should frames change theirs
        rgb = converter.reformat(frame, width, height, "rgb24", interpolation=Interpolation.AREA).to_ndarray()
        return np.ascontiguousarray(np.rot90(rgb, self._rotation // 90))


class ArrayClip(Clip):
    """Frames that are in memory already."""

    def __init__(self, frames: np.ndarray, rate_hz: float) -> None:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
            raise DecodeError(f"video frames are uint8 (N, H, W, 3), not {frames.dtype} {frames.shape}")
        self._frames = frames
        self._start_s, self._poster = 0.0, None
        self.height, self.width = frames.shape[1:3]
        self.rate_hz, self.duration_s, self.mime = rate_hz, len(frames) / rate_hz, None

    def frames_at(self, times_s: Sequence[float], at_least: int | None = None) -> np.ndarray:
        """As of `Clip`; frames come in their own size."""
        at = np.clip(np.floor((self._start_s + np.asarray(times_s)) * self.rate_hz + 1e-6), 0, len(self._frames) - 1)
        return self._frames[at.astype(int)]  # type: ignore[no-any-return]

    def stream(self, start_s: float, end_s: float, at_least: int | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """As of `Clip`; frames come in their own size."""
        slack_s = 0.25 / self.rate_hz
        at_s, until_s = self._start_s + start_s + slack_s, self._start_s + min(end_s, self.duration_s) - slack_s
        first = max(0, min(bisect_right(self._times_s, at_s), len(self._frames)) - 1)
        for k in range(first, max(first + 1, bisect_left(self._times_s, until_s))):
            yield max(start_s, self._times_s[k] - self._start_s), self._frames[k]

    def numbered(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """As of `Clip`."""
        first, _ = self._numbers()
        yield from (self._frames[first + n] for n in numbers)

    @cached_property
    def _times_s(self) -> list[float]:
        return [k / self.rate_hz for k in range(len(self._frames))]


def decode_video(media: Media) -> Clip:
    """Bytes, pathlib.Path, URI, open binary file (streamed); numpy uint8 (N, H, W, 3), or with its rate: (frames, rate_hz).

    Raises:
        DecodeError: no video that FFmpeg can read, or no video stream.
        TooLargeError: frames beyond MAX_PIXELS or longer than MAX_DURATION_S.
    """
    if isinstance(media, Clip):
        return media
    if isinstance(media, np.ndarray):
        return ArrayClip(media, ARRAY_RATE_HZ)
    if isinstance(media, tuple):
        return ArrayClip(np.asarray(media[0]), float(media[1]))
    return Clip(media)


def describe_video(clip: Clip) -> Facts:
    """Size, duration, type and a small JPEG of the middle."""
    preview = picture_preview(torch.from_numpy(clip.poster()))
    return Facts(mime=clip.mime, width=clip.width, height=clip.height, duration_s=clip.duration_s, preview=preview)
