"""Upkeep changes how a table is stored and never what is in it, on a local disk and on a real S3 server."""

import random
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from killed import kill_holder
from lance.fragment import write_fragments
from lance.optimize import Compaction

import pipelines.lease
from pipelines.compaction import compaction_options
from pipelines.lease import Lease, LeaseHeldError, LeaseLostError
from pipelines.ledger import Ledger
from pipelines.storage import filesystem, lance_options
from pipelines.table import create_table, open_table, table_uri
from pipelines.upkeep import Keep, UpkeepReport, UpkeepSettings, duration, optimize, orphans, upkeep

DIM = 16
NOTHING = timedelta(0)
SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("vector", pa.list_(pa.float32(), DIM), nullable=False),
    ]
)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "db") if request.param == "local" else request.getfixturevalue("s3") + "/db"


def _rows(first: int, count: int, dim: int = DIM) -> pa.Table:
    vectors = np.random.default_rng(first).normal(size=(count, dim)).astype(np.float32)
    ids = [f"{n:032x}" for n in range(first, first + count)]
    columns = [ids, ids, ["text"] * count, [f"word{n} dog" for n in range(first, first + count)], list(vectors)]
    return pa.table(columns, schema=SCHEMA.set(4, pa.field("vector", pa.list_(pa.float32(), dim), nullable=False)))


def _filled(db: str, fragments: int, rows: int = 20, dim: int = DIM) -> Any:
    """A table of small fragments, each of its own commit."""
    uri = table_uri(db, "media")
    create_table(uri, _rows(0, 1, dim).schema)
    for n in range(fragments):
        lance.write_dataset(_rows(n * rows, rows, dim), uri, mode="append", storage_options=lance_options(uri))
    return open_table(uri)


def _content(dataset: Any) -> pa.Table:
    return dataset.to_table().sort_by("item_id")


def _upkeep(db: str, **settings: Any) -> UpkeepReport:
    return upkeep(UpkeepSettings(db=db, **{"keep_versions_for": "0s", "keep_orphans_for": "0s", "wait": 0.0, **settings}))


def test_rows_stay_while_fragments_and_versions_become_few(db: str) -> None:
    dataset = _filled(db, 5)
    dataset.delete(f"source_id = '{3:032x}'")
    before = _content(open_table(dataset.uri))
    report = _upkeep(db)
    after: Any = open_table(dataset.uri)
    assert _content(after) == before and not report.failures and report.rows == before.num_rows
    assert len(after.get_fragments()) == 1 and len(after.versions()) == 1
    done = report.tables["media"]
    assert (done.fragments_removed, done.fragments_added, done.versions_removed > 5) == (5, 1, True)
    again = _upkeep(db).tables["media"]
    assert (again.fragments_removed, again.versions_removed) == (0, 0)


def test_a_dry_run_says_what_would_go_and_changes_nothing(tmp_path: Path) -> None:
    dataset = _filled(str(tmp_path), 5)
    write_fragments(_rows(900, 5), dataset.uri, schema=SCHEMA, mode="append")
    files = sorted(tmp_path.rglob("*"))
    would = _upkeep(str(tmp_path), dry_run=True).tables["media"]
    assert sorted(tmp_path.rglob("*")) == files
    assert (would.fragments_removed, would.fragments_added, would.versions_removed, would.orphans_removed) == (5, 1, 5, 1)
    assert would.bytes_freed > 0


def test_a_reader_of_a_version_that_was_replaced_lately_reads_on(tmp_path: Path) -> None:
    uri = _filled(str(tmp_path), 3).uri
    reader: Any = open_table(uri)  # opened long after its version was made, and replaced only now
    time.sleep(1.2)
    lance.write_dataset(_rows(900, 5), uri, mode="append")
    report = _upkeep(str(tmp_path), keep_versions_for="1s")
    assert report.tables["media"].versions_removed > 0
    assert reader.to_table().num_rows == 60
    assert lance.dataset(uri, version=reader.version).to_table().num_rows == 60
    time.sleep(1.2)
    _upkeep(str(tmp_path), keep_versions_for="1s")
    with pytest.raises(ValueError, match="not found"):
        lance.dataset(uri, version=reader.version)


@pytest.mark.parametrize("skew_s", [-86_400.0, 86_400.0], ids=["a day behind", "a day ahead"])
def test_a_wrong_clock_neither_takes_versions_from_readers_nor_keeps_them(
    tmp_path: Path, skew_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    _filled(str(tmp_path), 3)
    real = time.time
    monkeypatch.setattr(pipelines.lease.time, "time", lambda: real() + skew_s)
    assert _upkeep(str(tmp_path), keep_versions_for="1h").tables["media"].versions_removed == 0
    assert _upkeep(str(tmp_path), keep_versions_for="0s").tables["media"].versions_removed > 0


def test_a_tagged_version_stays_readable(db: str) -> None:
    dataset = _filled(db, 4)
    dataset.tags.create("gold", 3)
    report = _upkeep(db)
    tagged = lance.dataset(dataset.uri, version="gold", storage_options=lance_options(db))
    assert tagged.to_table().num_rows == 40 and report.tables["media"].versions_tagged == 1
    assert next(v["version"] for v in open_table(dataset.uri).versions()) == 3  # type: ignore[union-attr]


def test_orphans_go_when_they_are_old_enough_and_nothing_else_goes(db: str) -> None:
    dataset = _filled(db, 2)
    write_fragments(_rows(900, 5), dataset.uri, schema=SCHEMA, mode="append", storage_options=lance_options(db))
    with Lease(db, "media", "run") as lease:
        ledger = Ledger(dataset.uri, lease, "run")
        assert optimize(ledger, Keep(versions=timedelta(days=1)))["media"].orphans_removed == 0
        assert len(orphans(open_table(dataset.uri), ledger.store_time() + 2)) == 1
        fs, root = filesystem(db)
        with fs.open(f"{root}/_bindery/media/probe-of-a-killed-run", "wb") as file:
            file.write(b"first")
        time.sleep(1.1)  # some stores tell whole seconds
        done = optimize(ledger, Keep(versions=timedelta(days=1), orphans=NOTHING))["media"]
        assert done.orphans_removed == 1 and done.bytes_freed > 0
        fs.invalidate_cache()
        assert not [p for p in fs.ls(f"{root}/_bindery/media", detail=False) if "probe" in p]
    assert open_table(dataset.uri).to_table().num_rows == 40  # type: ignore[union-attr]


def test_indices_hold_every_row_afterwards(tmp_path: Path) -> None:
    dataset = _filled(str(tmp_path), 3)
    dataset.create_scalar_index("source_id", "BTREE")
    dataset.create_scalar_index("text", "INVERTED")
    dataset.create_index("vector", "IVF_FLAT", num_partitions=2, metric="cosine")
    lance.write_dataset(_rows(900, 30), dataset.uri, mode="append")
    report = _upkeep(str(tmp_path))
    after: Any = open_table(dataset.uri)
    assert sorted(report.tables["media"].indices_refreshed) == ["source_id_idx", "text_idx", "vector_idx"]
    assert {i.num_rows_indexed for i in after.describe_indices()} == {90}
    assert after.to_table(full_text_query="word901", columns=["text", "_score"])["text"].to_pylist() == ["word901 dog"]
    with Lease(str(tmp_path), "media", "next") as lease:  # pylance cannot read the transaction of such a compaction back
        Ledger(dataset.uri, lease, "next").commit([], [f"{0:032x}"])
    assert open_table(dataset.uri).count_rows() == 89  # type: ignore[union-attr]


def test_a_running_writer_is_waited_for_and_refused_to_be_disturbed(tmp_path: Path) -> None:
    _filled(str(tmp_path), 3)
    writer = Lease(str(tmp_path), "media", "writer").__enter__()
    with pytest.raises(LeaseHeldError):
        _upkeep(str(tmp_path))
    threading.Timer(0.5, writer.__exit__).start()
    assert _upkeep(str(tmp_path), wait=30.0).tables["media"].fragments_added == 1


@pytest.mark.parametrize("touched", ["all fragments", "all but the oldest"])
def test_a_paused_optimizer_cannot_compact_after_another_took_over(db: str, touched: str) -> None:
    dataset = _filled(db, 4)
    before = _content(dataset)
    paused = Lease(db, "media", "paused", ttl_s=-5.0, renew_s=1000).__enter__()
    its_ledger = Ledger(dataset.uri, paused, "paused")
    spared = [min(f.fragment_id for f in dataset.get_fragments())] if touched == "all but the oldest" else []
    in_hand: Any = open_table(dataset.uri)
    plan = Compaction.plan(in_hand, {**compaction_options(in_hand, 1024), "excluded_fragment_ids": spared})
    results = [task.execute(in_hand) for task in plan.tasks]
    with Lease(db, "media", "other", ttl_s=-5.0, renew_s=1000) as lease:
        Ledger(dataset.uri, lease, "other")
        with pytest.raises(LeaseLostError):
            its_ledger.check_lease()
        with pytest.raises(OSError, match="onflict"):  # past the lease's own check, too
            Compaction.commit(in_hand, results)
    assert _content(open_table(dataset.uri)) == before


def test_killed_at_any_moment_the_table_is_whole_and_the_next_run_ends_the_work(tmp_path: Path) -> None:
    dataset = _filled(str(tmp_path), 12, rows=2000, dim=256)
    before = _content(dataset)
    dice = random.Random(4)
    command = [sys.executable, "-m", "jobs.optimize", "--db", str(tmp_path), "--keep-versions-for", "0s"]
    for _ in range(2):
        kill_holder(command, tmp_path, dice.uniform(0.0, 0.3))
        assert _content(open_table(dataset.uri)) == before
    report = _upkeep(str(tmp_path))
    after: Any = open_table(dataset.uri)
    assert _content(after) == before and not report.failures
    assert len(after.get_fragments()) == 1
    assert not orphans(after, time.time() + 60)


@pytest.mark.parametrize(("text", "seconds"), [("7d", 604800), ("12h", 43200), ("1.5m", 90), ("0s", 0)])
def test_durations_are_read_with_their_unit(text: str, seconds: float) -> None:
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "settings", [{"keep_versions_for": "7"}, {"memory": 64}, {"target_recall": 0.0}, {"table": "nobody"}], ids=str
)
def test_what_cannot_be_used_is_refused_before_anything_starts(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"duration|MiB|no recall|no table"):
        _upkeep(str(tmp_path), **settings)
    assert not list(tmp_path.iterdir())
