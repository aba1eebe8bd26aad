"""Scenes: found in one pass over a stretch of a video, where the picture changes, whatever the rate of its frames."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import pytest
from sample_media import moving, sample_files, video_file

from encoders.errors import DecodeError
from encoders.media import seeking
from encoders.media.scenes import find_scenes
from encoders.media.video import decode_video

COLOURS = ((200, 30, 30), (20, 60, 200), (30, 160, 40), (220, 220, 220), (10, 10, 10))


def film(shown_ms: list[int], colours: list[int]) -> bytes:
    """A film with a single keyframe: a frame of one colour for each time it begins to be shown."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25, options={"sc_threshold": "0", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.time_base = 96, 64, "yuv420p", Fraction(1, 1000)
        stream.gop_size = 1_000_000
        for at_ms, colour in zip(shown_ms, colours, strict=True):
            picture = av.VideoFrame.from_ndarray(np.full((64, 96, 3), COLOURS[colour], np.uint8), format="rgb24")
            picture.pts, picture.time_base = at_ms, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


class Counting(io.BytesIO):
    """A file that counts how often its first bytes are read, as opening it does."""

    opened = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.opened += self.tell() == 0
        return super().read(size)


def test_late_cuts_of_a_film_with_one_keyframe_are_found_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 s of ten frames a second; cut at 81 s and 90.5 s. Nothing is decoded twice, though 256 frames are a quarter of it."""
    cuts_s = (81.0, 90.5)
    file = Counting(film([100 * k for k in range(1000)], [sum(k >= 10 * cut for cut in cuts_s) for k in range(1000)]))
    decoded, timed = 0, seeking.timed_frames

    def counted(*args: object) -> Iterator[object]:
        nonlocal decoded
        for frame in timed(*args):  # type: ignore[arg-type]
            decoded += 1
            yield frame

    clip = decode_video(file)
    monkeypatch.setattr(seeking, "timed_frames", counted)
    file.opened = 0
    assert find_scenes(clip, 0.0, 100.0) == [(0.0, 81.0), (81.0, 90.5), (90.5, 100.0)]
    assert (file.opened, decoded) == (1, 1000)
    file.opened = decoded = 0
    assert find_scenes(clip, 60.0, 85.0) == [(60.0, 81.0), (81.0, 85.0)]
    assert (file.opened, decoded) == (1, 851), "from the only keyframe to the first frame after the stretch"
    assert find_scenes(clip.part(70.0, 95.0), 10.0, 25.0) == [(10.0, 11.0), (11.0, 20.5), (20.5, 25.0)]


def test_cuts_lie_at_the_times_of_frames_where_their_rate_varies() -> None:
    shown_ms = [*range(0, 2000, 40), 7300, *range(12_000, 13_000, 100)]
    clip = decode_video(film(shown_ms, [0] * 50 + [1] + [2] * 10))
    assert find_scenes(clip, 0.0, 13.0) == [(0.0, 7.3), (7.3, 12.0), (12.0, 13.0)]
    assert find_scenes(clip, 9.0, 13.0) == [(9.0, 12.0), (12.0, 13.0)], "what is on show when the stretch begins counts"
    assert find_scenes(clip, 8.0, 11.0) == [(8.0, 11.0)]


def test_slides_of_one_frame_each_are_scenes_after_quick_changes_too() -> None:
    clip = decode_video(film([0, 5000, 5100, 20_000, 30_000, 40_000, 50_000, 50_040], [0, 1, 2, 3, 4, 0, 1, 1]))
    assert [start_s for start_s, _ in find_scenes(clip, 0.0, 50.04)] == [0.0, 5.0, 20.0, 30.0, 40.0]


@pytest.mark.parametrize("name", [*sorted(sample_files("video")), "array"])
def test_a_stretch_streams_the_frames_between_two_times_once_each(name: str) -> None:
    def numbers(start_s: float, end_s: float) -> list[int]:
        return [round((float(frame[len(frame) // 2 :].mean()) - 10) / 10) for _, frame in clip.stream(start_s, end_s)]

    clip = decode_video((moving(), 10.0) if name == "array" else sample_files("video")[name])
    assert numbers(0.0, 2.0) == list(range(20))
    assert numbers(0.5, 1.5) == list(range(5, 15))
    assert numbers(0.54, 0.56) == [5], "the frame on show, though it began before"
    times_s = [time_s for time_s, _ in clip.stream(0.55, 1.0)]
    np.testing.assert_allclose(times_s, [0.55, 0.6, 0.7, 0.8, 0.9], atol=0.002)
    clip = clip.part(0.5, 1.5)
    assert numbers(0.2, 9.0) == list(range(7, 15))
    assert next(clip.stream(0.3, 1.0))[0] == pytest.approx(0.3, abs=0.002)


def test_a_film_cut_off_early_has_no_scenes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 128, 128, 3), dtype=np.uint8)
    media = video_file("matroska", frames=noise)
    with pytest.raises(DecodeError, match="cut off"):
        find_scenes(decode_video(media[: len(media) // 4]), 0.0, 6.0)
    clip = decode_video(media[: len(media) * 9 // 10])
    assert find_scenes(clip, 0.0, 6.0)[-1][1] == 6.0
