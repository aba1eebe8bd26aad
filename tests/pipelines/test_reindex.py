"""The table follows its corpora: what is gone goes, what is labelled anew is relabelled, and mistakes are not believed."""

import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sample_media import tone, video_file

from jobs.config import BAD_INPUT, DONE, GATE_FAILED
from pipelines.reindex import CorpusSettings, ReindexReport, ReindexSettings, reindex
from pipelines.runs import read_runs

pytestmark = pytest.mark.usefixtures("ray_local")


def _picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), shade, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def _table(db: Path) -> pd.DataFrame:
    frame: pd.DataFrame = lance.dataset(f"{db}/media.lance").to_table().to_pandas()
    return frame.set_index("uri")


def _reindex(db: Path, *corpora: Path | CorpusSettings, **settings: Any) -> ReindexReport:
    each = [c if isinstance(c, CorpusSettings) else CorpusSettings(corpus=str(c)) for c in corpora]
    return reindex(ReindexSettings(db=str(db), corpora=each, **settings))


def _names(db: Path) -> list[str]:
    return sorted(Path(uri).name for uri in _table(db).index)


@pytest.fixture
def corpora(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of four pictures, and a manifest of three with a label."""
    folder, labelled = tmp_path / "folder", tmp_path / "labelled"
    for place, names in ((folder, "abcd"), (labelled, "xyz")):
        place.mkdir()
        for k, name in enumerate(names):
            (place / f"{name}.jpg").write_bytes(_picture(40 * k + len(place.name)))
    (labelled / "manifest.csv").write_text("uri,label\nx.jpg,cat\ny.jpg,dog\nz.jpg,\n")
    return folder, labelled


def test_what_is_gone_goes_and_new_labels_come_without_embedding(
    corpora: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, labelled = corpora
    db = tmp_path / "db"
    first = _reindex(db, folder, labelled)
    assert first.exit_code == DONE and _names(db) == [f"{n}.jpg" for n in "abcdxyz"]
    assert all(0 < one.seconds <= first.seconds for one in first.corpora)
    before = _table(db)

    (folder / "a.jpg").unlink()
    (labelled / "manifest.csv").write_text("uri,label\nx.jpg,lion\ny.jpg,dog\nz.jpg,zebra\n")
    refused = _reindex(db, folder, labelled)
    assert refused.exit_code == GATE_FAILED and "1 of 4 sources are gone" in refused.failures[0]
    assert len(_names(db)) == 7 and refused.corpora[1].tally.relabelled == 2, "the rest of the work is done"
    after = _table(db)
    assert after["label"].dropna().to_dict() == {
        str(labelled / "x.jpg"): "lion",
        str(labelled / "y.jpg"): "dog",
        str(labelled / "z.jpg"): "zebra",
    }
    np.testing.assert_array_equal(np.stack(after["vector"][before.index]), np.stack(before["vector"]))
    assert (after["embedded_at"][before.index] == before["embedded_at"]).all()

    planned = _reindex(db, folder, labelled, max_delete_fraction=0.25, dry_run=True)
    assert all(0 < one.seconds <= planned.seconds for one in planned.corpora)
    assert planned.corpora[0].tally.deleted == 1 and len(_names(db)) == 7, "a dry run only says so"
    assert f"{folder}: would delete what is gone, sources: 1" in capsys.readouterr().err
    done = _reindex(db, folder, labelled, max_delete_fraction=0.25)
    assert done.exit_code == DONE and done.corpora[0].tally.deleted == 1 and done.corpora[1].tally.relabelled == 0
    assert _names(db) == [f"{n}.jpg" for n in "bcdxyz"]
    assert done.audit is not None and done.audit.unique_ids and done.audit.rows_as_expected

    version = lance.dataset(f"{db}/media.lance").version
    idle = _reindex(db, folder, labelled)
    assert [r.tally.unchanged for r in idle.corpora] == [3, 3] and lance.dataset(f"{db}/media.lance").version == version
    assert [run["exit_code"] for run in read_runs(str(db), "media")] == [DONE, GATE_FAILED, DONE, DONE]
    assert json.loads(read_runs(str(db), "media")[2]["report"])["deleted"] == 1


@pytest.mark.slow
def test_a_corpus_that_is_not_in_the_config_keeps_its_items(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    folder, labelled = corpora
    db = tmp_path / "db"
    _reindex(db, folder, labelled)
    (labelled / "x.jpg").unlink()
    (folder / "b.jpg").rename(folder / "moved.jpg")
    moved = _reindex(db, folder, max_delete_fraction=1.0)
    assert moved.corpora[0].tally.deleted == 1 and moved.corpora[0].tally.embedded == 1
    assert _names(db) == ["a.jpg", "c.jpg", "d.jpg", "moved.jpg", "x.jpg", "y.jpg", "z.jpg"]


@pytest.mark.slow
def test_pictures_and_soundtracks_of_one_folder_are_two_entries_of_one_corpus(tmp_path: Path) -> None:
    folder, db = tmp_path / "films", tmp_path / "db"
    folder.mkdir()
    for k in range(3):
        (folder / f"{k}.mp4").write_bytes(video_file(sound=tone(2.0, hz=300.0 + k)))
    both = (CorpusSettings(corpus=str(folder)), CorpusSettings(corpus=str(folder), modality="audio"))
    _reindex(db, *both)
    assert sorted(_table(db)["modality"]) == ["audio"] * 3 + ["video"] * 3
    (folder / "2.mp4").unlink()
    done = _reindex(db, *both, max_delete_fraction=0.5)
    assert done.exit_code == DONE and sorted(_table(db)["modality"]) == ["audio"] * 2 + ["video"] * 2


@pytest.mark.slow
def test_a_gone_source_loses_its_reject_and_a_broken_one_keeps_neither_vector_nor_peace(tmp_path: Path) -> None:
    folder, db = tmp_path / "folder", tmp_path / "db"
    folder.mkdir()
    for name in "abcde":
        (folder / f"{name}.jpg").write_bytes(_picture(ord(name)))
    (folder / "bad.jpg").write_bytes(_picture(3)[:200])
    first = _reindex(db, folder, max_reject_rate=1.0)
    assert first.corpora[0].tally.rejected == 1
    (folder / "bad.jpg").unlink()
    (folder / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture any more")
    second = _reindex(db, folder, max_reject_rate=1.0)
    rejects = lance.dataset(f"{db}/media__rejects.lance").to_table().to_pylist()
    assert [Path(r["uri"]).name for r in rejects] == ["a.jpg"] and second.corpora[0].tally.rejected == 1
    assert _names(db) == ["b.jpg", "c.jpg", "d.jpg", "e.jpg"]


@pytest.mark.slow
def test_a_corpus_that_vanishes_when_others_are_done_stops_neither_them_nor_the_report(
    corpora: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, labelled = corpora
    db = tmp_path / "db"
    assert _reindex(db, folder, labelled).exit_code == DONE
    (folder / "a.jpg").unlink()
    (folder / "new.jpg").write_bytes(_picture(250))

    def vanish() -> None:
        while not (
            db / "_bindery" / "media" / "epoch-00000002"
        ).exists():  # the corpora are looked at before the lease is taken
            time.sleep(0.01)
        (labelled / "manifest.csv").unlink()

    vanishing = threading.Thread(target=vanish)
    vanishing.start()
    report = _reindex(db, folder, labelled, max_delete_fraction=1.0)
    vanishing.join()
    assert report.exit_code == GATE_FAILED and len(report.failures) == 1, report.failures
    assert "nothing is at" in report.failures[0] and "nothing was deleted" in report.failures[0]
    assert _names(db) == sorted([*(f"{n}.jpg" for n in "abcdxyz"), "new.jpg"])
    assert [run["exit_code"] for run in read_runs(str(db), "media")] == [DONE, GATE_FAILED]


def test_the_command_reads_its_corpora_from_a_file(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    folder, labelled = corpora
    config = tmp_path / "nightly.yaml"
    entries = [{"corpus": str(folder), "include": ["*.jpg"], "exclude": ["d.*"]}, {"corpus": str(labelled)}]
    config.write_text(yaml.safe_dump({"db": str(tmp_path / "db"), "corpora": entries, "max_delete_fraction": 0.3}))
    command = [sys.executable, "-m", "jobs.reindex", "--config", str(config), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == DONE, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert [one["listed"] for one in report["corpora"]] == [3, 3]
    config.write_text(yaml.safe_dump({"db": str(tmp_path / "db"), "corpora": [{"corpus": str(tmp_path / "nowhere")}]}))
    bad = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert bad.returncode == BAD_INPUT and "nowhere" in bad.stderr
