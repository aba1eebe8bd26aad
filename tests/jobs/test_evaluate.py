"""Scoring a space and the gate behind it: the report, minimums, what joins a space that tables use, and the way back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from html_page import Tags
from searchable import make_media, make_space, rows_of, write_table

from encoders import Space, load_space
from encoders.encoder import build_encoder, seeded_tower
from encoders.space import trained
from jobs.evaluate import main
from jobs.roll_back import main as roll_back_main
from pipelines.demo_world import grid, write_corpus
from pipelines.index import open_index

Capture = pytest.CaptureFixture[str]
SCENES = 24


@pytest.fixture(scope="module")
def grid_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of each of twelve things."""
    folder = tmp_path_factory.mktemp("grid")
    write_corpus(str(folder), grid(2)[::12], ["image", "audio", "imu"])
    return folder


def last_line(capsys: Capture) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_demo_space_is_scored_from_files_and_what_never_met_is_named_emergent(
    grid_folder: Path, tmp_path: Path, ray_local: None, capsys: Capture
) -> None:
    (grid_folder / "audio" / "broken.wav").write_bytes(b"no sound")
    pairs = pq.read_table(f"{grid_folder}/pairs.parquet")
    uris = pairs["audio"].to_pylist()
    uris[3], uris[5] = "audio/broken.wav", None
    index = pairs.schema.get_field_index("audio")
    pairs = pairs.set_column(index, "audio", pa.array(uris))
    pq.write_table(pairs, f"{grid_folder}/holed.parquet")
    reached = ["audio.imu.thing@1=0.8", "audio.thing.accuracy=0.9", "image.audio.R@10=0.8"]
    control = other_audio(load_space("demo"), tmp_path / "control", shuffled_pairs=True)
    argv = ["demo", "--pairs", f"{grid_folder}/holed.parquet", "--labels", "thing", "--control", control.uri]
    code = main([*argv, "--out", f"{tmp_path}/report", "--min", *reached])
    report = last_line(capsys)
    assert code == 0 and all(check["passed"] for check in report["gate"])
    assert report["license"] == "Apache-2.0"
    assert report["things"] == SCENES and report["dropped"] == {"audio": 1}
    assert report["dropped_media"][0]["row"] == 3 and "DecodeError" in report["dropped_media"][0]["message"]
    assert report["scores"]["items"] == {"audio": SCENES - 2, "image": SCENES, "imu": SCENES, "text": SCENES}
    beside = {(one["query"], one["target"]): one for one in report["control"]["retrieval"]}
    assert beside["image", "audio"]["recall"]["R@1"] < 0.4 and beside["imu", "image"] == next(
        one for one in report["scores"]["retrieval"] if (one["query"], one["target"]) == ("imu", "image")
    )
    relations = {(one["query"], one["target"]): one["relation"] for one in report["scores"]["retrieval"]}
    assert relations["audio", "image"] == "trained" and relations["audio", "imu"] == relations["audio", "text"] == "emergent"
    assert json.loads((tmp_path / "report" / "report.json").read_text())["metrics"] == report["metrics"]
    page = (tmp_path / "report" / "report.html").read_text()
    tags = Tags(page).found
    assert [a["src"][:22] for t, a in tags if t == "img"] == ["data:image/png;base64,"]
    assert not [t for t, _ in tags if t in ("script", "link", "iframe")] and "audio/broken.wav" not in page
    assert "emergent" in page and "reached" in page and "1 that could not be used" in page
    assert (tmp_path / "report" / "matrix.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def table(tmp_path: Path) -> tuple[Space, str]:
    """A toy space, and a table of it whose rows of one number are one thing."""
    space = make_space(tmp_path)
    media = make_media(tmp_path / "media", 9)
    rows = rows_of(space, media)
    scene = pa.array([int(Path(uri).stem) for uri in rows["uri"].to_pylist()])
    write_table(tmp_path / "db", rows.append_column("scene", scene))
    return space, f"{tmp_path}/db"


def test_a_tables_vectors_are_scored_as_they_are_stored_and_a_minimum_that_is_missed_ends_with_1(
    table: tuple[Space, str], capsys: Capture
) -> None:
    space, db = table
    code = main([space.uri, "--db", db, "--same", "scene", "--labels", "thing", "--min", "audio.image.R@1=1"])
    captured = capsys.readouterr()
    report = json.loads(captured.out.splitlines()[-1])
    assert code == 1 and "not reached: audio.image.R@1 is" in captured.err
    by_name = {(one["query"], one["target"]): one for one in report["scores"]["retrieval"]}
    assert f"R@1 of 9 things: audio -> image {by_name['audio', 'image']['recall']['R@1']:.3f}" in captured.err
    assert report["scores"]["items"] == {"audio": 9, "image": 9, "imu": 9, "text": 9} and report["things"] == 9
    index = open_index(db)
    pictures = index.search("a", modality="image", k=9).to_arrow()
    nearest = [next(iter(index.search(item_id=i, modality="audio", k=1)))["scene"] for i in pictures["item_id"].to_pylist()]
    by_hand = np.mean([found == scene for found, scene in zip(nearest, pictures["scene"].to_pylist(), strict=True)])
    assert report["metrics"]["image.audio.R@1"] == pytest.approx(by_hand)


def other_audio(space: Space, folder: Path, **said: object) -> Space:
    """The space with another sound encoder, bound to its pictures, in a directory of its own."""
    encoder = build_encoder("demo/audio")
    card = {"frozen": {"image": space.encoders["image"].fingerprint}, **said}
    made = trained(encoder, seeded_tower(encoder, 5), 10.0, card, torch.float32)
    return dataclasses.replace(space, encoders={**space.encoders, "audio": made}).save(folder)


def test_what_reaches_its_minimum_is_promoted_and_what_misses_it_is_not(
    table: tuple[Space, str], tmp_path: Path, capsys: Capture
) -> None:
    bound, db = table
    production = other_audio(bound, tmp_path / "production")
    argv = [bound.uri, "--db", db, "--same", "scene", "--modality", "audio", "--promote", production.uri, "--min"]
    assert main([*argv, "audio.image.R@1=1"]) == 1
    assert "promoted" not in last_line(capsys) and not (tmp_path / "production" / "revisions").exists()
    assert main([*argv, "audio.image.R@1=0"]) == 0
    promoted = last_line(capsys)["promoted"]
    assert promoted["replaced"] == {"audio": production.encoders["audio"].fingerprint} and promoted["stale_rows"] == {}
    now = load_space(production.uri).encoders["audio"]
    assert now.fingerprint == bound.encoders["audio"].fingerprint
    assert now.card["proof"]["gate"][0]["metric"] == "audio.image.R@1"
    assert roll_back_main([production.uri, "--db", db]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["stale_rows"] == {"audio": 9} and "stale: 9 rows of audio" in captured.err
    assert load_space(production.uri).encoders["audio"].fingerprint == production.encoders["audio"].fingerprint


def test_what_cannot_be_promoted_ends_with_2_before_anything_is_embedded(
    table: tuple[Space, str], tmp_path: Path, capsys: Capture
) -> None:
    production, db = table
    bound = other_audio(production, tmp_path / "bound")
    elsewhere = make_space(tmp_path / "other", seed=3)
    refusals = {
        "belongs to space": [elsewhere.uri, "--min", "audio.image.R@1=0"],
        "python -m jobs.convert demo --out DIR": ["demo", "--min", "audio.image.R@1=0"],
        "needs --min": [production.uri],
    }
    for message, argv in refusals.items():
        assert main([bound.uri, "--db", db, "--same", "scene", "--modality", "audio", "--promote", *argv]) == 2, message
        assert message in capsys.readouterr().err
    assert main([bound.uri, "--db", db, "--same", "scene", "--min", "audio.image.R@1=0", "--promote", production.uri]) == 2
    assert "needs --modality" in capsys.readouterr().err
    assert roll_back_main([production.uri]) == 2
    assert "nothing to go back to" in capsys.readouterr().err
    assert not list(Path(production.uri).glob("_bindery*"))


def test_a_dry_run_refuses_a_table_in_which_nothing_can_be_compared_in_the_runs_own_words(
    table: tuple[Space, str], tmp_path: Path, capsys: Capture
) -> None:
    space, db = table
    bound = other_audio(space, tmp_path / "bound")
    told = []
    for how in (["--dry-run"], []):
        assert main([bound.uri, "--db", db, "--same", "scene", "--modality", "audio", *how]) == 2
        told.append(capsys.readouterr().err.splitlines()[-1])
    assert told[0] == told[1] and "none shares things with audio" in told[0] and "which rows are stale" in told[0]
    assert main([bound.uri, "--db", db, "--same", "scene", "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--pairs MANIFEST, or on --db"),
        (["--pairs", "p.parquet", "--db", "db"], "one of them"),
        (["--pairs", "p.parquet", "--db", "db", "--promote", "x"], "no pairs manifest"),  # its stale rows are counted then
        (["--db", "db"], "needs --same"),
        (["--db", "db", "--same", "scene", "--control", "demo"], "vectors of one space"),
        (["--pairs", "p.parquet", "--control", "demo"], "demo was not trained on wrong partners"),
        (["--db", "nowhere", "--same", "scene"], "no table 'media' in nowhere"),
        (["--pairs", "nowhere.parquet"], "no pairs manifest"),
        (["--db", "db", "--same", "scene", "--modality", "smell"], "no encoder for 'smell'"),
        (["--db", "db", "--same", "scene", "--min", "audio.image.R@3=1"], "names no score"),
        (["--db", "db", "--same", "scene", "--prompts", "nowhere.json"], "no prompts in nowhere.json"),
    ],
)
def test_arguments_that_cannot_be_meant_end_with_2(
    flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *flags]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_pairs_without_rows_end_with_2(tmp_path: Path, capsys: Capture) -> None:
    columns = {"image": pa.array([], pa.string()), "caption": pa.array([], pa.string())}
    pq.write_table(pa.table(columns), tmp_path / "none.parquet")
    assert main(["demo", "--pairs", f"{tmp_path}/none.parquet"]) == 2
    assert "has 0 rows to compare; give it at least 2 things" in capsys.readouterr().err
