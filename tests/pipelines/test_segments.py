"""Where long media are cut, and that what belongs together reaches the table together."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from sample_media import sound_file, tone, video_file

from encoders import load_space
from encoders.media.audio import decode_audio
from encoders.media.video import decode_video
from pipelines import stages
from pipelines.embed import EmbedSettings, embed, planner_of, prepare
from pipelines.known import Seen
from pipelines.lease import Lease
from pipelines.ledger import Ledger
from pipelines.parts import Parts, arrivals, torn
from pipelines.report import EmbedReport
from pipelines.segments import TASK_BYTES, Cut, count_parts, parse_cut, parse_cuts, segments
from pipelines.stages import DecodeThenEmbed
from pipelines.table import item_schema
from pipelines.todo import Todo
from pipelines.writer import Writer

SPACE = load_space("demo")


def _windows(cut: str, seconds: float, size_bytes: int | None = None) -> list[tuple[float, float]]:
    sound = decode_audio((np.zeros(round(seconds * 1000), np.float32), 1000))
    found: list[tuple[float, float]] = []
    for part in range(count_parts(parse_cut(cut), sound, size_bytes)):
        for segment in segments(parse_cut(cut), SPACE.encoder("audio"), sound, part, size_bytes):
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


@pytest.mark.parametrize(("size_bytes", "parts"), [(None, 1), (10_000, 1), (4 * TASK_BYTES, 4), (10**12, 20)])
def test_a_large_film_is_worked_on_in_parts_of_few_bytes_and_has_the_same_windows(size_bytes: int | None, parts: int) -> None:
    sound = decode_audio((np.zeros(200_000, np.float32), 1000))
    assert count_parts(parse_cut("10"), sound, size_bytes) == parts
    assert _windows("10", 200, size_bytes) == [(10 * k, 10 * k + 10) for k in range(20)]


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


def _id(source: str) -> str:
    return source.encode().hex().rjust(32, "0")


def _block(*rows: str) -> pa.Table:
    """Rows written as `source part/parts ordinal`, with a "!" at the end of the last one of a part."""
    table = []
    for row in rows:
        source, part, ordinal = row.rstrip("!").split()
        number, _, parts = part.partition("/")
        key = {
            "item_id": _id(f"{source}{number}-{ordinal}"),
            "_part": int(number),
            "_parts": int(parts),
            "_ordinal": int(ordinal),
        }
        table.append({"source_id": _id(source), "_last": row.endswith("!"), **key})
    kinds = {"_part": pa.int32(), "_parts": pa.int32(), "_ordinal": pa.int32(), "_last": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in table[0]])
    return pa.Table.from_pylist(table, schema)


def _arrive(parts: Parts, name: str, *rows: str) -> list[str]:
    parts.look(ray.put(arrivals(_block(*rows))), name, 1)
    return [taken.block + "".join(f" late {one}" for one in taken.late) for taken in parts.complete(wait=True)]


@pytest.mark.usefixtures("ray_local")
def test_blocks_of_one_source_come_out_together_once_all_its_parts_are_there() -> None:
    parts = Parts()
    assert _arrive(parts, "whole", "a 0/1 0!", "b 0/1 0!") == ["whole"]
    assert _arrive(parts, "film 1", "f 0/3 0", "f 0/3 1!") == []
    assert _arrive(parts, "mixed", "f 1/3 0!", "g 0/1 0!", "h 0/1 0") == []
    assert _arrive(parts, "other", "k 0/1 0!") == ["other"]
    assert _arrive(parts, "film 3", "f 2/3 0!") == [], "h is not complete, and shares a block with f"
    assert sorted(_arrive(parts, "end of h", "h 0/1 1!")) == ["end of h", "film 1", "film 3", "mixed"]
    assert parts.rest() == []


@pytest.mark.usefixtures("ray_local")
def test_a_second_try_that_comes_out_otherwise_neither_ends_a_source_early_nor_adds_to_one_that_is_complete() -> None:
    parts = Parts()
    assert _arrive(parts, "first try", "f 0/2 0!", "g 0/1 0") == []
    assert _arrive(parts, "again", "f 0/2 0!") == [], "the same part twice is not two parts"
    assert sorted(_arrive(parts, "end", "f 1/2 0!", "g 0/1 1!")) == ["again", "end", "first try"]
    assert _arrive(parts, "after the end", "f 1/2 1!", "k 0/1 0!") == [f"after the end late {_id('f')}"]
    assert _arrive(parts, "half", "m 0/2 0!") == []
    assert [taken.block for taken in parts.rest()] == ["half"], "at the end nothing is kept back: it is for `torn` to judge"


@pytest.mark.parametrize(
    ("why", "rows"),
    [
        ("a segment is missing", ["f 0/1 0", "f 0/1 2!"]),
        ("the end is missing", ["f 0/1 0", "f 0/1 1"]),
        ("a part is missing", ["f 0/2 0!"]),
        ("a segment is there twice", ["f 0/1 0", "f 0/1 1", "f 0/1 1", "f 0/1 2!"]),
        ("a part ends twice", ["f 0/1 0!", "f 0/1 1!"]),
        ("two of one part hide that another is missing", ["f 0/2 0!", "f 0/2 0!"]),
    ],
)
def test_a_source_is_torn_when(why: str, rows: list[str]) -> None:
    assert torn(_block("w 0/2 0", "w 1/2 0!", *rows, "w 0/2 1!")).to_pylist() == [_id("f")], why


def test_rows_that_are_there_once_in_any_order_are_not_torn() -> None:
    assert torn(_block("w 1/2 1!", "w 0/2 1!", "v 0/1 0!", "w 0/2 0", "w 1/2 0")).to_pylist() == []


def _run(corpus: Path, db: Path, **settings: Any) -> EmbedReport:
    report = embed(EmbedSettings(corpus=str(corpus), db=str(db), max_reject_rate=1.0, **settings))
    assert report.failures == []
    return report


def _table(db: Path) -> pd.DataFrame:
    frame: pd.DataFrame = lance.dataset(f"{db}/media.lance").to_table().to_pandas()
    return frame


@pytest.mark.usefixtures("ray_local")
def test_a_source_is_cut_into_items_that_are_replaced_and_rejected_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A sound of 700 s is worked on in three parts; one with a hole in its middle part is a reject, whole."""
    monkeypatch.delenv("CI", raising=False)  # where progress is not told
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
    assert "4/4 sources in" in capfd.readouterr().err, "progress counts sources, not items"
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


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_inline_media_are_cut_as_files_are_and_their_bytes_do_not_travel_with_every_part(tmp_path: Path) -> None:
    sound = sound_file("WAV", tone(650, 2000), 2000)  # work in three parts, were it a file
    (tmp_path / "long.wav").write_bytes(sound)
    rows = [{"id": "a", "media": sound}, {"id": "b", "media": sound}, {"uri": str(tmp_path / "long.wav")}]
    schema = pa.schema([("id", pa.string()), ("uri", pa.string()), ("media", pa.binary()), ("modality", pa.string())])
    pq.write_table(pa.Table.from_pylist([{**row, "modality": "audio"} for row in rows], schema), tmp_path / "sounds.parquet")
    settings = EmbedSettings(corpus=str(tmp_path / "sounds.parquet"), db=str(tmp_path / "db"), segment="100")
    prepared, todo = prepare(settings), Todo()
    for work in planner_of(prepared, None, prepared.report(""), Seen()).batches():
        for sources in work.todo.values():
            todo.add(sources)
    stored = todo.datasets(2)
    assert [dataset.count() for dataset in stored.located] == [1], "what is read from where it lies, and cut into parts first"
    assert 2 * len(sound) < sum(dataset.size_bytes() for dataset in stored.inline) < 2.1 * len(sound)

    assert embed(settings).failures == []
    table = _table(tmp_path / "db")
    assert table.groupby("uri")["segment_count"].agg(list).tolist() == [[7] * 7] * 3
    vectors = table.groupby("start_s")["vector"].agg(lambda each: np.abs(np.stack(each) - each.iloc[0]).max())
    assert len(vectors) == 7 and vectors.max() < 1e-4


def test_rows_are_handed_on_in_pieces_of_some_size_and_not_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long.txt").write_text("a red dog barks. " * 4000)
    settings = EmbedSettings(corpus=str(tmp_path), db=str(tmp_path / "db"), segment="context")
    prepared = prepare(settings)
    planner = planner_of(prepared, None, prepared.report("run"), Seen())
    todo = next(t for w in planner.batches() for t in w.todo.values())
    work = DecodeThenEmbed(prepared.job("run"))
    (whole,) = work(todo)
    assert all(column.num_chunks == 1 for column in whole.columns) and whole.num_rows > 5 * 32
    monkeypatch.setattr(stages, "PIECE_BYTES", whole.nbytes // 5)
    pieces = list(work(todo))
    assert len(pieces) > 2 and all(column.num_chunks == 1 for piece in pieces for column in piece.columns)
    assert all(piece.nbytes < whole.nbytes // 2 for piece in pieces)
    assert pa.concat_tables(pieces)["item_id"].to_pylist() == whole["item_id"].to_pylist()


@pytest.mark.usefixtures("ray_local")
def test_tries_of_a_task_that_came_out_differently_never_reach_the_table_and_the_next_run_has_them_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray takes some blocks of the first try of a task and the rest of the second, in which a source could not be read."""
    monkeypatch.setattr(stages, "PIECE_BYTES", 1)
    media = tmp_path / "media"
    media.mkdir()
    for name in "abc":
        (media / f"{name}.wav").write_bytes(sound_file("WAV", tone(10, 2000), 2000))
    settings = EmbedSettings(corpus=str(media), db=str(tmp_path / "db"), segment="1")
    prepared, seen = prepare(settings), Seen()
    report = prepared.report("run")
    todo = next(t for w in planner_of(prepared, None, report, seen).batches() for t in w.todo.values()).sort_by("uri")
    work = DecodeThenEmbed(replace(prepared.job("run"), batch_size=8))
    first, alone = list(work(todo.slice(0, 2))), list(work(todo.slice(2, 1)))
    (media / "a.wav").rename(media / "a.gone")
    second = list(work(todo.slice(0, 2)))
    (media / "a.gone").rename(media / "a.wav")
    assert [block.num_rows for block in first] == [8, 8, 4] and [block.num_rows for block in second] == [8, 3]

    with Lease(prepared.db, "media", "run") as lease:
        ledger = Ledger(prepared.uri, lease, "run")
        ledger.prepare(item_schema(prepared.space, prepared.corpus.columns))
        writer = Writer(ledger, prepared.rejects("run"), prepared.corpus.id, report.tally)
        writer.start(1, in_parts=True)
        for block in (first[0], second[1], *alone):
            writer.add(ray.put(block), block.nbytes, block.num_rows)
        writer.finish()
    table = _table(tmp_path / "db")
    assert set(table["uri"]) == {str(media / "c.wav")} and len(table) == 10
    assert report.tally.rejects == {"TornSource": 2} and not report.tally.unexpected
    again = planner_of(prepared, ledger.dataset, prepared.report("next"), Seen())
    assert sum(t.num_rows for w in again.batches() for t in w.todo.values()) == 2
