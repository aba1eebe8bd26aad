"""Readers while others write: each search sees one version of the table, and a long-lived index sees new ones."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest
from searchable import make_space, many_rows, write_table

from pipelines.compaction import Tidied
from pipelines.index import open_index
from pipelines.lease import Lease
from pipelines.ledger import Ledger
from pipelines.table import open_table, table_uri
from pipelines.vector_index import keep_indices, refresh
from pipelines.writer import write_items

ROWS, READERS, ROUNDS = 1200, 6, 6
WATCHED = 40  # rows, of sources that are replaced again and again


@pytest.fixture
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every search looks for a newer version."""
    monkeypatch.setattr("pipelines.index.FRESHNESS_S", 0.0)
    monkeypatch.setattr("pipelines.vector_index.EXACT_VALUES", 1 << 17)  # the table counts as large


def test_readers_see_one_version_whatever_is_committed_compacted_and_indexed(always_fresh: None, tmp_path: Path) -> None:
    """A source has two items, replaced in one commit: whoever sees one of each version has seen a torn table."""
    space = make_space(tmp_path)
    write_table(tmp_path / "db", many_rows(space, 0, ROWS))
    db, uri = str(tmp_path / "db"), table_uri(str(tmp_path / "db"), "media")
    index, stop, wrong, seen = open_index(db), threading.Event(), [], [[] for _ in range(READERS)]  # type: ignore[var-annotated]
    asked = many_rows(space, 0, WATCHED).to_pylist()

    def read(number: int) -> None:
        try:
            while not stop.is_set():
                row = asked[(number * 7 + len(seen[number])) % WATCHED]
                pair = index.search(vector=row["vector"], where=f"source_id = '{row['source_id']}'", k=5).to_arrow()
                if pair.num_rows != 2 or len(set(pair["version"].to_pylist())) != 1:
                    wrong.append(pair.select(["item_id", "version"]).to_pylist())
                near = index.search("dog", k=30, hybrid=number % 2 == 1, columns=["uri"]).to_arrow()
                if near.num_rows != 30 or len(set(near["item_id"].to_pylist())) != 30 or near["uri"].null_count:
                    wrong.append(near.to_pylist())
                seen[number].append(int(pair["version"][0].as_py()))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what this test is about
            wrong.append(error)

    keep_indices(uri, lambda: None, Tidied())
    readers = [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
    for reader in readers:
        reader.start()
    with Lease(db, "media", "run") as lease:
        ledger = Ledger(uri, lease, "run")
        for version in range(2, 2 + ROUNDS):
            rows = many_rows(space, 0, WATCHED, str(version))
            fragments = write_items(uri, ledger.dataset.schema, rows)  # type: ignore[union-attr]
            ledger.commit(fragments, set(rows["source_id"].to_pylist()))
            if version % 2 == 0:
                ledger.compact(1, ROWS)
            if version == 3:
                refresh(uri, lease.check, Tidied())
            if version == 5:
                table: Any = ledger.dataset
                table.create_index("vector", "IVF_RQ", metric="cosine", replace=True, num_partitions=34, num_bits=1)
            ledger.refresh()
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong, wrong[:3]
    assert all(versions == sorted(versions) for versions in seen) and sum(map(len, seen)) > READERS
    assert index.search(vector=asked[0]["vector"], where=f"source_id = '{0:032x}'", k=1).to_arrow()["version"][0].as_py() == "7"


def test_a_search_goes_on_in_the_version_in_which_it_began(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    write_table(tmp_path / "db", many_rows(space, 0, 40))
    index = open_index(str(tmp_path / "db"))
    batches: Any = index._scan(["item_id"], None, None)
    first = next(batches)
    with Lease(str(tmp_path / "db"), "media", "run") as lease:
        Ledger(index.uri, lease, "run").commit([], [f"{n:032x}" for n in range(10)])
    assert pa.concat_tables([first, *batches]).num_rows == 40
    time.sleep(1.1)
    assert index.stats().rows == 20


def test_a_table_that_is_dropped_and_made_anew_is_another_one_though_its_versions_are_called_the_same(
    always_fresh: None, tmp_path: Path
) -> None:
    """Lance keeps files that it reads through io_uring open, under their names; manifests of many files are such files."""
    space, uri, index = make_space(tmp_path), table_uri(str(tmp_path / "db"), "media"), None
    for first, files in ((0, 30), (1000, 25), (2000, 30), (3000, 35)):
        shutil.rmtree(uri, ignore_errors=True)
        rows = many_rows(space, first, files)
        for number in range(files):
            write_table(tmp_path / "db", rows.slice(number, 1))
        index = index or open_index(str(tmp_path / "db"))
        found = index.search("dog", k=100, columns=["item_id"]).to_arrow()["item_id"].to_pylist()
        assert sorted(found) == sorted(rows["item_id"].to_pylist())


def test_a_table_of_very_many_files_is_not_kept_open(tmp_path: Path) -> None:
    space, uri = make_space(tmp_path), table_uri(str(tmp_path / "db"), "media")
    write_table(tmp_path / "db", many_rows(space, 0, 1))
    dataset: Any = open_table(uri)
    rows = many_rows(space, 1, 1100)
    lance.write_dataset(rows, dataset, mode="append", max_rows_per_file=1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    try:
        assert len(open_index(str(tmp_path / "db")).search("dog", k=2000)) == 1101
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_where_the_kernel_grants_fewer_rings_than_lance_asks_for_a_search_goes_without(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    write_table(tmp_path / "db", many_rows(space, 0, 400))
    searched = """
import sys
from pipelines import open_index
index = open_index(sys.argv[1])
assert len(index.search("dog")) == 10 and "uring" not in index._snapshot().rings.uri
"""
    too_many = {**os.environ, "LANCE_URING_QUEUE_DEPTH": "40000"}  # the kernel's most are 32,768
    subprocess.run([sys.executable, "-c", searched, str(tmp_path / "db")], check=True, env=too_many, timeout=120)
