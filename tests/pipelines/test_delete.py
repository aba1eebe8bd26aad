"""What is deleted is gone, stays gone, and after a purge no file holds it, on a local disk and on a real S3 server."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from killed import kill_holder
from lance.fragment import write_fragments

from pipelines.byte_search import ByteSearch
from pipelines.delete import DeleteReport, DeleteSettings, delete
from pipelines.embed import EmbedSettings, embed
from pipelines.identity import item_id, source_id
from pipelines.lease import Lease
from pipelines.purge import Proof, prove
from pipelines.rejects import Rejected, Rejects
from pipelines.storage import filesystem, lance_options
from pipelines.table import ITEM_COLUMNS, VECTOR, create_table, open_table, table_uri
from pipelines.tombstones import Tombstones

DIM = 16
SCHEMA = pa.schema([*ITEM_COLUMNS, pa.field(VECTOR, pa.list_(pa.float32(), DIM), nullable=False)])


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "db") if request.param == "local" else request.getfixturevalue("s3") + "/db"


def _row(uri: str, modality: str = "image", segment: str = "", corpus: str = "/c") -> dict[str, Any]:
    seed = int(item_id(uri, modality, segment)[:8], 16)
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return {
        "item_id": item_id(uri, modality, segment),
        "source_id": source_id(uri, modality),
        "uri": uri,
        "modality": modality,
        "corpus": corpus,
        "version": "1",
        "recipe": "r",
        "segment_count": 2 if segment else 1,
        "duration_s": float(len(uri)),
        "text": f"caption of {uri}",
        VECTOR: vector / np.linalg.norm(vector),
    }


def _fill(db: str, *commits: list[dict[str, Any]]) -> str:
    """The table, each commit a fragment."""
    uri = table_uri(db, "media")
    if open_table(uri) is None:
        create_table(uri, SCHEMA)
    for rows in commits:
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        lance.write_dataset(table, uri, mode="append", storage_options=lance_options(uri))
    return uri


def _uris(uri: str) -> list[str]:
    return sorted(open_table(uri).to_table(columns=["uri"])["uri"].to_pylist())  # type: ignore[union-attr]


def _delete(db: str, **settings: Any) -> DeleteReport:
    return delete(DeleteSettings(db=db, **{"wait": 0.0, **settings}))


def _deleted(db: str) -> pa.Table:
    return Tombstones(table_uri(db, "media__deleted")).find("true")


def _files_with(folder: str, *strings: str | bytes) -> set[str]:
    """Files below a folder in which one of the strings is found."""
    fs, root = filesystem(folder)
    fs.invalidate_cache()
    wanted = {s.encode() if isinstance(s, str) else s for s in strings}
    return {path for path in fs.find(root) if ByteSearch(wanted).found_in([fs.cat_file(path)])}


def test_a_sources_rows_go_together_and_leave_a_tombstone(db: str) -> None:
    clip = [_row("/c/film.mp4", "video", "0-5000"), _row("/c/film.mp4", "video", "5000-10000")]
    uri = _fill(db, [_row("/c/a.jpg"), clip[0]], [clip[1], _row("/c/film.mp4", "audio")])
    version = open_table(uri).version  # type: ignore[union-attr]
    report = _delete(db, id=[clip[1]["item_id"]], reason="asked for")
    assert (report.sources, report.items, report.exit_code) == (1, 2, 0)
    assert open_table(uri).version == version + 1  # type: ignore[union-attr] - one commit for both segments
    assert _uris(uri) == ["/c/a.jpg", "/c/film.mp4"]
    assert _deleted(db).select(["source_id", "uri", "reason"]).to_pylist() == [
        {"source_id": source_id("/c/film.mp4", "video"), "uri": "/c/film.mp4", "reason": "asked for"}
    ]


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"uri": ["/c/a"]}, ["/c/a'b", "/c/ab", "/c/d/e", "/other/f"]),
        ({"uri": ["/c/d/", "/other/f"]}, ["/c/a", "/c/a'b", "/c/ab"]),
        ({"uri": ["/c/a'b"]}, ["/c/a", "/c/ab", "/c/d/e", "/other/f"]),
        ({"corpus": "/other"}, ["/c/a", "/c/a'b", "/c/ab", "/c/d/e"]),
        ({"where": "duration_s < 5"}, ["/c/a'b", "/c/ab", "/c/d/e", "/other/f"]),
        ({"id": [source_id("/c/ab", "image")]}, ["/c/a", "/c/a'b", "/c/d/e", "/other/f"]),
        ({"uri": ["/nowhere"]}, ["/c/a", "/c/a'b", "/c/ab", "/c/d/e", "/other/f"]),
    ],
    ids=str,
)
def test_what_is_named_goes_and_nothing_else(tmp_path: Path, settings: dict[str, Any], left: list[str]) -> None:
    uris = ["/c/a", "/c/a'b", "/c/ab", "/c/d/e"]
    uri = _fill(str(tmp_path), [_row(u) for u in uris], [_row("/other/f", corpus="/other")])
    would = _delete(str(tmp_path), dry_run=True, **settings)
    assert len(_uris(uri)) == 5 and not (tmp_path / "media__deleted.lance").exists()
    report = _delete(str(tmp_path), **settings)
    assert _uris(uri) == left
    assert report.sources == report.items == would.sources == would.items == 5 - len(left)
    assert sorted(would.examples) == sorted({*uris, "/other/f"} - set(left))


def test_rejected_sources_are_deleted_too(tmp_path: Path) -> None:
    _fill(str(tmp_path), [_row("/c/a")])
    rejects = Rejects(table_uri(str(tmp_path), "media__rejects"), "run")
    bad = Rejected(source_id("/c/b", "image"), "/c/b", "image", "1", "decode", "DecodeError", "cut off")
    rejects.write([bad], "/c")
    report = _delete(str(tmp_path), uri=["/c/b"])
    assert (report.sources, report.items, report.rejects) == (1, 0, 1)
    assert open_table(table_uri(str(tmp_path), "media__rejects")).count_rows() == 0  # type: ignore[union-attr]
    assert _deleted(str(tmp_path))["uri"].to_pylist() == ["/c/b"]


def test_a_deletion_can_be_taken_back_by_uri_even_after_a_purge(tmp_path: Path) -> None:
    _fill(str(tmp_path), [_row("/c/a"), _row("/c/b"), _row("/c/d/e")])
    _delete(str(tmp_path), uri=["/c/"])
    assert _delete(str(tmp_path), uri=["/c/d/"], undelete=True).sources == 1
    _delete(str(tmp_path), uri=["/c/a"], purge=True)
    assert sorted(_deleted(str(tmp_path))["uri"].to_pylist(), key=str) == [None, None]
    assert _delete(str(tmp_path), uri=["/c/b"], undelete=True).sources == 1
    assert _deleted(str(tmp_path))["source_id"].to_pylist() == [source_id("/c/a", "image")]


def test_a_crash_between_tombstone_and_commit_is_made_good_by_the_next_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = _fill(str(tmp_path), [_row("/c/a"), _row("/c/b"), _row("/c/keep")])

    def die(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="killed"):
        patch.setattr("pipelines.ledger.Ledger.commit", die)
        _delete(str(tmp_path), uri=["/c/a"])
    assert _uris(uri) == ["/c/a", "/c/b", "/c/keep"] and _deleted(str(tmp_path))["uri"].to_pylist() == ["/c/a"]
    report = _delete(str(tmp_path), uri=["/c/b"])
    assert (report.sources, report.items) == (1, 2)
    assert _uris(uri) == ["/c/keep"]


@pytest.mark.parametrize("indexed", [False, True], ids=["without indices", "with indices"])
def test_a_purge_leaves_nothing_in_any_file_and_everything_else(db: str, indexed: bool) -> None:
    dead = [_row("/c/secret-1.jpg"), _row("/c/secret-2.jpg")]
    kept = [_row(f"/c/kept-{n}.jpg") for n in range(40)] + [_row("/c/secret-10.jpg")]  # the last begins as a purged one
    uri = _fill(db, [dead[0], *kept[:20]], kept[20:30], [dead[1], *kept[30:]])
    dataset: Any = open_table(uri)
    if indexed:
        dataset.create_scalar_index("source_id", "BTREE")
        dataset.create_scalar_index("text", "INVERTED", with_position=True)
        dataset.create_scalar_index("modality", "BITMAP")
        dataset.create_index(VECTOR, "IVF_FLAT", num_partitions=2, metric="cosine")
    staged = pa.Table.from_pylist(dead, schema=SCHEMA)
    write_fragments(staged, uri, schema=SCHEMA, mode="append", storage_options=lance_options(uri))  # of a killed run
    rejected = Rejected(source_id("/c/secret-1.jpg", "audio"), "/c/secret-1.jpg", "audio", "1", "decode", "E", "no sound")
    Rejects(table_uri(db, "media__rejects"), "run").write([rejected], "/c")
    strings = [row["item_id"] for row in dead] + ["secret-1.jpg", "secret-2.jpg", *(row[VECTOR].tobytes() for row in dead)]
    before = open_table(uri).to_table(filter="uri NOT IN ('/c/secret-1.jpg', '/c/secret-2.jpg')")  # type: ignore[union-attr]

    _delete(db, uri=[row["uri"] for row in dead])
    hidden = _files_with(db, *strings)  # a deletion alone removes nothing
    assert {"media.lance", "media__rejects.lance", "media__deleted.lance"} <= {p.split("/db/")[1].split("/")[0] for p in hidden}

    report = _delete(db, uri=[row["uri"] for row in dead], purge=True)
    assert report.failures == [] and report.proof is not None
    assert report.proof.rows >= len(kept) and report.proof.files > 3 and report.proof.bytes > 1000
    assert _files_with(db, *strings) == set()
    after: Any = open_table(uri)
    assert after.to_table().sort_by("item_id") == before.sort_by("item_id") and len(after.versions()) == 1
    assert not any(f.metadata.deletion_file for f in after.get_fragments())
    assert _deleted(db)["uri"].null_count == 3
    if indexed:
        assert sorted(report.purged["media"].indices_rebuilt) == ["modality_idx", "source_id_idx", "text_idx", "vector_idx"]
        assert {i.num_rows_indexed for i in after.describe_indices()} == {len(kept)}
        assert after.to_table(full_text_query="kept", columns=["uri", "_score"]).num_rows == 40


def test_a_purge_in_one_step_searches_for_the_vectors_too(tmp_path: Path) -> None:
    same = _row("/c/copy.jpg") | {VECTOR: _row("/c/secret.jpg")[VECTOR]}  # a row that stays may hold the same vector
    _fill(str(tmp_path), [_row("/c/secret.jpg"), same, _row("/c/kept.jpg")])
    report = _delete(str(tmp_path), uri=["/c/secret.jpg"], purge=True)
    assert report.exit_code == 0 and report.proof is not None and report.proof.strings == 3
    assert not _files_with(str(tmp_path), "secret.jpg")


@pytest.mark.usefixtures("ray_local")
def test_a_purge_leaves_nothing_of_a_source_that_failed_a_gate(tmp_path: Path) -> None:
    media, db = tmp_path / "media", str(tmp_path / "db")
    media.mkdir()
    (media / "kept.txt").write_text("a red circle")
    (media / "secret.jpg").write_bytes(b"no picture, and nobody's business")
    assert embed(EmbedSettings(corpus=str(media), db=db, max_reject_rate=0.0)).failures
    assert _files_with(db, "secret.jpg")
    report = _delete(db, uri=[str(media / "secret.jpg")], purge=True)
    assert report.exit_code == 0 and not _files_with(db, "secret.jpg", "nobody's")


def test_a_purge_forgets_a_corpus_that_was_the_purged_file(tmp_path: Path) -> None:
    _fill(str(tmp_path), [_row("/c/secret.jpg", corpus="/c/secret.jpg"), _row("/c/kept.jpg")])
    report = _delete(str(tmp_path), uri=["/c/secret.jpg"], purge=True)
    assert report.exit_code == 0 and not _files_with(str(tmp_path), "secret.jpg")
    assert _deleted(str(tmp_path)).select(["uri", "corpus"]).to_pylist() == [{"uri": None, "corpus": ""}]


def test_a_purge_that_leaves_bytes_behind_is_said_to_have_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(str(tmp_path), [_row("/c/secret.jpg"), _row("/c/kept.jpg")])
    monkeypatch.setattr("pipelines.purge.remove_orphans", lambda *_: None)
    write_fragments(
        pa.Table.from_pylist([_row("/c/secret.jpg")], schema=SCHEMA), table_uri(str(tmp_path), "media"), mode="append"
    )
    report = _delete(str(tmp_path), uri=["/c/secret.jpg"], purge=True)
    assert report.exit_code == 1
    assert any("1 rows of purged sources" in failure for failure in report.failures)
    assert any("ids, URIs or vectors" in failure for failure in report.failures)
    assert _deleted(str(tmp_path))["uri"].to_pylist() == ["/c/secret.jpg"]  # what the next purge searches for


def test_tags_that_keep_old_versions_are_named_and_dropped_on_request(tmp_path: Path) -> None:
    uri = _fill(str(tmp_path), [_row("/c/secret.jpg"), _row("/c/kept.jpg")])
    open_table(uri).tags.create("gold", 2)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="gold"):
        _delete(str(tmp_path), uri=["/c/secret.jpg"], purge=True)
    assert len(_uris(uri)) == 2
    report = _delete(str(tmp_path), uri=["/c/secret.jpg"], purge=True, drop_tags=True)
    assert report.purged["media"].tags_dropped == ["gold"] and report.exit_code == 0
    assert not _files_with(str(tmp_path), "secret.jpg")


def test_killed_at_any_moment_of_a_purge_the_next_run_ends_it(tmp_path: Path) -> None:
    uri = _fill(str(tmp_path), *[[_row(f"/c/{n}/{k}.jpg") for k in range(50)] for n in range(20)])
    kept = [u for u in _uris(uri) if not u.endswith("/7.jpg")]
    command = [sys.executable, "-m", "jobs.delete", "--db", str(tmp_path), "--where", "uri LIKE '%/7.jpg'", "--purge"]
    for held_s in (0.02, 0.1):
        kill_holder(command, tmp_path, held_s)
        assert set(kept) <= set(_uris(uri))
    report = _delete(str(tmp_path), where="uri LIKE '%/7.jpg'", purge=True)
    assert report.failures == [] and _uris(uri) == kept
    assert not _files_with(str(tmp_path), "/7.jpg")
    assert _deleted(str(tmp_path)).num_rows == 20


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "say what to delete"),
        ({"id": ["0" * 32], "uri": ["/c/a"]}, "id and uri"),
        ({"id": ["x' OR 'a' = 'a"]}, "32 hex digits"),
        ({"where": "true) OR (true"}, "parentheses"),
        ({"where": "nosuch = 3"}, "nosuch"),
        ({"uri": ["/c/a"], "table": "nobody"}, "no table 'nobody'"),
        ({"uri": ["/c/a"], "undelete": True, "purge": True}, "--undelete"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(
    tmp_path: Path, settings: dict[str, Any], complaint: str
) -> None:
    uri = _fill(str(tmp_path), [_row("/c/a")])
    with pytest.raises(ValueError, match=complaint):
        _delete(str(tmp_path), **settings)
    assert _uris(uri) == ["/c/a"] and sorted(p.name for p in tmp_path.iterdir()) == ["media.lance"]


def test_a_running_writer_is_not_disturbed(tmp_path: Path) -> None:
    uri = _fill(str(tmp_path), [_row("/c/a")])
    with Lease(str(tmp_path), "media", "writer"), pytest.raises(OSError, match="being written"):
        _delete(str(tmp_path), uri=["/c/a"])
    assert _uris(uri) == ["/c/a"]


def test_tombstones_say_when(tmp_path: Path) -> None:
    _fill(str(tmp_path), [_row("/c/a")])
    _delete(str(tmp_path), uri=["/c/a"])
    assert abs((datetime.now(UTC) - _deleted(str(tmp_path))["deleted_at"][0].as_py()).total_seconds()) < 60


@pytest.mark.parametrize("purge", [False, True], ids=["deleted", "purged"])
def test_a_whole_corpus_of_thousands_goes_at_once(tmp_path: Path, purge: bool) -> None:
    rows = [_row(f"/c/{n}.jpg") for n in range(1500)]
    uri = _fill(str(tmp_path), rows[:700], rows[700:])
    dataset: Any = open_table(uri)
    dataset.create_scalar_index("source_id", "BTREE")
    dataset.create_scalar_index("text", "INVERTED")
    dataset.create_index(VECTOR, "IVF_FLAT", num_partitions=2, metric="cosine")
    report = _delete(str(tmp_path), corpus="/c", purge=purge)
    assert (report.sources, report.items, report.failures) == (1500, 1500, [])
    assert _uris(uri) == []
    assert bool(_files_with(str(tmp_path), rows[3][VECTOR].tobytes())) is not purge
    _fill(str(tmp_path), [_row("/d/new.jpg")])
    assert _uris(uri) == ["/d/new.jpg"]


def test_a_bucket_that_keeps_old_objects_is_no_proof(s3: str) -> None:
    store, bucket = filesystem(s3)
    uri, proof = _fill(s3, [_row("/c/kept.jpg")]), Proof()
    lance.dataset(uri, storage_options=lance_options(uri)).cleanup_old_versions(timedelta(0))
    prove(uri, pa.array([], pa.string()), set(), proof)
    assert proof.failures == []
    store.call_s3("put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    prove(uri, pa.array([], pa.string()), set(), proof)
    assert ["keeps old versions" in failure for failure in proof.failures] == [True]
    store.call_s3("put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    for one in store.call_s3("list_object_versions", Bucket=bucket)["Versions"]:  # else the bucket cannot be removed
        store.call_s3("delete_object", Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])


def test_what_is_deleted_stays_away_while_it_lies_in_its_corpus_until_that_is_taken_back(
    ray_local: None, tmp_path: Path
) -> None:
    media, db = tmp_path / "media", str(tmp_path / "db")
    media.mkdir()
    for name in ("one", "two", "three"):
        (media / f"{name}.txt").write_text(f"a photo of {name}")
    run = EmbedSettings(corpus=str(media), db=db)
    assert embed(run).tally.embedded == 3
    _delete(db, uri=[str(media / "two.txt")], purge=True)
    (media / "two.txt").write_text("other bytes")
    again = embed(run)
    assert (again.tally.embedded, again.tally.skipped["deleted before"], again.exit_code) == (0, 1, 0)
    assert [Path(u).name for u in _uris(table_uri(db, "media"))] == ["one.txt", "three.txt"]
    _delete(db, uri=[str(media / "two.txt")], undelete=True)
    assert embed(run).tally.embedded == 1
    assert len(_uris(table_uri(db, "media"))) == 3
