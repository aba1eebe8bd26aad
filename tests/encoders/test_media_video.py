"""Video: frames by time out of what FFmpeg reads, without holding or reading more than needed."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from sample_media import moving, sample_files, sound_file, tone, video_file

from encoders.encoder import build_encoder
from encoders.errors import DecodeError, TooLargeError
from encoders.media import seeking
from encoders.media.video import decode_video, describe_video


def levels(frames: np.ndarray) -> list[int]:
    """Which frame of `moving()` each one is, by the grey of its lower half."""
    return [round((float(frame[len(frame) // 2 :].mean()) - 10) / 10) for frame in frames]


@pytest.mark.parametrize("name", sorted(sample_files("video")))
def test_frames_are_spread_evenly_over_the_clip_in_every_format(name: str) -> None:
    clip = decode_video(sample_files("video")[name])
    assert (clip.width, clip.height) == (128, 96)
    assert clip.duration_s == pytest.approx(2.0, abs=0.11)
    frames = clip.frames(4)
    assert (frames.shape, frames.dtype) == ((4, 96, 128, 3), np.uint8)
    np.testing.assert_allclose(levels(frames), [2, 7, 12, 17], atol=1)
    assert levels(clip.frames(20)) == list(range(20))


def test_a_clip_of_few_frames_repeats_them() -> None:
    still = decode_video(video_file(frames=moving(1)))
    assert len(still.frames(8)) == 8
    assert levels(decode_video((moving(), 10.0)).frames(4)) == [2, 7, 12, 17]


def test_an_array_with_its_rate_is_a_clip() -> None:
    clip = decode_video((moving(), 10.0))
    assert clip.duration_s == 2.0
    np.testing.assert_array_equal(clip.frames(20), moving())
    with pytest.raises(DecodeError, match="uint8"):
        decode_video(np.zeros((2, 4, 4), np.uint8))


def test_large_frames_are_shrunk_to_what_is_needed() -> None:
    frames = decode_video(video_file(frames=moving(4, 480, 640))).frames(2, at_least=120)
    assert frames.shape == (2, 120, 160, 3)
    assert decode_video(video_file(frames=moving(4, 96, 128))).frames(2, at_least=120).shape == (2, 96, 128, 3)


def test_seeking_finds_the_same_frames_as_decoding_all(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    frames = np.repeat(random.integers(0, 256, (100, 1, 1, 3), dtype=np.uint8), 32, 1).repeat(32, 2)
    for kind in ("mp4", "matroska"):
        media = video_file(kind, frames=frames, rate_hz=1)
        for count in (1, 3, 7):
            sought = decode_video(media).frames(count)
            monkeypatch.setattr(seeking, "SEEK_GAP_S", 1e9)
            np.testing.assert_array_equal(sought, decode_video(media).frames(count))
            monkeypatch.undo()


def test_wanted_frames_of_a_film_with_one_keyframe_are_found_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = decode_video(video_file(frames=moving(100, 32, 32), rate_hz=1, keyframe_s=1000))
    decoded, timed = 0, seeking.timed_frames

    def counted(*args: object) -> Iterator[object]:
        nonlocal decoded
        for frame in timed(*args):  # type: ignore[arg-type]
            decoded += 1
            yield frame

    monkeypatch.setattr(seeking, "timed_frames", counted)
    np.testing.assert_allclose(levels(clip.frames(5)), [2, 6, 10, 14, 18], atol=1)
    assert decoded <= 100
    decoded = 0
    assert len(list(clip.numbered([10, 30, 50, 70, 90]))) == 5
    assert decoded <= 100


def test_frames_before_the_last_ones_are_not_held_nor_the_file_read(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (30, 256, 256, 3), dtype=np.uint8)
    path.write_bytes(video_file(frames=np.repeat(noise, 10, 0), rate_hz=5))
    tracemalloc.start()
    decode_video(path).frames(2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < min(path.stat().st_size, 40 * 256 * 256 * 3)


def test_a_file_filmed_sideways_is_set_upright() -> None:
    frames = np.zeros((4, 64, 128, 3), np.uint8)
    frames[:, :, 64:] = 255  # right half bright
    with av.open(io.BytesIO(video_file(frames=frames))) as source:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mp4") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            stream.metadata["rotate"] = "90"
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    data = bytearray(buffer.getvalue())
    # The track header's matrix, set to a quarter turn: (a b u, c d v, x y w) in 16.16 and 2.30 fixed point.
    at = data.index(b"tkhd") + 4 + 40
    turned = [0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turned)
    clip = decode_video(bytes(data))
    assert (clip.width, clip.height) == (64, 128)
    frame = clip.frames(1)[0]
    assert frame.shape == (128, 64, 3)
    assert frame[96:].mean() > 200  # turned clockwise: what was right is below
    assert frame[:32].mean() < 50


def test_a_broken_header_no_frames_and_no_video_are_refused() -> None:
    media = video_file()
    for bad in (media[: len(media) // 2], media[:100], b"\0" * 5000):
        with pytest.raises(DecodeError):
            decode_video(bad)
    for soundless in (
        sound_file("WAV", tone(), 16_000),
        video_file("ipod", frames=np.empty((0, 0, 0, 3), np.uint8), sound=tone()),
    ):
        with pytest.raises(DecodeError, match="no video stream"):
            decode_video(soundless)


def test_a_clip_cut_off_late_is_used_and_one_cut_off_early_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 128, 128, 3), dtype=np.uint8)
    media = video_file("matroska", frames=noise)
    assert len(decode_video(media[: len(media) * 9 // 10]).frames(4)) == 4
    with pytest.raises(DecodeError, match="cut off"):
        decode_video(media[: len(media) // 4]).frames(4)


def test_damaged_files_are_decoded_or_refused_but_nothing_else_is_raised() -> None:
    random = np.random.default_rng(4)
    for media in sample_files("video").values():
        for _ in range(15):
            damaged = bytearray(media)
            for at in random.integers(0, len(media), 30):
                damaged[at] = random.integers(256)
            try:
                decode_video(bytes(damaged)).frames(4)
            except (DecodeError, TooLargeError) as error:
                assert str(error)


def test_a_playlist_opens_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.ts").write_bytes(video_file("mpegts"))
    Path("a.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.ts\n#EXT-X-ENDLIST\n")
    Path("a.ffconcat").write_text("ffconcat version 1.0\nfile secret.ts\n")
    for name in ("a.m3u8", "a.ffconcat"):
        with av.open(name) as playlist:  # FFmpeg itself would follow it
            assert playlist.streams.video
        for media in (Path(name), Path(name).read_bytes()):
            with pytest.raises(DecodeError, match="no readable"):
                decode_video(media)


def test_facts_tell_size_and_duration_and_show_the_middle() -> None:
    facts = describe_video(decode_video(video_file()))
    assert (facts.mime, facts.width, facts.height) == ("video/mp4", 128, 96)
    assert facts.duration_s == pytest.approx(2.0)
    assert facts.preview is not None
    assert len(facts.preview) < 6 * 1024


def test_a_video_of_one_picture_has_the_vector_of_that_picture() -> None:
    image, clip = build_encoder("demo/image"), build_encoder("demo/video")
    frame = moving(1, 128, 128)[0]
    assert image.tower.state_dict().keys() == clip.tower.state_dict().keys()
    np.testing.assert_array_equal(clip.preprocess(np.repeat(frame[None], 8, 0))["frames"][3], image.preprocess(frame)["image"])


@pytest.mark.parametrize("name", [*sorted(sample_files("video")), "array"])
def test_a_part_is_a_clip_of_that_stretch_and_parts_of_parts_too(name: str) -> None:
    media = (moving(), 10.0) if name == "array" else sample_files("video")[name]
    part = decode_video(media).part(0.5, 1.5)
    assert part.duration_s == pytest.approx(1.0)
    assert levels(part.frames(10)) == list(range(5, 15))
    assert levels(part.part(0.5, 9.0).frames(5)) == list(range(10, 15))
    assert part.num_frames == 10
    assert levels(np.stack([*part.numbered([0, 4, 9])])) == [5, 9, 14]
    assert describe_video(part).duration_s == pytest.approx(1.0)
    with pytest.raises(DecodeError, match="no video between"):
        part.part(1.0, 2.0)


@pytest.mark.parametrize("name", sorted(sample_files("video")))
def test_frames_are_counted_and_found_by_number_whatever_the_container(name: str) -> None:
    clip = decode_video(sample_files("video")[name])
    assert clip.num_frames == 20
    assert levels(np.stack([*clip.numbered(range(20))])) == list(range(20))
    assert levels(np.stack([*clip.numbered([3, 17])])) == [3, 17]


def test_frames_by_number_are_found_where_their_rate_varies() -> None:
    buffer = io.BytesIO()
    shown_ms = [0, 40, 80, 1000, 1040, 5000, 5500, 9000]
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.time_base = 128, 96, "yuv420p", Fraction(1, 1000)
        for frame, at_ms in zip(moving(8), shown_ms, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = at_ms, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    clip = decode_video(buffer.getvalue())
    grey = [round(float(frame[48:].mean())) for frame in clip.numbered(range(8))]
    np.testing.assert_allclose(grey, [10 + 200 * k // 8 for k in range(8)], atol=3)
    part = clip.part(0.9, 5.2)
    assert part.num_frames == 3
    assert round(float(next(part.numbered([2]))[48:].mean())) == pytest.approx(10 + 200 * 5 // 8, abs=3)


def test_a_part_of_two_hours_reads_and_decodes_little_more_than_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
    path.write_bytes(video_file(frames=np.repeat(noise, 120, 0), rate_hz=1))
    taken, decoded, timed = 0, 0, seeking.timed_frames

    class Counting(io.FileIO):
        def read(self, size: int = -1, /) -> bytes:
            nonlocal taken
            data = super().read(size) or b""
            taken += len(data)
            return data

    def counted(*args: object) -> Iterator[object]:
        nonlocal decoded
        for frame in timed(*args):  # type: ignore[arg-type]
            decoded += 1
            yield frame

    monkeypatch.setattr(seeking, "timed_frames", counted)
    with Counting(path) as file:
        clip = decode_video(file)
        assert clip.duration_s == pytest.approx(7200)
        frame = clip.part(3660, 3680).frames(4)[0]
    assert np.abs(frame.astype(int) - noise).mean((1, 2, 3)).argmin() == 30
    assert decoded < 40
    assert taken < path.stat().st_size / 4
