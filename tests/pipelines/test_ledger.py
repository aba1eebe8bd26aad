"""One writer, fenced: the lease and the commits, on a local disk and on a real S3 server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from lance.fragment import FragmentMetadata, write_fragments

from pipelines.embed import audit
from pipelines.lease import Lease, LeaseHeldError, LeaseLostError, UnsafeStoreError, put_if_absent
from pipelines.ledger import Ledger
from pipelines.report import Audit
from pipelines.storage import filesystem, lance_options
from pipelines.table import open_table, table_uri

_KEY = {"lance-schema:unenforced-primary-key": "true"}
SCHEMA = pa.schema(
    [pa.field("item_id", pa.string(), nullable=False, metadata=_KEY), pa.field("source_id", pa.string(), nullable=False)]
)
RUN_OUT_S = -5.0  # a lease of this length has run out the moment it is taken, on stores whose clock ticks in seconds too


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "db") if request.param == "local" else request.getfixturevalue("s3") + "/db"


def _staged(uri: str, *ids: str) -> list[FragmentMetadata]:
    rows = pa.table({"item_id": list(ids), "source_id": [i.partition("#")[0] for i in ids]}, schema=SCHEMA)
    written: list[FragmentMetadata] = write_fragments(rows, uri, schema=SCHEMA, storage_options=lance_options(uri))
    return written


def _ids(uri: str) -> list[str]:
    return sorted(open_table(uri).to_table()["item_id"].to_pylist())  # type: ignore[union-attr]


def _paused(db: str) -> Ledger:
    """That of a writer who holds the lease and never renews it."""
    lease = Lease(db, "media", "paused", ttl_s=RUN_OUT_S, renew_s=1000).__enter__()
    return _ledger(db, lease, "paused")


def _ledger(db: str, lease: Lease, run: str) -> Ledger:
    ledger = Ledger(table_uri(db, "media"), lease, run)
    ledger.prepare(SCHEMA)
    return ledger


def test_a_commit_replaces_all_rows_of_a_source_at_once(db: str) -> None:
    uri = table_uri(db, "media")
    with Lease(db, "media", "run") as lease:
        ledger = _ledger(db, lease, "run")
        ledger.commit(_staged(uri, "a#1", "a#2", "b"), [])
        ledger.commit(_staged(uri, "c"), [])
        before = ledger.dataset.version
        ledger.commit(_staged(uri, "a#3"), ["a"])
        assert ledger.dataset.version == before + 1
        assert _ids(uri) == ["a#3", "b", "c"]
        ledger.commit([], ["b"])
        assert _ids(uri) == ["a#3", "c"]
        assert (ledger.commits, ledger.rows_removed) == (4, 3)


def test_what_is_committed_after_an_index_was_built_is_found_and_replaced(db: str) -> None:
    """Lance would take the rows of an Update for moved ones that the index holds, and pass over them."""
    uri = table_uri(db, "media")
    with Lease(db, "media", "run") as lease:
        ledger = _ledger(db, lease, "run")
        ledger.commit(_staged(uri, "a#1", "b"), [])
        ledger.dataset.create_scalar_index("source_id", "BITMAP")
        ledger.refresh()
        ledger.commit(_staged(uri, "c#1"), ["a"])
        assert open_table(uri).count_rows(filter="source_id = 'c'") == 1  # type: ignore[union-attr]
        ledger.commit(_staged(uri, "c#2"), ["c"])
        assert _ids(uri) == ["b", "c#2"]


def test_a_commit_can_replace_every_row_of_the_table(db: str) -> None:
    uri = table_uri(db, "media")
    with Lease(db, "media", "run") as lease:
        ledger = _ledger(db, lease, "run")
        ledger.commit(_staged(uri, "a", "b"), [])
        ledger.commit(_staged(uri, "a"), ["a", "b"])
        assert _ids(uri) == ["a"]


def test_every_commit_carries_run_and_sequence(db: str) -> None:
    uri = table_uri(db, "media")
    with Lease(db, "media", "the run") as lease:
        ledger = _ledger(db, lease, "the run")
        ledger.commit(_staged(uri, "a"), [])
        ledger.commit(_staged(uri, "b"), [])
    newest = open_table(uri).get_transactions(2)  # type: ignore[union-attr]
    assert [t.transaction_properties["bindery.sequence"] for t in newest] == ["2", "1"]
    assert {t.transaction_properties["bindery.run_id"] for t in newest} == {"the run"}


@pytest.mark.parametrize("rows_before", [[], ["old"]], ids=["empty table", "table with rows"])
def test_a_paused_writer_cannot_commit_after_another_took_over(db: str, rows_before: list[str]) -> None:
    uri = table_uri(db, "media")
    with Lease(db, "media", "setup") as lease:
        ledger = _ledger(db, lease, "setup")
        if rows_before:
            ledger.commit(_staged(uri, *rows_before), [])
    its_ledger = _paused(db)
    version, staged = its_ledger.dataset.version, _staged(uri, "a", "b")
    with Lease(db, "media", "other", ttl_s=RUN_OUT_S, renew_s=1000) as lease:
        assert lease.took_over
        other = _ledger(db, lease, "other")
        with pytest.raises(LeaseLostError, match="run the same command again"):
            its_ledger.commit(staged, [])
        # and even past the lease's own check, Lance refuses what was built on the old version
        operation = _operation_at(uri, version, staged)
        with pytest.raises(OSError, match=r"onflict|ncompatible"):
            lance.LanceDataset.commit(
                uri, lance.Transaction(version, operation), max_retries=0, storage_options=lance_options(uri)
            )
        other.commit(_staged(uri, "a", "b"), [])
    assert its_ledger.lease_left_s() == 0
    assert _ids(uri) == sorted([*rows_before, "a", "b"])


def test_a_writer_that_wakes_in_its_commit_when_old_versions_are_cleared_is_told_to_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = str(tmp_path / "db")
    uri = table_uri(db, "media")
    its_ledger = _paused(db)
    its_ledger.commit(_staged(uri, "a"), [])
    staged, real = _staged(uri, "b"), lance.LanceDataset.commit

    def sleep(*args: object, **kwargs: object) -> object:
        monkeypatch.setattr(lance.LanceDataset, "commit", real)
        with Lease(db, "media", "other", ttl_s=RUN_OUT_S, renew_s=1000) as lease:
            other = _ledger(db, lease, "other")
            other.commit(_staged(uri, "b"), [])
            other.dataset.cleanup_old_versions(timedelta(0))
        return real(*args, **kwargs)

    monkeypatch.setattr(lance.LanceDataset, "commit", sleep)
    with pytest.raises(LeaseLostError, match="run the same command again"):
        its_ledger.commit(staged, [])
    assert _ids(uri) == ["a", "b"]


def test_a_writer_that_opens_the_table_after_it_has_lost_its_lease_commits_nothing(db: str) -> None:
    uri = table_uri(db, "media")
    paused = Lease(db, "media", "paused", ttl_s=RUN_OUT_S, renew_s=1000).__enter__()
    with Lease(db, "media", "other", ttl_s=RUN_OUT_S, renew_s=1000) as lease:
        _ledger(db, lease, "other").commit(_staged(uri, "a"), [])
    late = Ledger(uri, paused, "paused")  # at the newest version: Lance itself has no reason to refuse it
    with pytest.raises(LeaseLostError, match="run the same command again"):
        late.commit(_staged(uri, "a"), [])
    assert _ids(uri) == ["a"]


def test_what_is_left_of_a_lease_only_grows_when_it_is_renewed(tmp_path: Path) -> None:
    def grows(lease: Lease, readings: int) -> bool:
        left = (lease.left_s() for _ in range(readings) if not time.sleep(0.001))
        return any(later > earlier for earlier, later in pairwise(left))

    with Lease(str(tmp_path), "media", "never renewed", ttl_s=100, renew_s=1000) as lease:
        assert 0 < lease.left_s() <= 100 and not grows(lease, 100)
    with Lease(str(tmp_path), "media", "renewed", ttl_s=100, renew_s=0.01) as lease:
        assert grows(lease, 20_000)


def test_a_writer_that_could_not_fence_off_the_last_one_leaves_that_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = str(tmp_path / "db")
    uri = table_uri(db, "media")
    its_ledger = _paused(db)
    its_ledger.commit(_staged(uri, "old"), [])
    version, staged = its_ledger.dataset.version, _staged(uri, "a")

    def away(*_: object, **__: object) -> object:
        raise OSError("the store is away")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="away"):  # noqa: SIM117
        with Lease(db, "media", "unlucky", ttl_s=RUN_OUT_S, renew_s=1000) as lease:
            patch.setattr(lance.LanceDataset, "commit", away)
            patch.setattr("pipelines.ledger.ATTEMPTS", 1)
            Ledger(uri, lease, "unlucky")
    with Lease(db, "media", "next", ttl_s=RUN_OUT_S, renew_s=1000) as lease:
        other = _ledger(db, lease, "next")
        with pytest.raises(OSError, match=r"onflict|ncompatible"):
            lance.LanceDataset.commit(uri, lance.Transaction(version, _operation_at(uri, version, staged)), max_retries=0)
        other.commit(_staged(uri, "a"), [])
    assert _ids(uri) == ["a", "old"]
    with Lease(db, "media", "last") as lease:
        assert not lease.took_over, "the one that fenced gave the lease back"


def _operation_at(uri: str, version: int, staged: list[FragmentMetadata]) -> object:
    from pipelines.ledger import _operation

    base = lance.dataset(uri, version=version, storage_options=lance_options(uri))
    return _operation(base, staged, [])[0]


def test_a_lost_answer_is_looked_up_and_not_committed_twice(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = table_uri(db, "media")
    real = lance.LanceDataset.commit

    def lose_the_answer(*args: object, **kwargs: object) -> object:
        monkeypatch.setattr(lance.LanceDataset, "commit", real)
        real(*args, **kwargs)
        raise OSError("connection reset by peer")

    with Lease(db, "media", "run") as lease:
        ledger = _ledger(db, lease, "run")
        ledger.commit(_staged(uri, "a"), [])
        monkeypatch.setattr(lance.LanceDataset, "commit", lose_the_answer)
        ledger.commit(_staged(uri, "b"), [])
        ledger.commit(_staged(uri, "c"), [])
    assert _ids(uri) == ["a", "b", "c"]


def test_a_second_writer_is_refused_while_the_first_lives_and_welcome_after(db: str) -> None:
    with Lease(db, "media", "first"), pytest.raises(LeaseHeldError, match="run first"):
        Lease(db, "media", "second").__enter__()
    with Lease(db, "media", "third") as lease:
        assert not lease.took_over


def test_a_lease_is_renewed_for_as_long_as_it_is_held(tmp_path: Path) -> None:
    deadline = time.monotonic() + 60
    with Lease(str(tmp_path), "media", "run", renew_s=0.01):
        while not list(tmp_path.rglob("renewal-00000003")):
            assert time.monotonic() < deadline, "the first renewals never came"
            time.sleep(0.01)


def test_a_writer_that_was_killed_holds_nobody_up(tmp_path: Path) -> None:
    script = (
        "import sys; from pipelines.lease import Lease; Lease(sys.argv[1], 'media', 'killed').__enter__(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"held\n"
    with pytest.raises(LeaseHeldError):
        Lease(str(tmp_path), "media", "early").__enter__()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with Lease(str(tmp_path), "media", "next") as lease:
        assert lease.took_over


def test_a_store_that_ignores_conditional_writes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, path = filesystem(str(tmp_path / "file"))
    assert put_if_absent(fs, path, b"1") and not put_if_absent(fs, path, b"2")
    real = type(fs).open
    monkeypatch.setattr(type(fs), "open", lambda self, p, mode="rb", **k: real(self, p, mode.replace("x", "w"), **k))
    with pytest.raises(UnsafeStoreError, match="conditional writes"):
        Lease(str(tmp_path), "media", "run").__enter__()


def test_new_columns_are_added_and_another_type_is_refused(db: str) -> None:
    uri = table_uri(db, "media")
    with Lease(db, "media", "run") as lease:
        ledger = _ledger(db, lease, "run")
        ledger.commit(_staged(uri, "a"), [])
        ledger.prepare(pa.schema([*SCHEMA, pa.field("label", pa.string())]))
        assert ledger.dataset.to_table()["label"].to_pylist() == [None]
        with pytest.raises(ValueError, match="'label'"):
            ledger.prepare(pa.schema([*SCHEMA, pa.field("label", pa.int64())]))


def test_a_paused_writer_cannot_add_columns_after_another_took_over(db: str) -> None:
    uri = table_uri(db, "media")
    for rows in ([], ["old"]):
        with Lease(db, "media", "setup") as lease:
            ledger = _ledger(db, lease, "setup")
            if rows:
                ledger.commit(_staged(uri, *rows), [])
        paused = Lease(db, "media", "paused", ttl_s=RUN_OUT_S, renew_s=1000).__enter__()
        its_ledger = _ledger(db, paused, "paused")
        old = its_ledger.dataset
        with Lease(db, "media", "other", ttl_s=RUN_OUT_S, renew_s=1000) as lease:
            other = _ledger(db, lease, "other")
            with pytest.raises(LeaseLostError, match="run the same command again"):
                its_ledger.prepare(pa.schema([*SCHEMA, pa.field("label", pa.string())]))
            with pytest.raises(OSError, match=r"onflict|ncompatible"):  # and past the lease's own check
                old.add_columns([pa.field("label", pa.string())])
            other.commit(_staged(uri, "a"), ["a"])
        assert _ids(uri) == ["a", *rows] and open_table(uri).schema.names == SCHEMA.names  # type: ignore[union-attr]


def test_the_audit_tells_ids_that_are_there_twice_and_rows_that_nobody_told_of(tmp_path: Path) -> None:
    uri, one, two = table_uri(str(tmp_path), "media"), f"{1:032x}", f"{2:032x}"
    with Lease(str(tmp_path), "media", "run") as lease:
        ledger = _ledger(str(tmp_path), lease, "run")
        ledger.commit(_staged(uri, one, two), [])
        assert audit(ledger, 2) == Audit(2, unique_ids=True, rows_as_expected=True)
        assert audit(ledger, 3) == Audit(2, unique_ids=True, rows_as_expected=False)
        ledger.commit(_staged(uri, two), [])
        assert audit(ledger, 3) == Audit(3, unique_ids=False, rows_as_expected=True)
        ledger.commit([], [two])
        assert audit(ledger, 3) == Audit(1, unique_ids=True, rows_as_expected=True)


def test_lease_documents_name_their_process(tmp_path: Path) -> None:
    with Lease(str(tmp_path), "media", "run"):
        document = json.loads(next(tmp_path.rglob("renewal-*")).read_bytes())
    assert (document["run_id"], document["process"]["pid"]) == ("run", os.getpid())
