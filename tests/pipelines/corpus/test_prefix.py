"""Folders: what is listed, what is skipped and counted, and what a folder's name says."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from corpora import MEDIA, picture, rows_of, uris_of, write
from http_folder import HttpFolder

from pipelines.corpus import CorpusError, find_modalities, open_corpus
from pipelines.reach import PUBLIC


def names(folder: Path, **options: object) -> list[str]:
    """The relative paths of all sources."""
    return [uri.removeprefix(f"{folder}/") for uri in uris_of(open_corpus(str(folder), **options))]  # type: ignore[arg-type]


def test_files_come_in_order_folder_by_folder(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(["b.jpg", "a.jpg", "z/1.jpg", "c/2.jpg", "c/d/3.jpg"], b"x"))
    assert names(tmp_path) == ["a.jpg", "b.jpg", "c/2.jpg", "c/d/3.jpg", "z/1.jpg"]


def test_what_is_hidden_or_never_media_is_skipped_and_counted(tmp_path: Path) -> None:
    hidden = [".a.jpg", "_SUCCESS", ".git/a.jpg", ".git/b.jpg", "x/_tmp/c.jpg"]
    never = ["x/a.json", "image/sums.MD5", "thumbs.db", "b.tar", "code.py"]
    write(tmp_path, dict.fromkeys([*hidden, *never, "table.lance/data/1.lance", "x/a.jpg", "noext"], b"x"))
    corpus = open_corpus(str(tmp_path))
    assert sorted(uris_of(corpus)) == [f"{tmp_path}/noext", f"{tmp_path}/x/a.jpg"]
    assert corpus.skipped == {"hidden": 4, ".json": 1, ".md5": 1, ".db": 1, ".tar": 1, ".py": 1, ".lance": 1}
    assert corpus.found == 2 + 10


@pytest.mark.parametrize(
    ("path", "modality"),
    [
        ("image/a.bin", "image"),
        ("Images/a", "image"),
        ("x/videos/y/a.mp4", "video"),
        ("depth/image/a.png", "image"),
        ("image/depths/a.png", "depth"),
        ("imu/trace.csv", "imu"),
        ("thermal/a.tiff", "thermal"),
        ("imagery/a.jpg", None),
        ("image.jpg", None),
    ],
)
def test_the_innermost_folder_named_like_a_modality_tells_it(path: str, modality: str | None, tmp_path: Path) -> None:
    root = write(tmp_path / "root", {path: b"x"})
    assert [row["modality"] for row in rows_of(open_corpus(str(root)))] == [modality]


def test_the_root_itself_may_tell_but_not_what_it_lies_in(tmp_path: Path) -> None:
    write(tmp_path, {"audio/a.wav": b"x", "audio/mine/b.wav": b"x"})
    assert [row["modality"] for row in rows_of(open_corpus(f"{tmp_path}/audio/"))] == ["audio", "audio"]
    assert [row["modality"] for row in rows_of(open_corpus(f"{tmp_path}/audio/mine"))] == [None]


def test_a_modality_of_the_space_is_known_by_its_folder_too(tmp_path: Path) -> None:
    root = write(tmp_path / "root", {"smell/a.bin": b"x"})
    assert [row["modality"] for row in rows_of(open_corpus(str(root), modalities=["smell"]))] == ["smell"]


def test_a_version_changes_with_size_or_time_and_only_then(tmp_path: Path) -> None:
    file = write(tmp_path, {"a.jpg": b"x"}) / "a.jpg"
    os.utime(file, ns=(0, 1_700_000_000_123_456_789))

    def version() -> str:
        return rows_of(open_corpus(str(tmp_path)))[0]["version"]  # type: ignore[no-any-return]

    assert version() == "1-1700000000123456789"
    os.utime(file, ns=(0, 1_700_000_000_123_456_790))
    assert version() == "1-1700000000123456790"
    file.write_bytes(b"xy")
    assert version().startswith("2-")


def test_symbolic_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = write(tmp_path / "root", {"a.jpg": b"x"})
    outside = write(tmp_path / "outside", {"b.jpg": b"x"})
    (root / "linked").symlink_to(outside)
    (root / "here").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "named.jpg").symlink_to(outside / "b.jpg")
    corpus = open_corpus(str(root))
    rows = {row["uri"].removeprefix(f"{root}/"): row["problem"] for row in rows_of(corpus)}
    assert set(rows) == {"a.jpg", "linked/b.jpg", "named.jpg", "self"}
    assert [name for name, problem in rows.items() if problem] == ["self"]
    assert corpus.skipped == {"symlink loop": 1}


def test_a_broken_link_and_a_name_that_is_no_text_cost_themselves_only(tmp_path: Path) -> None:
    write(tmp_path, {"good.jpg": b"x"})
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).write_bytes(b"x")
    problems = {Path(row["uri"]).name: row["problem"] for row in rows_of(open_corpus(str(tmp_path)))}
    assert problems["good.jpg"] is None
    assert "broken symbolic link" in problems["gone.jpg"]
    assert "not valid UTF-8" in problems["\\udcff.jpg"]


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": b"x"})
    os.mkfifo(tmp_path / "pipe")
    corpus = open_corpus(str(tmp_path))
    assert len(rows_of(corpus)) == 1
    assert corpus.skipped == {"not a regular file": 1}


def test_globs_choose_by_the_path_below_the_root(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(["a.jpg", "a.png", "x/b.jpg", "x/y/c.jpg", "z/d.jpg"], b"x"))
    assert names(tmp_path, include=["*.jpg"]) == ["a.jpg", "x/b.jpg", "x/y/c.jpg", "z/d.jpg"]
    assert names(tmp_path, include=["x/*"]) == ["x/b.jpg"]
    assert names(tmp_path, include=["x/**"], exclude=["**/c.*"]) == ["x/b.jpg"]
    assert names(tmp_path, include=["*.{png,gif}", "z/?.jpg"]) == ["a.png", "z/d.jpg"]
    assert names(tmp_path, exclude=["/a.jpg", "x/**"]) == ["a.png", "z/d.jpg"]


def test_an_excluded_folder_is_not_entered_and_counts_once(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(["a.jpg", "x/b.jpg", "x/y/c.jpg"], b"x"))
    corpus = open_corpus(str(tmp_path), exclude=["x/**"])
    assert len(rows_of(corpus)) == 1
    assert corpus.skipped == {"excluded": 1}


def test_one_file_is_a_corpus_of_one(tmp_path: Path) -> None:
    write(tmp_path / "audio", {"a.wav": b"x", "b.wav": b"x"})
    rows = rows_of(open_corpus(f"{tmp_path}/audio/a.wav"))
    assert [(row["uri"], row["modality"], row["size_bytes"]) for row in rows] == [(f"{tmp_path}/audio/a.wav", "audio", 1)]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no file lies below"):
        open_corpus(str(tmp_path))
    write(tmp_path, {".hidden": b"x"})
    with pytest.raises(CorpusError, match="1 hidden"):
        open_corpus(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_an_error_and_no_silent_gap(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": b"x", "closed/b.jpg": b"x"})
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(CorpusError, match=r"no permission to read .*closed"):
            rows_of(open_corpus(str(tmp_path)))
        assert names(tmp_path, exclude=["closed/**"]) == ["a.jpg"]
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_bytes_are_believed_before_names_and_what_is_unclear_stays_open(tmp_path: Path) -> None:
    files = {
        "1.txt": picture(),
        "2.jpg": b"no picture",
        "3.png": picture("I;16"),
        "4.csv": b"1,2\n",
        "5.what": b"\0\1",
        "6.jpg": b"",
    }
    write(tmp_path, files)
    (batch,) = open_corpus(str(tmp_path)).batches()
    guesses = find_modalities(batch, PUBLIC)
    assert [guess.modality for guess in guesses] == ["image", "image", None, None, None, "image"]
    assert [guess.why for guess in guesses] == ["", "", "ambiguous", "ambiguous", "unknown", ""]


def test_a_source_that_vanished_before_its_bytes_were_looked_at_is_told(tmp_path: Path) -> None:
    write(tmp_path, MEDIA)
    (batch,) = open_corpus(str(tmp_path)).batches()
    (tmp_path / "a.jpg").unlink()
    gone, *others = find_modalities(batch, PUBLIC)
    assert gone.modality is None
    assert "cannot be read" in gone.detail
    assert all(guess.modality for guess in others)


def test_no_row_needs_no_look() -> None:
    from pipelines.corpus import COLUMNS

    assert find_modalities(pa.table({f.name: pa.array([], f.type) for f in COLUMNS}), PUBLIC) == []


def test_a_folder_that_a_server_lists_is_a_corpus(http_folder: HttpFolder) -> None:
    write(http_folder.path, {"image/a.jpg": MEDIA["a.jpg"], "image/b c.png": MEDIA["b b#1.png"]})
    rows = rows_of(open_corpus(f"{http_folder.url}/image/"))
    assert [row["uri"].removeprefix(http_folder.url) for row in rows] == ["/image/a.jpg", "/image/b%20c.png"]
    assert {row["modality"] for row in rows} == {"image"}
    assert all(row["version"] and row["problem"] is None for row in rows)
