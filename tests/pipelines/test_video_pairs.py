"""Pairs out of videos: which windows, which frame, which sound, what is dropped, what is not done again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sample_media import moving, tone, video_file

from encoders.media.audio import decode_audio
from pipelines.pairs import PairsError
from pipelines.video_pairs import cut_pairs


def test_a_window_gives_the_frame_in_its_middle_and_the_sound_beneath_it_and_silent_videos_are_named(
    tmp_path: Path, ray_local: None
) -> None:
    corpus = tmp_path / "videos"
    corpus.mkdir()
    wave = np.concatenate([0.1 * tone(2.0, hz=440), 0.8 * tone(2.0, hz=440), 0.1 * tone(0.6)]).astype(np.float32)
    (corpus / "film.mp4").write_bytes(video_file(frames=moving(46), sound=wave))  # 4.6 s at 10 frames a second
    (corpus / "silent.mp4").write_bytes(video_file())
    (corpus / "junk.mp4").write_bytes(b"\0" * 100)

    videos = cut_pairs(str(corpus), f"{tmp_path}/pairs", 2.0)

    assert videos.found == 3 and {Path(uri).name for uri in videos.problems} == {"silent.mp4", "junk.mp4"}
    assert "no sound" in videos.problems[str(corpus / "silent.mp4")]
    rows = pq.read_table(videos.manifest).to_pylist()
    assert [(row["source"], row["start_s"], row["end_s"]) for row in rows] == [
        (str(corpus / "film.mp4"), 0.0, 2.0),
        (str(corpus / "film.mp4"), 2.0, 4.0),  # and 0.6 s are too little for a third
    ]
    for row, frame in zip(rows, (10, 30), strict=True):
        grey = np.asarray(Image.open(row["image"]))[50:].mean()
        assert grey == pytest.approx(10 + 200 * frame // 46, abs=4)
    loudness = [float(decode_audio(Path(row["audio"])).samples().std()) for row in rows]
    assert loudness[0] < 0.08 < 0.15 < loudness[1]
    assert decode_audio(Path(rows[1]["audio"])).duration_s == pytest.approx(2.0, abs=0.01)

    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").rglob("*.jpg")}
    assert cut_pairs(str(corpus), f"{tmp_path}/pairs", 2.0) == videos
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").rglob("*.jpg")} == written

    (corpus / "film.mp4").unlink()
    with pytest.raises(PairsError, match=r"no video of .* gave a pair"):
        cut_pairs(str(corpus), f"{tmp_path}/pairs", 2.0)
