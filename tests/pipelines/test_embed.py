"""The main job on real parts: real media, real Ray, real Lance, a real S3 server. Its laws, and what bad input does."""

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from encoders import load_space
from jobs.config import DONE, GATE_FAILED, STOPPED
from pipelines.demo_world import grid, write_corpus
from pipelines.embed import EmbedSettings, embed
from pipelines.identity import source_id
from pipelines.report import EmbedReport
from pipelines.storage import filesystem, lance_options

MODALITIES = ("image", "video", "audio", "text", "depth", "thermal", "imu")
pytestmark = pytest.mark.usefixtures("ray_local")


def _run(corpus: Path | str, db: Path | str, **settings: Any) -> EmbedReport:
    report = embed(EmbedSettings(corpus=str(corpus), db=str(db), **settings))
    assert report.failures == [] or settings.get("max_reject_rate") == 0.0, report.failures
    return report


def _table(db: Path | str, name: str = "media") -> pd.DataFrame:
    uri = f"{db}/{name}.lance"
    frame: pd.DataFrame = lance.dataset(uri, storage_options=lance_options(uri)).to_table().to_pandas()
    return frame


def _picture(shade: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), shade, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes in seven modalities, as ordinary files with a manifest."""
    out = tmp_path_factory.mktemp("world") / "media"
    write_corpus(str(out), grid(1)[:3], MODALITIES)
    return out


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else str(request.getfixturevalue("s3"))


def test_seven_modalities_reach_the_table_once_and_a_second_run_does_nothing(world: Path, place: str) -> None:
    fs, root = filesystem(place)
    fs.put(str(world), f"{root}/media", recursive=True)
    first = _run(f"{place}/media", f"{place}/index")
    assert {m: c["embedded"] for m, c in first.tally.by_modality.items()} == dict.fromkeys(MODALITIES, 3)
    table = _table(f"{place}/index")
    assert Counter(table["modality"]) == dict.fromkeys(MODALITIES, 3) and table["item_id"].is_unique
    assert (table["uri"].str.startswith(place)).all() and (table["thing"].notna()).all()
    assert first.audit is not None and first.audit.unique_ids and first.audit.rows_as_expected
    space = load_space("demo")
    row = table[table["modality"] == "audio"].iloc[0]
    with fs.open(row["uri"]) as file:
        alone = space.embed("audio", [file.read()])[0]
    np.testing.assert_allclose(np.stack(table["vector"])[table.index[table["item_id"] == row["item_id"]][0]], alone, atol=1e-4)
    again = _run(f"{place}/media", f"{place}/index")
    assert (again.tally.unchanged, again.tally.embedded, again.commits) == (21, 0, 0)


def test_only_what_changed_is_embedded_and_replaces_what_was(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for k in range(4):
        (media / f"{k}.jpg").write_bytes(_picture(40 * k))
    _run(media, tmp_path / "db")
    before = _table(tmp_path / "db").set_index("uri")
    (media / "1.jpg").write_bytes(_picture(250, "PNG"))  # its name lies about its kind; its bytes do not
    (media / "4.jpg").write_bytes(_picture(200))
    (media / "2.jpg").write_bytes(b"no longer a picture")
    report = _run(media, tmp_path / "db", max_reject_rate=1.0)
    assert (report.tally.unchanged, report.tally.embedded, report.tally.rejected) == (2, 2, 1)
    after = _table(tmp_path / "db").set_index("uri")
    assert sorted(Path(u).name for u in after.index) == ["0.jpg", "1.jpg", "3.jpg", "4.jpg"]
    changed = str(media / "1.jpg")
    assert after.loc[changed, "version"] != before.loc[changed, "version"]
    assert not np.allclose(after.loc[changed, "vector"], before.loc[changed, "vector"])
    assert after.loc[str(media / "0.jpg"), "run_id"] == before.loc[str(media / "0.jpg"), "run_id"]


def test_bad_media_become_rejects_and_the_job_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "good.jpg").write_bytes(_picture(9))
    (media / "truncated.jpg").write_bytes(_picture(9)[:400])
    (media / "empty.png").write_bytes(b"")
    (media / "mislabelled.wav").write_bytes(_picture(9))  # a picture by its bytes: embedded as one
    Image.new("1", (30_000, 30_000)).save(media / "huge.png")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(media / "grey16.png")
    (media / "notes.xyz").write_bytes(b"\x00\x01\x02")
    (media / "table.csv").write_text("a,b\n1,2\n")
    report = _run(media, tmp_path / "db", max_reject_rate=1.0)
    tally = report.tally
    assert sorted(Path(u).name for u in _table(tmp_path / "db")["uri"]) == ["good.jpg", "mislabelled.wav"]
    rejects = _table(tmp_path / "db", "media__rejects").set_index("uri")
    assert {Path(u).name: s for u, s in rejects["stage"].items()} == {
        "truncated.jpg": "decode",
        "empty.png": "decode",
        "huge.png": "decode",
        "grey16.png": "identify",
        "table.csv": "identify",
    }
    assert rejects.loc[str(media / "huge.png"), "error_type"] == "TooLargeError"
    assert dict(tally.skipped) == {".xyz": 1} and tally.found == tally.listed + 1 and not tally.unexpected
    again = _run(media, tmp_path / "db", max_reject_rate=1.0)
    assert (again.tally.rejected, again.tally.rejected_before, again.commits) == (5, 5, 0)
    (media / "truncated.jpg").write_bytes(_picture(9))
    retried = _run(media, tmp_path / "db", retry_rejects=True, max_reject_rate=0.0)
    assert (retried.tally.embedded, retried.tally.rejected) == (1, 4)
    (gate,) = retried.failures
    assert gate == "4 of 7 sources rejected, above --max-reject-rate 0.0; the table media__rejects names them"
    told = capsys.readouterr().err
    assert len(retried.tally.first_rejects) == 4 and all(f"rejected: {one}" in told for one in retried.tally.first_rejects)
    assert f"rejected: {media / 'huge.png'}: " in told
    assert not any(str(media / name) in retried.to_json() for name in ("huge.png", "grey16.png")), "runs outlive a purge"
    rejects = _table(tmp_path / "db", "media__rejects")
    assert dict(Counter(rejects["attempts"])) == {2: 4} and len(rejects) == 4


def test_a_manifest_brings_labels_and_its_bad_rows_are_rejects(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(_picture(1))
    lines = [
        {"uri": "a.jpg", "modality": "image", "label": "dark"},
        {"uri": "a.jpg", "modality": "image", "label": "again"},
        {"uri": None, "modality": "image", "label": "nowhere"},
        {"uri": "a.jpg", "modality": "smell", "label": "unknown"},
        {"uri": "gone.jpg", "modality": "image", "label": "gone"},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    report = _run(tmp_path / "list.jsonl", tmp_path / "db", max_reject_rate=1.0)
    assert _table(tmp_path / "db")["label"].tolist() == ["dark"]
    assert (report.tally.found, report.tally.duplicate, report.tally.embedded, report.tally.rejected) == (5, 1, 1, 3)


def test_tar_shards_are_read_by_range(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard-000.tar", "w") as shard:
        for k in range(3):
            member = tarfile.TarInfo(f"{k:03}.jpg")
            member.size = len(_picture(k))
            shard.addfile(member, io.BytesIO(_picture(k)))
    _run(str(tmp_path / "shard-*.tar"), tmp_path / "db")
    table = _table(tmp_path / "db")
    assert sorted(table["uri"]) == [f"{tmp_path}/shard-000.tar#{k:03}.jpg" for k in range(3)]
    expected = load_space("demo").embed("image", [_picture(k) for k in range(3)])
    np.testing.assert_allclose(np.stack(table.sort_values("uri")["vector"]), expected, atol=1e-4)


@pytest.mark.slow
def test_a_soundtrack_and_its_video_are_two_sources_of_one_uri(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "video", tmp_path / "video")
    _run(tmp_path / "video", tmp_path / "db")
    _run(tmp_path / "video", tmp_path / "db", modality="audio", max_reject_rate=1.0)
    table = _table(tmp_path / "db")
    uri = table["uri"].iloc[0]
    assert source_id(uri, "video") in set(table["source_id"])
    assert set(table["modality"]) <= {"video", "audio"} and (table["modality"] == "video").sum() == 3


@pytest.mark.parametrize("seconds", [0.5, -1.0, float("nan"), float("inf"), 1e9])
def test_a_time_for_an_item_that_no_clock_can_wait_for_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="1 second to a day"):
        EmbedSettings(corpus="c", db="d", item_timeout=seconds)


def test_a_table_of_another_space_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(_picture(1))
    _run(tmp_path / "a.jpg", tmp_path / "db")
    space = load_space("demo")
    other = dataclasses.replace(space, fingerprint="0" * 32).save(tmp_path / "other")
    with pytest.raises(ValueError, match="holds vectors of space 'demo'"):
        _run(tmp_path / "a.jpg", tmp_path / "db", space=other.uri)


def test_a_dry_run_plans_and_writes_nothing(world: Path, tmp_path: Path) -> None:
    report = _run(world, tmp_path / "db", dry_run=True)
    assert sum(c["planned"] for c in report.tally.by_modality.values()) == 21
    assert not (tmp_path / "db").exists()


def test_a_pattern_that_nothing_fits_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.jpg").write_bytes(_picture(9))
    for include, told in (("*.jpg", False), ("*.jpeg", True)):
        _run(tmp_path / "media", tmp_path / "db", dry_run=True, include=[include])
        assert ("look at --include, --exclude and --modality" in capsys.readouterr().err) == told


def test_a_dry_run_tells_what_is_listed_and_a_gate_that_the_run_would_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "media").mkdir()
    for name in "abc":
        (tmp_path / "media" / f"{name}.jpg").write_bytes(_picture(9))
    (tmp_path / "media" / "bad.jpg").write_bytes(_picture(9)[:400])
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "media" / "grey16.png")
    _run(tmp_path / "media", tmp_path / "db", dry_run=True, max_reject_rate=0.4)
    told = capsys.readouterr().err
    assert "5 sources listed: 0 unchanged, 4 to embed, 0 skipped, 0 duplicate, 1 rejected" in told
    assert "would be rejected" not in told
    _run(tmp_path / "media", tmp_path / "db", dry_run=True, max_reject_rate=0.3)
    assert "some 2 of 5 sources would be rejected, above --max-reject-rate 0.3" in capsys.readouterr().err


def test_a_driver_killed_at_work_is_resumed_by_the_same_command(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for k in range(300):
        (media / f"{k:03}.jpg").write_bytes(_picture(k % 250))
    command = [sys.executable, "-m", "jobs.embed", str(media), "--db", str(tmp_path / "db")]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stderr is not None
    for line in child.stderr:
        if "sources listed" in line:
            break
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    _run(media, tmp_path / "db")
    table = _table(tmp_path / "db")
    assert len(table) == 300 and table["item_id"].is_unique


def test_a_sigterm_keeps_what_is_embedded_and_gives_the_lease_back(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for k in range(250):
        (media / f"{k:03}.jpg").write_bytes(_picture(k))
    command = [sys.executable, "-m", "jobs.embed", str(media), "--db", str(tmp_path / "db")]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if "to embed" in line:
            break
    time.sleep(8)  # somewhere between Ray's start and the last commit
    os.kill(child.pid, signal.SIGTERM)
    words = child.communicate(timeout=120)[1]
    assert child.returncode in (STOPPED, DONE), words  # DONE: it had already finished
    assert list((tmp_path / "db" / "_bindery" / "media").glob("epoch-*/released"))
    _run(media, tmp_path / "db")
    assert sorted(_table(tmp_path / "db")["uri"]) == sorted(str(p) for p in media.iterdir())


@pytest.mark.slow
def test_what_could_not_be_read_is_tried_again_by_the_next_run(tmp_path: Path, http_folder: Any) -> None:
    urls = [{"uri": f"{http_folder.url}/{k}.jpg", "modality": "image", "version": "1"} for k in range(3)]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(u) for u in urls))
    settings = EmbedSettings(corpus=str(tmp_path / "list.jsonl"), db=str(tmp_path / "db"), allow_hosts=["127.0.0.1"])
    report = embed(settings)
    assert report.exit_code == GATE_FAILED and report.tally.rejected == 3
    assert set(_table(tmp_path / "db", "media__rejects")["stage"]) == {"read"}
    for k in range(3):
        (http_folder.path / f"{k}.jpg").write_bytes(_picture(k))
    _run(tmp_path / "list.jsonl", tmp_path / "db", allow_hosts=["127.0.0.1"])
    assert len(_table(tmp_path / "db")) == 3 and len(_table(tmp_path / "db", "media__rejects")) == 0


@pytest.mark.slow
def test_an_ambiguous_reject_is_cleared_once_its_kind_is_told(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "room.jpg").write_bytes(_picture(1))
    Image.fromarray(np.full((16, 16), 1500, np.uint16)).save(media / "grey.png")
    _run(media, tmp_path / "db", max_reject_rate=1.0)
    assert len(_table(tmp_path / "db", "media__rejects")) == 1
    _run(media / "grey.png", tmp_path / "db", modality="depth")
    _run(media / "grey.png", tmp_path / "db", modality="depth")
    assert len(_table(tmp_path / "db", "media__rejects")) == 0
    assert Counter(_table(tmp_path / "db")["modality"]) == {"image": 1, "depth": 1}
