"""Tar shards made here: which members are sources, and what damage costs."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from corpora import MEDIA, rows_of, tar, write

from pipelines.corpus import CorpusError, find_modalities, open_corpus
from pipelines.reach import PUBLIC


def members(uri: str) -> list[str]:
    return [row["uri"].partition("#")[2] for row in rows_of(open_corpus(uri))]


def test_a_member_is_a_range_of_its_shard(tmp_path: Path) -> None:
    long = "deep/" * 40 + "é.jpg"  # beyond what a plain tar header holds
    data = {**MEDIA, long: b"long"}
    shard = write(tmp_path, {"s.tar": tar(data)}) / "s.tar"
    for row in rows_of(open_corpus(str(shard))):
        name = row["uri"].removeprefix(f"{shard}#")
        assert shard.read_bytes()[row["offset"] : row["offset"] + row["size_bytes"]] == data[name]
        assert row["container"] == str(shard)
        assert row["version"].endswith(f":{row['offset']}")


@pytest.mark.parametrize("pattern", ["s-*.tar", "s-{00..02}.tar", "s-0[0-2].tar", "s-0?.tar", "s-{00,0[12]}.tar", "."])
def test_shards_are_named_by_a_pattern_or_are_all_of_a_folder(pattern: str, tmp_path: Path) -> None:
    write(tmp_path, {f"s-{k:02}.tar": tar({f"{k}.jpg": b"x"}) for k in (2, 0, 1)})
    assert members(str(tmp_path / pattern)) == ["0.jpg", "1.jpg", "2.jpg"]


def test_a_folder_of_shards_and_media_is_a_folder_of_media(tmp_path: Path) -> None:
    write(tmp_path, {"s.tar": tar(MEDIA), "a.jpg": b"x"})
    corpus = open_corpus(str(tmp_path))
    assert [row["uri"] for row in rows_of(corpus)] == [f"{tmp_path}/a.jpg"]
    assert corpus.skipped == {".tar": 1}


def test_what_lies_beside_shards_is_counted(tmp_path: Path) -> None:
    write(tmp_path, {"s.tar": tar(MEDIA), "index.json": b"{}", "_stats": b"x", "x/t.tar": tar({"z.jpg": b"x"})})
    corpus = open_corpus(str(tmp_path))
    assert len(rows_of(corpus)) == len(MEDIA) + 1
    assert corpus.skipped == {".json": 1, "hidden": 1}


def test_a_missing_shard_of_a_range_costs_itself_only(tmp_path: Path) -> None:
    write(tmp_path, {f"s-{k}.tar": tar({f"{k}.jpg": b"x"}) for k in (0, 2)})
    rows = rows_of(open_corpus(f"{tmp_path}/s-{{0..2}}.tar"))
    assert [row["problem"] for row in rows] == [None, "not found", None]
    assert rows[1]["uri"] == f"{tmp_path}/s-1.tar"


def test_what_is_no_plain_member_is_skipped_and_counted(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in (
            "/etc/passwd.jpg",
            "../up.jpg",
            "x/../../up.jpg",
            "._a.jpg",
            "__MACOSX/a.jpg",
            "a.json",
            "./x//b.jpg",
            "a.cls",
        ):
            archive.addfile(tarfile.TarInfo(name))
        for name, kind in (
            ("link.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("dev", tarfile.CHRTYPE),
            ("x", tarfile.DIRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    write(tmp_path, {"s.tar": out.getvalue()})
    corpus = open_corpus(f"{tmp_path}/s.tar")
    assert [row["uri"] for row in rows_of(corpus)] == [f"{tmp_path}/s.tar#x/b.jpg"]
    assert corpus.skipped == {"unsafe name": 3, "hidden": 2, ".json": 1, ".cls": 1, "not a regular file": 3}


def test_the_modality_is_told_within_the_shard(tmp_path: Path) -> None:
    names = ["1.jpg", "1.depth.png", "thermal/1.png", "imu/1.depth.png", "1.seg.png", "depth.png"]
    write(tmp_path, {"images/s.tar": tar(dict.fromkeys(names, b"x"))})
    assert [row["modality"] for row in rows_of(open_corpus(f"{tmp_path}/images/s.tar"))] == [
        None,
        "depth",
        "thermal",
        "depth",
        None,
        None,
    ]


def test_bytes_and_the_members_own_name_tell_the_rest(tmp_path: Path) -> None:
    write(tmp_path, {"s.tar": tar({"1.jpg": b"no picture", "2.txt": MEDIA["a.jpg"], "in/3#.txt": b"words", "4.what": b"?"})})
    (batch,) = open_corpus(f"{tmp_path}/s.tar").batches()
    assert [guess.modality for guess in find_modalities(batch, PUBLIC)] == ["image", "image", "text", None]


def test_a_rewritten_shard_gives_its_members_new_versions(tmp_path: Path) -> None:
    shard = write(tmp_path, {"s.tar": tar(MEDIA)}) / "s.tar"
    before = {row["version"] for row in rows_of(open_corpus(str(shard)))}
    os.utime(shard, ns=(0, 1))
    assert not before & {row["version"] for row in rows_of(open_corpus(str(shard)))}


@pytest.mark.parametrize("damage", ["cut", "noise", "gzip", "empty"])
def test_a_damaged_shard_costs_what_is_lost_in_it(damage: str, tmp_path: Path) -> None:
    whole = tar({f"{k}.jpg": bytes(5000) for k in range(4)})
    broken = {"cut": whole[:9000], "noise": b"\xff" * 4096, "gzip": b"\x1f\x8b" + bytes(600), "empty": b""}[damage]
    write(tmp_path, {"s-0.tar": broken, "s-1.tar": whole})
    rows = rows_of(open_corpus(f"{tmp_path}/*.tar"))
    problems = [row for row in rows if row["problem"]]
    assert [row["uri"] for row in problems] == [f"{tmp_path}/s-0.tar"]
    assert "damaged tar file" in problems[0]["problem"]
    assert sum(row["uri"].startswith(f"{tmp_path}/s-1.tar#") for row in rows) == 4


def test_a_name_that_is_no_text_costs_itself_only(tmp_path: Path) -> None:
    write(tmp_path, {"s.tar": tar({"a.jpg": b"x", "\udcff.jpg": b"x"})})
    assert [row["problem"] is None for row in rows_of(open_corpus(f"{tmp_path}/s.tar"))] == [True, False]


def test_a_pattern_without_a_shard_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": b"x"})
    with pytest.raises(CorpusError, match="no tar shard is at"):
        open_corpus(f"{tmp_path}/*.tar")
