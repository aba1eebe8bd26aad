"""The search from a shell: a table for people, one JSON line for programs, exit codes for schedulers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from searchable import make_media, make_space, rows_of, write_table

from jobs.search import main
from pipelines.index import open_index

Media = list[tuple[str, Path]]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Media:
    return make_media(tmp_path_factory.mktemp("media"), 5)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory, media: Media) -> str:
    folder = tmp_path_factory.mktemp("db")
    write_table(folder, rows_of(make_space(folder), media))
    return str(folder)


def found(capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, object]]:
    """What people see, and the last line, read."""
    *people, last = capsys.readouterr().out.splitlines()
    return "\n".join(people), json.loads(last)


def test_words_find_what_the_index_finds(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dog barking", "--db", db, "--modality", "audio,imu", "--where", "rating < 1.5", "--k", "3"]) == 0
    people, report = found(capsys)
    expected = open_index(db).search("dog barking", modality=["audio", "imu"], where="rating < 1.5", k=3)
    assert [hit["item_id"] for hit in report["hits"]] == expected.to_arrow()["item_id"].to_pylist()
    assert report["query"] == 'text "dog barking"'
    assert people == str(expected) and len(people.splitlines()) == 5


def test_files_and_items_can_ask(db: str, media: Media, capsys: pytest.CaptureFixture[str]) -> None:
    files = {modality: str(path) for modality, path in media[:4] if modality != "text"}
    for modality, path in files.items():
        assert main(["--db", db, f"--{modality}", path, "--modality", modality, "--k", "1"]) == 0
        _, report = found(capsys)
        assert report["hits"][0]["uri"] == path and report["hits"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    item = report["hits"][0]["item_id"]
    assert main(["--db", db, "--item-id", item, "--modality", modality, "--k", "1"]) == 0
    assert found(capsys)[1]["hits"][0]["item_id"] == item


def test_words_and_a_file_are_one_query(db: str, media: Media, capsys: pytest.CaptureFixture[str]) -> None:
    image = media[0][1]
    assert main(["sea", "--db", db, "--image", str(image)]) == 0
    expected = open_index(db).search("sea", image=image).to_arrow()["item_id"].to_pylist()
    assert [hit["item_id"] for hit in found(capsys)[1]["hits"]] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to search for"),
        (["dog", "--table", "nosuch"], "no table"),
        (["dog", "--where", "nosuch = 1"], "the columns are"),
        (["dog", "--modality", "smell"], "audio, image"),
        (["dog", "--k", "0"], "at least 1"),
        (["--image", "nosuch.jpg"], "no file"),
        (["--image", __file__], "picture"),
        (["--video", __file__], "can be asked by"),
        (["--item-id", "x"], "no item"),
        (["dog", "--k", "many"], "--k"),
        (["dog", "--nosuch", "1"], "nosuch"),
    ],
)
def test_bad_input_ends_with_exit_code_2_and_a_reason(
    db: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--db", db]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and not printed.out
