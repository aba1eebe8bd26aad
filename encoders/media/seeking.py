"""Frames of a video stream by time or by number. In: an open PyAV container. Out: decoded frames, as FFmpeg holds them.

They are decoded one after the other; those far ahead are sought by the keyframe before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import av
import av.container
import av.video

from encoders.errors import DecodeError

SEEK_GAP_S = 10.0  # a wanted frame further ahead than this is sought by its keyframe, a nearer one decoded towards
MIN_SHARE = 0.5  # of the promised duration that must be there; a clip cut off earlier is refused


def video_stream(container: av.container.InputContainer) -> av.video.VideoStream:
    """The film itself, not a cover picture; decoded on one thread.

    Raises:
        DecodeError: there is none.
    """
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None:
            stream.codec_context.thread_count = 1  # an actor owns one core; FFmpeg would take them all
            return stream
    raise DecodeError("the file has no video stream; a sound file is embedded as audio")


def frames_on_show(
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    times_s: Sequence[float],
    duration_s: float,
    frame_s: float,
) -> Iterator[av.VideoFrame | None]:
    """For each time the frame on show then, None for the same as before."""
    decoder = timed_frames(container, stream, frame_s)
    shown, shown_s = None, 0.0  # the frame on show, and since when
    following = next(decoder, None)
    for time_s in times_s:
        if _worth_seeking(stream, following[0] if following else shown_s, time_s):
            container.seek(_to_pts(stream, time_s), stream=stream)
            decoder = timed_frames(container, stream, frame_s)
            following = next(decoder, None) or following
        fresh = False
        while following and (following[0] <= time_s + frame_s / 4 or shown is None):
            (shown_s, shown), fresh = following, True
            following = next(decoder, None)
        if shown is None:
            raise DecodeError("the video has no frame that can be decoded; write the file again")
        if following is None and shown_s + frame_s < MIN_SHARE * time_s:
            raise DecodeError(f"the video ends at {shown_s:.1f} s of {duration_s:.1f} s: cut off; copy the file again")
        yield shown if fresh else None


def frames_between(
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    start_s: float,
    end_s: float,
    frame_s: float,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """The frame on show at `start_s`, or else the next there is, and those that follow before `end_s`; with their times."""
    if start_s > SEEK_GAP_S:
        container.seek(_to_pts(stream, start_s), stream=stream)
    decoder = timed_frames(container, stream, frame_s)
    shown = next(decoder, None)
    if shown is None:
        raise DecodeError("the video has no frame that can be decoded; write the file again")
    for following in decoder:
        if following[0] >= end_s - frame_s / 4:
            break
        if following[0] > start_s + frame_s / 4:
            yield shown
        shown = following
    else:
        if shown[0] + frame_s < MIN_SHARE * end_s:
            raise DecodeError(f"the video ends at {shown[0]:.1f} s, before {end_s:.1f} s: cut off; copy the file again")
    yield shown


def frames_numbered(
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    numbers: Sequence[int],
    times_s: Sequence[float],
    frame_s: float,
) -> Iterator[av.VideoFrame]:
    """The frames of these rising numbers, found by the time each is shown."""
    decoder, reached_s = timed_frames(container, stream, frame_s), 0.0
    for number in numbers:
        if _worth_seeking(stream, reached_s, times_s[number]):
            container.seek(_to_pts(stream, times_s[number]), stream=stream)
            decoder = timed_frames(container, stream, frame_s)
        found = next((f for f in decoder if f[0] > times_s[number] - frame_s / 4), None)
        if found is None:
            raise DecodeError(
                f"frame {number:,} of {len(times_s):,} cannot be decoded: damaged or cut off; write the file again"
            )
        reached_s = found[0]
        yield found[1]


def timed_frames(
    container: av.container.InputContainer, stream: av.video.VideoStream, frame_s: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Decoded frames with their time in seconds from the start of the stream; packets that are damaged are passed over."""
    origin = float((stream.start_time or 0) * stream.time_base) if stream.time_base else 0.0
    time_s = -frame_s
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        for frame in frames:
            time_s = time_s + frame_s if frame.time is None else frame.time - origin
            yield time_s, frame


def _worth_seeking(stream: av.video.VideoStream, reached_s: float, time_s: float) -> bool:
    """Whether a time is far ahead of what is decoded, and a keyframe before it too, as far as the file's index tells.

    Without the second, every frame of a film with one keyframe would be decoded anew for each one that is wanted.
    """
    if time_s - reached_s <= SEEK_GAP_S:
        return False
    index, wanted = stream.index_entries, _to_pts(stream, time_s)
    if not len(index) or index[-1].timestamp < wanted:  # nothing known, or not that far
        return True
    at = index.search_timestamp(wanted)
    return at < 0 or index[at].timestamp > _to_pts(stream, reached_s)


def _to_pts(stream: av.video.VideoStream, time_s: float) -> int:
    return int(time_s / stream.time_base) + (stream.start_time or 0) if stream.time_base else 0


def rotation_of(container: av.container.InputContainer, stream: av.video.VideoStream) -> int:
    """Degrees counter-clockwise, a multiple of 90, that set a frame upright: phones film sideways and say so."""
    first = next(timed_frames(container, stream, 0.0), None)
    if first is None:
        raise DecodeError("the video has no frame that can be decoded; write the file again")
    return round(first[1].rotation / 90) % 4 * 90


def duration_of(container: av.container.InputContainer, stream: av.video.VideoStream) -> float:
    """Of the stream, else of the container, else by reading every packet (recordings from a browser say nothing)."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return float(container.duration / av.time_base)
    container.seek(0)
    last = max((p.pts + (p.duration or 0) for p in container.demux(stream) if p.pts is not None), default=0)
    return float((last - (stream.start_time or 0)) * stream.time_base) if stream.time_base else 0.0
