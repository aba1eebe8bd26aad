"""What goes wrong around a run, and how it ends: somebody else's hands on the table, clocks, dead writers, bad stores."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lance.fragment import FragmentMetadata, write_fragments
from ports import free_ports

import pipelines.lease
from jobs import embed
from jobs.config import BAD_INPUT
from pipelines.corpus import CorpusError, open_corpus
from pipelines.corpus.globs import Filter
from pipelines.corpus.listing import list_files
from pipelines.corpus.place import Place
from pipelines.lease import TIME_TO_LIVE_S, Lease, LeaseHeldError, LeaseLostError
from pipelines.ledger import Ledger
from pipelines.table import create_table, open_table, table_uri

_KEY = {"lance-schema:unenforced-primary-key": "true"}
SCHEMA = pa.schema(
    [pa.field("item_id", pa.string(), nullable=False, metadata=_KEY), pa.field("source_id", pa.string(), nullable=False)]
)
RCLONE = Path(sys.executable).with_name("rclone")


def _rows(*ids: str) -> pa.Table:
    return pa.table({"item_id": list(ids), "source_id": list(ids)}, schema=SCHEMA)


def _staged(uri: str, *ids: str) -> list[FragmentMetadata]:
    written: list[FragmentMetadata] = write_fragments(_rows(*ids), uri, schema=SCHEMA)
    return written


# A table that is dropped or rewritten by someone else during the run


def _drop(uri: str) -> None:
    shutil.rmtree(uri)


def _make_anew(uri: str) -> None:
    shutil.rmtree(uri)
    create_table(uri, SCHEMA)
    for k in range(8):  # past the version that the run knows
        lance.write_dataset(_rows(f"theirs {k}"), uri, mode="append")


def _make_something_else(uri: str) -> None:
    shutil.rmtree(uri)
    lance.write_dataset(pa.table({"other": [1, 2]}), uri)


def _overwrite(uri: str) -> None:
    lance.write_dataset(_rows("theirs"), uri, mode="overwrite")


def _overwrite_with_something_else(uri: str) -> None:
    lance.write_dataset(pa.table({"other": [1, 2]}), uri, mode="overwrite")


HANDS = [_drop, _make_anew, _make_something_else, _overwrite, _overwrite_with_something_else]


@pytest.mark.parametrize("replaced", [[], ["old"]], ids=["append", "replace"])
@pytest.mark.parametrize("meddle", HANDS, ids=[hand.__name__[1:] for hand in HANDS])
def test_a_table_that_someone_else_puts_in_place_of_ours_is_left_alone(
    tmp_path: Path, meddle: Callable[[str], None], replaced: list[str]
) -> None:
    uri = table_uri(str(tmp_path), "media")
    with Lease(str(tmp_path), "media", "run") as lease:
        ledger = Ledger(uri, lease, "run")
        ledger.prepare(SCHEMA)
        for source in ("old", "a", "b"):
            ledger.commit(_staged(uri, source), [])
        staged = _staged(uri, "new")
        meddle(uri)
        theirs = open_table(uri)
        with pytest.raises(LeaseLostError, match=r"was dropped .*by someone else during the run.*run the same command again"):
            ledger.commit(staged, replaced)
    now = open_table(uri)
    assert (now is None) == (theirs is None)
    if theirs is not None and now is not None:
        assert now.version == theirs.version and now.to_table() == theirs.to_table()


def test_rows_that_someone_else_appends_or_deletes_are_no_obstacle(tmp_path: Path) -> None:
    uri = table_uri(str(tmp_path), "media")
    with Lease(str(tmp_path), "media", "run") as lease:
        ledger = Ledger(uri, lease, "run")
        ledger.prepare(SCHEMA)
        ledger.commit(_staged(uri, "a", "b"), [])
        lance.write_dataset(_rows("theirs"), uri, mode="append")
        ledger.commit(_staged(uri, "c"), [])
        lance.dataset(uri).delete("source_id = 'b'")
        ledger.commit(_staged(uri, "a"), ["a"])
    assert sorted(open_table(uri).to_table()["item_id"].to_pylist()) == ["a", "c", "theirs"]  # type: ignore[union-attr]


# A corpus that changes while it is listed


def test_a_folder_that_vanishes_while_it_is_listed_is_an_empty_one(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"\xff\xd8\xff")
    files = list_files(Place.of(str(tmp_path)), Filter(), Counter())
    assert next(files).path == "a/1.jpg"
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "c" / "2.jpg").write_bytes(b"\xff\xd8\xff")
    assert [file.path for file in files] == ["c/1.jpg", "c/2.jpg"]


def test_a_corpus_that_vanishes_as_a_whole_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "1.jpg").write_bytes(b"\xff\xd8\xff")
    corpus = open_corpus(str(tmp_path / "media"))
    shutil.rmtree(tmp_path / "media")
    with pytest.raises(CorpusError, match="nothing is at"):
        list(corpus.batches())


def test_a_manifest_that_is_replaced_while_it_is_read_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"

    def write(name: str) -> None:
        rows = [f"s3://bucket/{name}/{k}.jpg" for k in range(25_000)]
        pq.write_table(pa.table({"uri": rows, "version": ["1"] * len(rows)}), tmp_path / "next.parquet", row_group_size=1000)
        (tmp_path / "next.parquet").rename(path)

    write("old")
    corpus = open_corpus(str(path))
    batches = corpus.batches()
    uris = next(batches)["uri"].to_pylist()
    write("new")
    uris += [uri for batch in batches for uri in batch["uri"].to_pylist()]
    assert uris == [f"s3://bucket/old/{k}.jpg" for k in range(25_000)]
    assert next(corpus.batches())["uri"][0].as_py() == "s3://bucket/new/0.jpg"


def test_a_listing_of_very_many_prefixes_streams(tmp_path: Path) -> None:
    for k in range(3000):
        folder = tmp_path / "media" / f"{k // 100:02}" / f"{k:04}"
        folder.mkdir(parents=True)
        if k % 3 == 0:
            (folder / "x.jpg").write_bytes(b"\xff\xd8\xff")
    deep = tmp_path / "media" / "/".join("d" * 300)
    deep.mkdir(parents=True)
    (deep / "x.jpg").write_bytes(b"\xff\xd8\xff")
    corpus = open_corpus(str(tmp_path / "media"))
    uris = [uri for batch in corpus.batches() for uri in batch["uri"].to_pylist()]
    assert uris == sorted(uris) and len(uris) == corpus.found == 1001
    assert uris[-1] == str(deep / "x.jpg")


# Leases: clocks and dead processes


def _foreign(tmp_path: Path, age_s: float, document: bytes | None = None) -> None:
    """The lease of a process on another machine, renewed so many seconds ago, by the store's clock."""
    folder = tmp_path / "_bindery" / "media" / "epoch-00000001"
    folder.mkdir(parents=True)
    process = {"host": "another machine", "pid": 1, "started": "1"}
    content = json.dumps({"run_id": "theirs", "process": process}).encode() if document is None else document
    (folder / "renewal-00000003").write_bytes(content)
    when = time.time() - age_s
    os.utime(folder / "renewal-00000003", (when, when))


def test_a_lease_of_a_dead_process_elsewhere_is_waited_for_and_then_taken_over(tmp_path: Path) -> None:
    _foreign(tmp_path, age_s=TIME_TO_LIVE_S - 10)
    with pytest.raises(LeaseHeldError, match=r"run theirs \(process 1 on another; renewed 50 s ago\).* runs out in (9|10) s"):
        Lease(str(tmp_path), "media", "early").__enter__()
    shutil.rmtree(tmp_path / "_bindery")
    _foreign(tmp_path, age_s=TIME_TO_LIVE_S + 1)
    with Lease(str(tmp_path), "media", "next") as lease:
        assert lease.took_over
        lease.fenced()
    with Lease(str(tmp_path), "media", "after it") as lease:
        assert not lease.took_over


@pytest.mark.parametrize("document", [b"", b'{"run_id": "half'], ids=["empty", "torn"])
def test_a_lease_whose_writer_died_while_writing_it_runs_out_too(tmp_path: Path, document: bytes) -> None:
    _foreign(tmp_path, age_s=0, document=document)
    with pytest.raises(LeaseHeldError, match="a process that died early"):
        Lease(str(tmp_path), "media", "early").__enter__()
    shutil.rmtree(tmp_path / "_bindery")
    _foreign(tmp_path, age_s=TIME_TO_LIVE_S + 1, document=document)
    with Lease(str(tmp_path), "media", "next") as lease:
        assert lease.took_over


@pytest.mark.parametrize("skew_s", [-86_400.0, 86_400.0], ids=["a day behind", "a day ahead"])
def test_a_writer_with_a_wrong_clock_neither_takes_nor_loses_a_lease(
    tmp_path: Path, skew_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    _foreign(tmp_path, age_s=30)
    monkeypatch.setattr(pipelines.lease.time, "time", lambda: real() + skew_s)
    with pytest.raises(LeaseHeldError, match=r"renewed 3[0-5] s ago"):
        Lease(str(tmp_path), "media", "skewed").__enter__()
    shutil.rmtree(tmp_path / "_bindery")
    with Lease(str(tmp_path), "media", "skewed") as lease:
        assert lease.store_time() == pytest.approx(real(), abs=5)
        monkeypatch.undo()
        with pytest.raises(LeaseHeldError, match="run skewed"):
            Lease(str(tmp_path), "media", "right").__enter__()
        lease.check()


# Stores


@pytest.fixture
def closed_folder() -> Iterator[str]:
    """A folder that this process may read and not write to; root gives its powers up for the test."""
    folder = Path(tempfile.mkdtemp(prefix="bindery-closed-"))
    folder.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(65_534)
    try:
        yield str(folder)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        folder.rmdir()


def test_a_folder_that_may_only_be_read_is_named_before_anything_starts(closed_folder: str) -> None:
    with pytest.raises(ValueError, match=r"no permission to write to .*read-only"):
        Lease(closed_folder, "media", "run").__enter__()


def test_a_database_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8\xff")
    assert embed.main([str(tmp_path), "--db", str(tmp_path / "1.jpg")]) == BAD_INPUT
    assert "a file lies where a folder should be" in capsys.readouterr().err


def test_a_disk_that_is_mounted_to_be_read_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.open", refuse)
    with pytest.raises(ValueError, match=r"no permission to write to .*Read-only file system"):
        Lease(str(tmp_path), "media", "run").__enter__()


@pytest.mark.s3
def test_a_bucket_that_may_only_be_read_is_named_before_anything_starts(
    s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = s3.removeprefix("s3://")
    resources = [f"arn:aws:s3:::{bucket}/*"]
    denied = {"Effect": "Deny", "Principal": "*", "Action": ["s3:PutObject"], "Resource": resources}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
    store = fsspec.filesystem("s3")
    store.call_s3("put_bucket_policy", Bucket=bucket, Policy=policy)
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8\xff")
    try:
        assert embed.main([str(tmp_path), "--db", f"{s3}/db"]) == BAD_INPUT
    finally:
        store.call_s3("delete_bucket_policy", Bucket=bucket)
    assert "no permission to write to" in capsys.readouterr().err


def test_a_table_that_may_not_be_read_is_told_in_words_for_users(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(OSError, match=r"cannot open table s3://.*: check AWS_\*") as told:
        open_table(f"{s3}/db/media.lance")
    assert ".rs:" not in str(told.value), "where in Lance's source"


@pytest.fixture
def overwriting_store(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which s3://bucket is a store that ignores conditional writes."""
    (tmp_path / "rclone" / "bucket").mkdir(parents=True)
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    command = [RCLONE, "serve", "s3", "--addr", address, "--auth-key", "anyaccesskey,anysecretkey", str(tmp_path / "rclone")]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline and server.poll() is None, "rclone did not start"
            time.sleep(0.05)
        keys = dict(zip(names, ("anyaccesskey", "anysecretkey"), strict=True))
        checksums = {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        yield kept | keys | checksums | {"AWS_ENDPOINT_URL": f"http://{address}", "AWS_DEFAULT_REGION": "us-east-1"}
    finally:
        server.kill()
        server.wait()


_WRITE_ALONE = """
import pyarrow as pa
from lance.fragment import write_fragments
from pipelines.lease import Lease
from pipelines.ledger import Ledger
from pipelines.storage import lance_options
from pipelines.table import open_table
uri = "s3://bucket/db/media.lance"
schema = pa.schema([pa.field("source_id", pa.string(), nullable=False)])
with Lease("s3://bucket/db", "media", "run", only_writer=True) as lease:
    ledger = Ledger(uri, lease, "run")
    ledger.prepare(schema)
    for name in ("a", "b"):
        rows = pa.table({"source_id": [name]}, schema=schema)
        ledger.commit(write_fragments(rows, uri, schema=schema, storage_options=lance_options(uri)), ["a"])
assert open_table(uri).to_table()["source_id"].to_pylist() == ["b"]
"""


def test_a_store_that_ignores_conditions_is_refused_unless_told_that_nobody_else_writes(
    overwriting_store: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "1.jpg").write_bytes(b"\xff\xd8\xff")
    command = [sys.executable, "-m", "jobs.embed", str(tmp_path / "media"), "--db", "s3://bucket/db"]
    refused = subprocess.run(command, env=overwriting_store, capture_output=True, text=True, timeout=120)
    assert refused.returncode == BAD_INPUT, refused.stderr
    assert "does not honour conditional writes" in refused.stderr and "--only-writer" in refused.stderr
    assert not list((tmp_path / "rclone").rglob("*.lance"))
    subprocess.run([sys.executable, "-c", _WRITE_ALONE], env=overwriting_store, check=True, timeout=120)
