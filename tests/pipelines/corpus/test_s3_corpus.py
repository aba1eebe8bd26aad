"""The same on a real S3 server: pages, versions, permissions, ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest
from corpora import MEDIA, picture, rows_of, tar

from pipelines.corpus import CorpusError, find_modalities, open_corpus, s3_keys, versions
from pipelines.reach import PUBLIC
from pipelines.storage import filesystem, lance_options, store

pytestmark = pytest.mark.s3


def put(s3: str, files: dict[str, bytes]) -> None:
    """Write objects below a bucket."""
    store(s3).pipe({f"{s3}/{name}": data for name, data in files.items()})


def names(s3: str, uri: str, **options: Any) -> list[str]:
    return [row["uri"].removeprefix(f"{s3}/") for row in rows_of(open_corpus(uri, **options))]


def test_a_prefix_is_listed_page_by_page_in_order_of_its_keys(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_keys, "PAGE_KEYS", 3)
    files = {f"media/{name}": b"x" for name in ("a b#1?.jpg", "b%20.jpg", "c/ü.jpg", "c//d.jpg", "e.jpg", "f.jpg", "g.jpg")}
    put(s3, {**files, "media2/x.jpg": b"x", "other.jpg": b"x"})
    assert names(s3, f"{s3}/media/") == sorted(files)
    assert open_corpus(f"s3a://{s3.removeprefix('s3://')}/media").id == f"{s3}/media"
    assert len(names(s3, s3)) == len(files) + 2
    assert names(s3, f"{s3}/media", limit=2) == sorted(files)[:2]


def test_hidden_and_closed_folders_count_once(s3: str) -> None:
    keys = [
        "a.jpg",
        ".git/a",
        ".git/x/b",
        ".git0",
        "_tmp/a",
        "t.lance/data/1",
        "t.lance/data/2",
        "x/_y/a",
        "x/_y/b",
        "x/a.jpg",
        "z/a.jpg",
        "z/b.jpg",
        "s.json",
    ]
    put(s3, {f"m/{key}": b"x" for key in keys})
    store(s3).pipe_file(f"{s3}/m/folder/", b"")  # how consoles mark an empty folder
    corpus = open_corpus(f"{s3}/m", exclude=["z/**"])
    assert [row["uri"] for row in rows_of(corpus)] == [f"{s3}/m/a.jpg", f"{s3}/m/x/a.jpg"]
    assert corpus.skipped == {"hidden": 4, ".lance": 1, "excluded": 1, ".json": 1}


def test_the_version_is_the_etag_and_follows_the_bytes_only(s3: str) -> None:
    def version() -> str:
        return rows_of(open_corpus(f"{s3}/m"))[0]["version"]  # type: ignore[no-any-return]

    put(s3, {"m/a.jpg": b"one"})
    first = version()
    put(s3, {"m/a.jpg": b"one"})
    assert version() == first
    put(s3, {"m/a.jpg": b"two"})
    assert version() != first
    assert '"' not in first


def test_a_prefix_its_manifest_and_single_lookups_agree_on_versions(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = [f"{s3}/m/{k:02}.jpg" for k in range(30)]
    put(s3, {f"m/{k:02}.jpg": bytes([k]) for k in range(30)})
    listed = {row["uri"]: row["version"] for row in rows_of(open_corpus(f"{s3}/m"))}
    asked = [*uris[3:20], f"{s3}/m/05x.jpg", f"{s3}/m/99.jpg"]
    expected = [(listed.get(uri), None if uri in listed else "not found") for uri in asked]
    singly = versions.look_up(asked, PUBLIC)
    monkeypatch.setattr(versions, "LIST_FROM", 5)
    monkeypatch.setattr(s3_keys, "PAGE_KEYS", 4)
    in_pages = versions.look_up(asked, PUBLIC)
    monkeypatch.setattr(versions, "LISTED_PER_SOURCE", 0)  # gives up at once, and asks singly
    assert [(s.version, s.problem) for s in in_pages] == [(s.version, s.problem) for s in singly] == expected
    assert versions.look_up(asked, PUBLIC) == singly


def test_many_sources_of_a_manifest_are_looked_up_by_few_requests(s3: str) -> None:
    put(s3, {f"m/{k:03}.jpg": b"x" for k in range(versions.LIST_FROM)})
    put(s3, {"list.jsonl": b"".join(b'{"uri": "m/%03d.jpg"}\n' % k for k in range(versions.LIST_FROM))})
    fs = store(s3)
    sent: list[str] = []
    fs.s3.meta.events.register("before-call.s3", lambda model, **_: sent.append(model.name))
    rows = rows_of(open_corpus(f"{s3}/list.jsonl"))
    assert all(row["version"] and row["problem"] is None for row in rows)
    assert sent.count("ListObjectsV2") <= 3
    assert sent.count("HeadObject") <= 6


def test_manifests_beside_their_media_resolve_and_say_what_is_missing(s3: str) -> None:
    lines = b"uri,label\nm/a.jpg,x\n./m/../m/a.jpg,y\nm/gone.jpg,z\n"
    put(s3, {"set/m/a.jpg": MEDIA["a.jpg"], "set/manifest.csv": lines})
    rows = rows_of(open_corpus(f"{s3}/set"))
    assert [row["uri"] for row in rows] == [f"{s3}/set/m/a.jpg", f"{s3}/set/m/a.jpg", f"{s3}/set/m/gone.jpg"]
    assert [row["problem"] for row in rows] == [None, None, "not found"]


def test_a_lance_table_on_s3_is_a_manifest(s3: str) -> None:
    put(s3, {"a.jpg": MEDIA["a.jpg"]})
    uri = f"{s3}/m.lance"
    lance.write_dataset(pa.table({"uri": ["a.jpg"], "n": [1]}), uri, storage_options=lance_options(uri))
    assert [(row["uri"], row["problem"]) for row in rows_of(open_corpus(uri))] == [(f"{s3}/a.jpg", None)]


def test_members_of_shards_are_found_and_looked_at_in_ranges(s3: str) -> None:
    put(s3, {f"w/s-{k}.tar": tar(MEDIA) for k in range(10)})
    for pattern in ("w/s-{0..9}.tar", "w/*.tar", "w"):
        batches = list(open_corpus(f"{s3}/{pattern}").batches())
        rows = [row for batch in batches for row in batch.to_pylist()]
        assert [row["uri"] for row in rows] == [f"{s3}/w/s-{k}.tar#{name}" for k in range(10) for name in MEDIA]
        guesses = [guess.modality for batch in batches for guess in find_modalities(batch, PUBLIC)]
        assert guesses == ["image", "image", "image", "text"] * 10
    row = rows[5]
    fs, path = filesystem(row["container"])
    assert fs.cat_file(path, start=row["offset"], end=row["offset"] + row["size_bytes"]) == MEDIA["b b#1.png"]


def test_first_bytes_are_read_concurrently_and_losses_told(s3: str) -> None:
    put(s3, {"m/1.txt": picture(), "m/2.jpg": b"", "m/3.png": picture("I;16"), "m/4.jpg": b"x"})
    (batch,) = open_corpus(f"{s3}/m").batches()
    store(s3).rm(f"{s3}/m/4.jpg")
    guesses = find_modalities(batch, PUBLIC)
    assert [guess.modality for guess in guesses] == ["image", "image", None, None]
    assert "cannot be read" in guesses[3].detail


def test_what_is_not_there_is_refused(s3: str) -> None:
    for uri in (
        f"{s3}/gone",
        f"{s3}/gone.parquet",
        f"{s3}/gone/*.tar",
        f"{s3}-gone/m",
        f"{s3}-gone/m.parquet",
        f"{s3}/gone.lance",
    ):
        with pytest.raises(CorpusError, match="gone"):
            open_corpus(uri)


@pytest.mark.parametrize("name", ["m", "m/a.jpg", "m.csv", "m.parquet", "w-{0..1}.tar", "m.lance", "urls.txt"])
def test_without_permission_nothing_starts(name: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(s3, {"m/a.jpg": b"x", "m.csv": b"uri\nm/a.jpg\n", "w-0.tar": tar(MEDIA)})
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    type(store(s3)).clear_instance_cache()
    try:
        with pytest.raises(CorpusError, match=r"permission|no Lance table"):
            rows_of(open_corpus(f"{s3}/{name}"))
    finally:
        type(store(s3)).clear_instance_cache()


def test_without_credentials_nothing_starts(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    type(store(s3)).clear_instance_cache()
    try:
        with pytest.raises(CorpusError, match="AWS_"):
            open_corpus(f"{s3}/m")
    finally:
        type(store(s3)).clear_instance_cache()


def test_a_server_that_does_not_answer_is_an_error_of_the_infrastructure(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    type(store(s3)).clear_instance_cache()
    try:
        with pytest.raises(OSError, match="does not answer"):
            open_corpus(f"{s3}/m")
    finally:
        type(store(s3)).clear_instance_cache()
