"""Where long media are cut, and that what belongs together reaches the table together."""

import itertools
import json
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
from sample_media import sound_file, tone, video_file

from encoders import load_space
from encoders.media.audio import decode_audio
from encoders.media.video import decode_video
from pipelines.embed import EmbedSettings, embed
from pipelines.parts import Parts, arrivals
from pipelines.report import EmbedReport
from pipelines.segments import Cut, count_parts, parse_cut, parse_cuts, segments

SPACE = load_space("demo")


def _windows(cut: str, seconds: float) -> list[tuple[float, float]]:
    sound = decode_audio((np.zeros(round(seconds * 1000), np.float32), 1000))
    found: list[tuple[float, float]] = []
    for part in range(count_parts(parse_cut(cut), sound)):
        for segment in segments(parse_cut(cut), SPACE.encoder("audio"), sound, part):
            assert segment.start_s is not None and segment.end_s is not None
            assert segment.medium.duration_s == pytest.approx(segment.end_s - segment.start_s)
            found.append((segment.start_s, segment.end_s))
    return found


def test_windows_are_of_one_length_and_the_last_ends_with_the_medium() -> None:
    assert _windows("10", 30) == [(0, 10), (10, 20), (20, 30)]
    assert _windows("10/5", 22) == [(0, 10), (5, 15), (10, 20), (12, 22)]
    assert _windows("10", 4) == [(0, 4)]


@pytest.mark.parametrize("seconds", [30.0003, 30.0006, 30.001, 30.0016])
def test_no_two_windows_have_one_key_however_little_is_left_at_the_end(seconds: float) -> None:
    sound = decode_audio((np.zeros(round(seconds * 10_000), np.float32), 10_000))
    keys = [segment.key for segment in segments(parse_cut("10"), SPACE.encoder("audio"), sound, 0)]
    assert len(set(keys)) == len(keys) >= 3


@pytest.mark.parametrize("cut", ["10", "2.5/0.125", "3600.125", "1000000"])
def test_a_cut_is_read_back_from_its_name(cut: str) -> None:
    assert parse_cut(parse_cut(cut).name) == parse_cut(cut)


@pytest.mark.parametrize("seconds", [0.2, 7.5, 300.0, 301.0, 1234.5])
@pytest.mark.parametrize("cut", ["1", "7.5/2.5", "400/100"])
def test_windows_of_all_parts_cover_a_medium_without_a_gap_and_none_comes_twice(cut: str, seconds: float) -> None:
    found = _windows(cut, seconds)
    assert found[0][0] == 0 and found[-1][1] == pytest.approx(seconds)
    assert len(set(found)) == len(found) and sorted(found) == found
    assert all(after[0] <= before[1] + 1e-9 for before, after in itertools.pairwise(found))


def test_a_setting_goes_to_the_modalities_it_suits() -> None:
    cuts = parse_cuts("10/5", SPACE.modalities)
    assert {m for m, cut in cuts.items() if cut == Cut("windows", 10, 5)} == {"audio", "imu", "video"}
    cuts = parse_cuts("video=scenes, audio=2, text=context", SPACE.modalities)
    assert {m: cut.name for m, cut in cuts.items() if cut.kind != "whole"} == {
        "video": "scenes",
        "audio": "2/2",
        "text": "context",
    }
    for wrong in ("often", "10/20", "0", "image=scenes", "smell=10"):
        with pytest.raises(ValueError, match="segment"):
            parse_cuts(wrong, SPACE.modalities)


@pytest.mark.parametrize(("seconds", "ends_s"), [(60.3, [60.3]), (60.7, [60, 60.7]), (120.5, [60, 120.5]), (0.4, [0.4])])
def test_a_rest_shorter_than_a_scene_belongs_to_the_scene_before(seconds: float, ends_s: list[float]) -> None:
    clip, cut = decode_video((np.zeros((round(seconds * 10), 16, 16, 3), np.uint8), 10.0)), parse_cut("scenes")
    found = [s for part in range(count_parts(cut, clip)) for s in segments(cut, SPACE.encoder("video"), clip, part)]
    assert [segment.end_s for segment in found] == pytest.approx(ends_s)
    assert [segment.start_s for segment in found] == pytest.approx([0, *ends_s[:-1]])


def test_scenes_are_where_the_picture_changes_at_once() -> None:
    frames = np.concatenate(
        [
            np.full((n, 64, 96, 3), colour, np.uint8)
            for n, colour in ((30, (200, 30, 30)), (50, (20, 60, 200)), (20, (30, 160, 40)))
        ]
    )
    clip = decode_video(video_file(frames=frames, rate_hz=10))
    found = segments(parse_cut("scenes"), SPACE.encoder("video"), clip, 0)
    assert [(s.start_s, s.end_s) for s in found] == [(0, 3.0), (3.0, 8.0), (8.0, pytest.approx(10.0))]
    assert [s.key for s in found][:2] == ["0-3000", "3000-8000"]
    assert found[1].medium.frames(1)[0, 30, 40, 2] > 150  # blue


def _block(*rows: tuple[str, bool, int]) -> pa.Table:
    return pa.table(
        {"source_id": [r[0] for r in rows], "_last": [r[1] for r in rows], "_parts": pa.array([r[2] for r in rows], pa.int32())}
    )


@pytest.mark.usefixtures("ray_local")
def test_blocks_of_one_source_come_out_together_once_all_its_parts_are_there() -> None:
    parts = Parts()

    def arrive(name: str, *rows: tuple[str, bool, int]) -> list[str]:
        parts.look(ray.put(arrivals(_block(*rows))), name, 1)
        return [block for block, _ in parts.complete(wait=True)]

    assert arrive("whole", ("a", True, 1), ("b", True, 1)) == ["whole"]
    assert arrive("film 1", ("f", False, 3), ("f", True, 3)) == []
    assert arrive("mixed", ("f", True, 3), ("g", True, 1), ("h", False, 1)) == []
    assert arrive("other", ("k", True, 1)) == ["other"]
    assert arrive("film 3", ("f", True, 3)) == [], "h is not complete, and shares a block with f"
    assert sorted(arrive("end of h", ("h", True, 1))) == ["end of h", "film 1", "film 3", "mixed"]
    assert parts.empty


def _run(corpus: Path, db: Path, **settings: Any) -> EmbedReport:
    report = embed(EmbedSettings(corpus=str(corpus), db=str(db), max_reject_rate=1.0, **settings))
    assert report.failures == []
    return report


def _table(db: Path) -> pd.DataFrame:
    frame: pd.DataFrame = lance.dataset(f"{db}/media.lance").to_table().to_pandas()
    return frame


@pytest.mark.usefixtures("ray_local")
def test_a_source_is_cut_into_items_that_are_replaced_and_rejected_together(tmp_path: Path) -> None:
    """A sound of 700 s is worked on in three parts; one with a hole in its middle part is a reject, whole."""
    media = tmp_path / "media"
    media.mkdir()
    long = tone(700, 8000)
    (media / "long.wav").write_bytes(sound_file("WAV", long, 8000, subtype="FLOAT"))
    holed = long.copy()
    holed[400 * 8000 : 402 * 8000] = np.nan
    (media / "holed.wav").write_bytes(sound_file("WAV", holed, 8000, subtype="FLOAT"))
    (media / "film.mp4").write_bytes(video_file(rate_hz=2))  # 10 s
    (media / "words.txt").write_text(" ".join(f"word{k} red" for k in range(20)))
    whole = _run(media, tmp_path / "db", exclude=["holed.wav"])
    assert whole.tally.items_written == 3
    table = _table(tmp_path / "db")
    assert (table["segment_count"] == 1).all() and table["start_s"].isna().all()
    assert dict(zip(table["modality"], table["truncated"], strict=True)) == {"audio": None, "video": None, "text": True}

    cut = _run(media, tmp_path / "db", segment="audio=100,video=4,text=context")
    assert (cut.tally.embedded, cut.tally.rejected) == (3, 1)
    assert cut.tally.planned == {"stale": 3, "new": 1}
    table = _table(tmp_path / "db")
    counts = table.groupby("modality")["segment_count"].agg(["count", "min", "max"])
    assert counts.loc["audio"].tolist() == [7, 7, 7] and counts.loc["video"].tolist() == [3, 3, 3]
    assert table["item_id"].is_unique and not table["uri"].str.contains("holed").any()
    sounds = table[table["modality"] == "audio"].sort_values("start_s")
    assert sounds["start_s"].tolist() == [100.0 * k for k in range(7)] and (sounds["duration_s"] == 700).all()
    expected = SPACE.embed("audio", [(long[300 * 8000 : 400 * 8000], 8000)])[0]
    np.testing.assert_allclose(sounds.iloc[3]["vector"], expected, atol=1e-4)
    texts = table[table["modality"] == "text"]
    assert len(texts) > 1 and not texts["truncated"].any() and " ".join(texts["text"]).count("red") == 20
    assert json.loads(cut.to_json())["items_written"] == len(table)

    again = _run(media, tmp_path / "db", segment="audio=100,video=4,text=context")
    assert (again.tally.unchanged, again.tally.embedded, again.commits) == (3, 0, 0)
