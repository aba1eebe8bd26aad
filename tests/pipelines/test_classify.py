"""Labels written into a table: the right ones, once, and whatever is killed on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from searchable import make_space, many_rows, write_table

from encoders.space import Space
from jobs.classify import main
from pipelines.classify import ClassifySettings, classify, refuse_filled
from pipelines.index import open_index
from pipelines.lease import Lease
from pipelines.ledger import Ledger
from pipelines.table import open_table, table_uri
from pipelines.upkeep import UpkeepSettings, upkeep
from pipelines.writer import write_items

LABELS = ["dog", "cat", "bell"]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return make_space(tmp_path_factory.mktemp("space"))


@pytest.fixture
def db(tmp_path: Path, space: Space) -> str:
    """Three fragments of 200 rows."""
    for first in (0, 200, 400):
        write_table(tmp_path / "db", many_rows(space, first, 200))
    return str(tmp_path / "db")


def content(db: str) -> Any:
    return open_table(table_uri(db, "media")).to_table().sort_by("item_id").to_pandas().set_index("item_id")  # type: ignore[union-attr]


def run(db: str, **settings: Any) -> Any:
    return classify(ClassifySettings(db=db, **{"labels": LABELS, **settings}))


def test_what_is_written_is_what_zero_shot_reads(db: str) -> None:
    before = content(db)
    report = run(db, template="a {}")
    after = content(db)
    said = open_index(db).zero_shot(LABELS, template="a {}").set_index("item_id").loc[after.index]
    assert (after["label"] == said["label"]).all()
    np.testing.assert_allclose(after["label_probability"], said["probability"], rtol=1e-5)
    assert report.missing == 600 and report.classified == after["label"].value_counts().to_dict()
    assert after[before.columns].astype(str).equals(before.astype(str))


def test_a_second_run_fills_only_what_is_missing(db: str, space: Space) -> None:
    run(db)
    version = open_table(table_uri(db, "media")).version  # type: ignore[union-attr]
    assert run(db).missing == 0 and open_table(table_uri(db, "media")).version == version  # type: ignore[union-attr]
    uri = table_uri(db, "media")
    with Lease(db, "media", "run") as lease:  # a new source, and a changed one
        ledger = Ledger(uri, lease, "run")
        changed = many_rows(space, 0, 2, "2")
        fragments = write_items(uri, ledger.dataset.schema, many_rows(space, 600, 4))  # type: ignore[union-attr]
        fragments += write_items(uri, ledger.dataset.schema, changed)  # type: ignore[union-attr]
        ledger.commit(fragments, [f"{0:032x}"])
    assert run(db, dry_run=True).missing == 6 and content(db)["label"].isna().sum() == 6
    assert run(db).classified.total() == 6
    after = content(db)
    assert len(after) == 604 and after["label"].notna().all()
    said = open_index(db).zero_shot(LABELS).set_index("item_id").loc[after.index]
    assert (after["label"] == said["label"]).all()


def test_a_submitted_run_has_the_name_of_its_submission(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"metadata": {"job_submission_id": "names-2026-11-21"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(told))  # as Ray tells the entrypoint of a job
    assert run(db, dry_run=True).run_id == "names-2026-11-21"


def test_only_what_is_asked_for_is_classified(db: str) -> None:
    run(db, modality="audio", where="rating < 20")
    after = content(db)
    chosen = (after["modality"] == "audio") & (after["rating"] < 20)
    assert after["label"].notna().equals(chosen) and chosen.any()
    assert run(db).missing == (~chosen).sum()


def test_labels_stay_through_upkeep_and_filter_searches(db: str) -> None:
    run(db)
    before = content(db)
    upkeep(UpkeepSettings(db=db))
    assert content(db).astype(str).equals(before.astype(str))
    hits = open_index(db).search("rain", where="label = 'dog' AND label_probability > 0.3", k=600)
    assert {hit["item_id"] for hit in hits} == set(
        before[(before["label"] == "dog") & (before["label_probability"] > 0.3)].index
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"column": "text"}, "the table's own"),
        ({"column": "score"}, "the table's own"),
        ({"column": "a b"}, "no plain name"),
        ({"column": "thing"}, "something else than classify"),
        ({"labels": ["dog", "sea"]}, r'filled with \{"labels": \["dog", "cat", "bell"\]'),
        ({"template": "x {}"}, "already, filled with"),
        ({"labels": [], "column": "other"}, "list of different words"),
        ({"where": "nosuch = 1"}, "the columns are item_id"),
        ({"where": "true) OR (true"}, "parentheses"),
        ({"modality": "smell"}, "this space has"),
        ({"table": "nosuch"}, "no table"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused_and_nothing_changes(db: str, settings: dict[str, Any], message: str) -> None:
    run(db)
    before = open_table(table_uri(db, "media")).version  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=message):
        run(db, **settings)
    assert open_table(table_uri(db, "media")).version == before  # type: ignore[union-attr]


def test_several_classifications_stand_side_by_side(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(db)
    assert main(["--db", db, "--labels", "sea", "rain", "--column", "place"]) == 0
    assert '"rows_written": 600' in capsys.readouterr().out
    after = content(db)
    assert set(after["place"]) <= {"sea", "rain"} and set(after["label"]) <= set(LABELS)
    assert main(["--db", db, "--labels", "sea", "--column", "uri"]) == 2


@pytest.mark.slow
def test_killed_anywhere_the_next_run_fills_the_rest(db: str, tmp_path: Path) -> None:
    expected = str(shutil.copytree(db, tmp_path / "expected"))
    run(expected)
    command = [sys.executable, "-m", "jobs.classify", "--db", db, "--labels", *LABELS]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    version = open_table(table_uri(db, "media")).version  # type: ignore[union-attr]
    while child.poll() is None and open_table(table_uri(db, "media")).version == version:  # type: ignore[union-attr]
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert len(content(db)) == 600
    run(db)
    assert content(db).astype(str).equals(content(expected).astype(str))


def test_a_manifest_may_not_write_what_classify_has_filled(db: str) -> None:
    run(db)
    dataset = open_table(table_uri(db, "media"))
    for name in ("label", "label_probability"):
        with pytest.raises(ValueError, match=f"'{name}' .* is filled by `bindery classify`"):
            refuse_filled(dataset, ["thing", name], db)
    refuse_filled(dataset, ["thing"], db)
