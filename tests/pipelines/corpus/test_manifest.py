"""Manifests: what their columns mean, what is refused at once, and what costs one row only."""

from __future__ import annotations

import errno
import hashlib
import io
import sys
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from corpora import MEDIA, manifest_jsonl, manifest_parquet, rows_of, uris_of, write

from pipelines.corpus import CorpusError, csv_manifest, find_modalities, jsonl_manifest, open_corpus, versions
from pipelines.corpus.corpus import Wanted
from pipelines.corpus.manifest_rows import Manifest, Part
from pipelines.corpus.place import Place
from pipelines.reach import PUBLIC
from pipelines.table import RESERVED_COLUMNS

COLUMNS: dict[str, list[Any]] = {
    "uri": ["a.jpg", "sub/c.jpg", "sub/ü.txt"],
    "modality": ["image", None, "text"],
    "label": ["x", None, 'ö, "quoted"\nline'],
    "rating": [1.5, 2.0, None],
    "count": [1, 2, 3],
}


def as_parquet(folder: Path, columns: dict[str, list[Any]]) -> Path:
    return manifest_parquet(folder / "m.parquet", columns)


def as_csv(folder: Path, columns: dict[str, list[Any]]) -> Path:
    pyarrow.csv.write_csv(pa.table(columns), folder / "m.csv")
    return folder / "m.csv"


def as_jsonl(folder: Path, columns: dict[str, list[Any]]) -> Path:
    return manifest_jsonl(
        folder / "m.jsonl", [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    )


@pytest.fixture(params=[as_parquet, as_csv, as_jsonl])
def manifest(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return request.param(write(tmp_path, MEDIA), COLUMNS)  # type: ignore[no-any-return]


def test_every_kind_of_manifest_says_the_same(manifest: Path) -> None:
    corpus = open_corpus(str(manifest))
    rows = rows_of(corpus)
    assert [row["uri"] for row in rows] == [f"{manifest.parent}/{uri}" for uri in COLUMNS["uri"]]
    assert [row["modality"] for row in rows] == ["image", None, "text"]
    assert {name: [row[name] for row in rows] for name in corpus.columns.names} == {
        n: COLUMNS[n] for n in ("label", "rating", "count")
    }
    assert corpus.columns.field("count").type == pa.int64()
    assert corpus.columns.field("rating").type == pa.float64()


def test_a_prefix_gives_the_same_versions_as_its_manifest(manifest: Path) -> None:
    listed = {row["uri"]: row["version"] for row in rows_of(open_corpus(str(manifest.parent)))}
    assert all(listed[row["uri"]] == row["version"] for row in rows_of(open_corpus(str(manifest))))


def test_a_modality_of_the_argument_fills_gaps_only(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [row["modality"] for row in rows_of(open_corpus(str(manifest), modality="depth"))] == ["image", "depth", "text"]
    assert "modality 'depth' is taken of rows that do not" in capsys.readouterr().err


def test_a_manifest_at_the_root_makes_the_folder_its_corpus(manifest: Path) -> None:
    root = manifest.parent
    manifest.rename(root / f"manifest{manifest.suffix}")
    corpus = open_corpus(str(root))
    assert corpus.id == str(root)
    assert uris_of(corpus) == [f"{root}/{uri}" for uri in COLUMNS["uri"]]
    as_parquet(root, COLUMNS).rename(root / "manifest.parquet")
    as_csv(root, COLUMNS).rename(root / "manifest.csv")
    with pytest.raises(CorpusError, match=r"manifest.parquet and manifest.csv"):
        open_corpus(str(root))


def test_folders_tell_the_modality_that_a_manifest_does_not(tmp_path: Path) -> None:
    path = manifest_parquet(
        tmp_path / "m.parquet",
        {"uri": ["depth/1.png", "s3://b/images/x", "http://h/images/x", "x.png"], "version": list("1234")},
    )
    assert [row["modality"] for row in rows_of(open_corpus(str(path)))] == ["depth", "image", None, None]


def test_bad_rows_cost_themselves_only_and_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, MEDIA)
    columns = {"uri": ["a.jpg", None, "gone.jpg", "a.jpg", "s3:", ""], "modality": [None, None, None, "picture", None, "image"]}
    for make in (as_parquet, as_csv, as_jsonl):
        corpus = open_corpus(str(make(tmp_path, columns)))
        rows = rows_of(corpus)
        problems = [row["problem"] for row in rows]
        assert problems[0] is None
        assert problems[2] == problems[4] == "not found"
        assert "'picture', which is none of audio" in problems[3]
        assert "`uri` is empty" in problems[1]
        assert "`uri` is empty" in problems[5]
        assert len({row["uri"] for row in rows}) == 5  # a.jpg twice
        assert corpus.found == len(rows) == 6


def test_unreadable_lines_of_a_csv_cost_themselves_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = [f"{k}.jpg,v{k},{k}" for k in range(60)]
    bad = ["few,columns", "far,too,many,columns", "x.jpg,v,no number", "y.jpg,\xff,1"]
    lines = ["uri,version,count", *good[:30], *bad, *good[30:]]
    (tmp_path / "m.csv").write_bytes("\n".join(lines).encode("latin1"))
    monkeypatch.setattr(csv_manifest, "SCHEMA_BLOCK_BYTES", 200)  # the types are those of the good lines at the top
    monkeypatch.setattr(csv_manifest, "BLOCK_BYTES", 256)
    rows = rows_of(open_corpus(str(tmp_path / "m.csv")))
    fine = [row for row in rows if row["problem"] is None]
    assert [row["count"] for row in fine] == list(range(60))
    assert [row["version"] for row in fine] == [f"v{k}" for k in range(60)]
    problems = sorted(row["problem"] for row in rows if row["problem"])
    assert problems == [
        "column 'count' is int64, but 'no number' is none",
        "column 'version' is string, but '\\\\xff' is none",
        "line 32: 2 columns where 3 are expected: 'few,columns'",
        "line 33: 4 columns where 3 are expected: 'far,too,many,columns'",
    ]


def test_unreadable_lines_of_json_cost_themselves_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = [{"uri": f"{k}.jpg", "version": "v", "count": k} for k in range(10)]
    bad = ["{", "[1, 2]", "", {"uri": 5, "version": "v"}, {"uri": "a", "version": "v", "count": "many"}, {"uri": "a", "new": 1}]
    monkeypatch.setattr(jsonl_manifest, "SCHEMA_LINES", 5)
    corpus = open_corpus(str(manifest_jsonl(tmp_path / "m.jsonl", [*good[:5], *bad, *good[5:]])))
    rows = rows_of(corpus)
    assert [row["count"] for row in rows if row["problem"] is None] == list(range(10))
    problems = [row["problem"] for row in rows if row["problem"]]
    assert len(problems) == 5
    for part in ("line 6: no JSON", "line 7: a JSON object", "'uri' is string, but '5'", "int64, but 'many'", "column 'new'"):
        assert sum(part in problem for problem in problems) == 1, part
    assert corpus.found == 15


def test_types_of_json_columns_are_those_most_values_have(tmp_path: Path) -> None:
    rows = [
        {"uri": "a", "version": "v", "mixed": m, "number": n, "tags": ["t"], "null": None}
        for m, n in [(1, 1), ("x", 2.5), (2, 3)]
    ]
    columns = open_corpus(str(manifest_jsonl(tmp_path / "m.jsonl", rows))).columns
    assert [columns.field(n).type for n in ("mixed", "number", "tags", "null")] == [
        pa.int64(),
        pa.float64(),
        pa.list_(pa.string()),
        pa.string(),
    ]


@pytest.mark.parametrize(
    ("columns", "version"),
    [
        ({"version": ["v1"], "etag": ["e"]}, "v1"),
        ({"version": [7]}, "7"),
        ({"etag": ['"abc-2"']}, "abc-2"),
        ({"size": [5], "mtime": [1_700_000_000]}, "5-1700000000000000000"),
        ({"size": [5], "mtime": [1_700_000_000_123]}, "5-1700000000123000000"),
        ({"size": [5], "mtime": [1_700_000_000_123_456_789]}, "5-1700000000123456789"),
        ({"size": [5], "mtime": [1_700_000_000.5]}, "5-1700000000500000000"),
        ({"size": [5], "mtime": [datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)]}, "5-1700000000000000000"),
        ({"size": [5], "mtime": ["2023-11-14T22:13:20Z"]}, "5-1700000000000000000"),
        ({"size": [5], "mtime": [date(2023, 11, 14)]}, "5-1699920000000000000"),
    ],
)
def test_a_manifest_may_tell_versions_and_then_nobody_is_asked(columns: dict[str, Any], version: str, tmp_path: Path) -> None:
    path = manifest_parquet(tmp_path / "m.parquet", {"uri": ["s3://no-such-bucket-at-all/a.jpg"], **columns})
    corpus = open_corpus(str(path))
    assert [(row["version"], row["problem"]) for row in rows_of(corpus)] == [(version, None)]
    assert corpus.columns.names == []


def test_a_size_without_a_time_is_a_column_like_any_other(tmp_path: Path) -> None:
    path = manifest_parquet(tmp_path / "m.parquet", {"uri": ["a"], "version": ["v"], "size": ["XL"]})
    assert [row["size"] for row in rows_of(open_corpus(str(path)))] == ["XL"]


def test_inline_media_are_named_by_their_id_or_row_and_versioned_by_their_bytes(tmp_path: Path) -> None:
    media = [*MEDIA.values(), None]
    path = manifest_parquet(tmp_path / "m.parquet", {"id": ["one", "two", None, "4", "5"], "media": media})
    corpus = open_corpus(str(path))
    (batch,) = corpus.batches()
    rows = batch.to_pylist()
    assert [row["uri"] for row in rows] == [f"{path}#{name}" for name in ("one", "two", "2", "4", "5")]
    assert [row["version"] for row in rows[:-1]] == [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in MEDIA.values()]
    assert "`media` is empty" in rows[-1]["problem"]
    assert corpus.columns.names == ["id"]
    assert [guess.modality for guess in find_modalities(batch.slice(0, 3), PUBLIC)] == ["image"] * 3


def test_inline_media_may_have_a_uri_and_a_row_without_bytes_is_read_from_it(tmp_path: Path) -> None:
    write(tmp_path, MEDIA)
    path = manifest_parquet(tmp_path / "m.parquet", {"uri": ["named.jpg", "a.jpg"], "media": [b"bytes", None]})
    first, second = rows_of(open_corpus(str(path)))
    assert (first["uri"], first["media"]) == (f"{tmp_path}/named.jpg", b"bytes")
    assert (second["uri"], second["media"], second["problem"]) == (f"{tmp_path}/a.jpg", None, None)


def test_large_inline_media_come_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.corpus import manifest_rows

    monkeypatch.setattr(manifest_rows, "INLINE_BYTES", 10_000)
    path = manifest_parquet(tmp_path / "m.parquet", {"media": [bytes([k]) * 3000 for k in range(20)]})
    sizes = [batch.num_rows for batch in open_corpus(str(path)).batches()]
    assert sum(sizes) == 20
    assert max(sizes) <= 4


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"url": ["a"], "label": ["b"]}, r"neither a column `uri` nor `media` but url, label; rename"),
        ({"uri": ["a"], "vector": [1], "text": ["b"]}, r"columns 'vector', 'text' .* clash"),
        ({"uri": ["a"], "offset": [1]}, r"'offset' .* clash"),
        ({"uri": ["a"], "_rowid": [1]}, r"'_rowid' .* underscore"),
        ({"uri": ["a"], "score": [1.0], "similarity": [1.0]}, r"'score', 'similarity' .* clash"),
        ({"": [0], "uri": ["a"]}, r"without a name.*df\.to_csv\(index=False\)"),
        ({"uri": ["a"], "a.b": [1]}, r"'a.b' .* dot"),
        ({"uri": ["a"], "a`b": [1]}, r"'a`b' .* backtick"),
        ({"uri": [1]}, r"`uri` .* is int64; it must hold strings"),
        ({"uri": ["a"], "modality": [1]}, r"`modality` .* is int64"),
        ({"media": ["base64"]}, r"`media` .* is string; it must hold bytes"),
        ({"uri": pa.array([], pa.string())}, "has no rows"),
    ],
)
def test_what_is_no_manifest_is_refused_by_name(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = manifest_parquet(tmp_path / "m.parquet", columns)
    with pytest.raises(CorpusError, match=message):
        open_corpus(str(path), reserved=RESERVED_COLUMNS)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.parquet", b"no parquet at all", "damaged or no Parquet"),
        ("m.parquet", b"", "damaged or no Parquet"),
        ("m.csv", b"", "empty or no CSV"),
        ("m.csv", b"uri,label\n", "has no rows"),
        ("m.csv", b"uri,label,label\na,b,c\n", "'label' more than once"),
        ("m.csv", b"uri,media\na,b\n", "text holds no bytes"),
        ("m.csv", b",uri\n0,a\n", r"df\.to_csv\(index=False\)"),
        ("m.jsonl", b"", "neither a column"),
        ("m.jsonl", b"\n\n", "neither a column"),
    ],
)
def test_damaged_and_empty_manifests_are_refused(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorpusError, match=message):
        open_corpus(str(tmp_path / name))


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_a_page_that_is_damaged_is_the_manifests_fault_wherever_it_is(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    uris = [f"s3://bucket/{k}.jpg" for k in range(30_000)]
    table = pa.table({"uri": uris, "version": ["1"] * len(uris)})
    pq.write_table(table, path, compression=compression, row_group_size=10_000, use_dictionary=False)
    late = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[late : late + 8] = b"\xff" * 8
    path.write_bytes(data)
    batches = open_corpus(str(path)).batches()
    assert next(batches).num_rows == 10_000
    with pytest.raises(CorpusError, match=r"m\.parquet is damaged .*; write it again"):
        list(batches)


def test_a_disk_that_cannot_be_read_is_not_the_manifests_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = manifest_parquet(tmp_path / "m.parquet", {"uri": ["s3://b/a"], "version": ["1"]})
    corpus = open_corpus(str(path))

    class Worn(io.FileIO):
        def read(self, *_: Any) -> bytes:
            raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.open", lambda _, path, mode: Worn(path))
    with pytest.raises(OSError, match="input/output error"):
        list(corpus.batches())


def test_a_parquet_manifest_may_be_a_folder_of_files(tmp_path: Path) -> None:
    folder = tmp_path / "m.parquet"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    for k in range(3):
        manifest_parquet(folder / f"part-{k}.parquet", {"uri": [f"{k}.jpg"], "version": ["v"], "label": ["x"]})
    assert uris_of(open_corpus(str(folder))) == [f"{tmp_path}/{k}.jpg" for k in range(3)]
    manifest_parquet(folder / "part-3.parquet", {"uri": ["3.jpg"], "other": ["x"]})
    with pytest.raises(CorpusError, match="has other columns than"):
        uris_of(open_corpus(str(folder)))


def test_strings_may_be_of_any_arrow_kind(tmp_path: Path) -> None:
    uris = pa.array(["s3://b/a", "s3://b/b"])
    for kind in (pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()):
        pq.write_table(pa.table({"uri": uris.cast(kind), "version": ["1", "2"]}), tmp_path / "m.parquet")
        assert uris_of(open_corpus(str(tmp_path / "m.parquet"))) == ["s3://b/a", "s3://b/b"]


def test_globs_are_matched_below_the_manifests_folder(tmp_path: Path) -> None:
    path = manifest_parquet(
        tmp_path / "m.parquet", {"uri": ["x/a.jpg", "y/a.jpg", "s3://b/x/a.jpg"], "version": ["1", "2", "3"], "n": [1, 2, 3]}
    )
    corpus = open_corpus(str(path), include=["x/*"])
    assert [row["n"] for row in rows_of(corpus)] == [1]
    assert corpus.skipped == {"excluded": 2}


def test_a_row_that_names_no_place_costs_itself_only(tmp_path: Path) -> None:
    write(tmp_path, MEDIA)
    parts = {
        "http://[::1/x.png": "'http://[::1/x.png' is no URI",
        "http:///x.png": "no host follows http://",
        "s3:///key": "no bucket follows s3://",
        "s3://": "no bucket follows s3://",
        "s3://bad_Bucket!!/x": "Invalid bucket name",
        "foo://a/b": "foo:// may not be named",
    }
    for make in (as_parquet, as_csv, as_jsonl):
        rows = rows_of(open_corpus(str(make(tmp_path, {"uri": [*parts, "a.jpg"], "n": list(range(7))}))))
        assert [row["n"] for row in rows] == list(range(7))
        assert all(part in row["problem"] for part, row in zip(parts.values(), rows, strict=False))
        assert rows[-1]["problem"] is None
        assert len({row["uri"] for row in rows}) == 7


def test_many_rows_of_a_bucket_that_cannot_be_are_problems_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "LIST_FROM", 2)
    path = manifest_parquet(tmp_path / "m.parquet", {"uri": [f"s3://bad_Bucket!!/{k}" for k in range(3)]})
    assert ["Invalid bucket name" in row["problem"] for row in rows_of(open_corpus(str(path)))] == [True] * 3


def test_a_store_without_its_package_costs_its_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    write(tmp_path, MEDIA)
    columns: dict[str, list[Any]] = {"uri": ["gs://b/x", "gs://b/y", "a.jpg"], "etag": [None, "e", None]}
    (batch,) = open_corpus(str(as_parquet(tmp_path, columns))).batches()
    assert "gcsfs" in batch["problem"][0].as_py()
    assert batch["problem"].to_pylist()[1:] == [None, None]
    refused, found = find_modalities(batch.slice(1), PUBLIC)
    assert (refused.modality, refused.why, "gcsfs" in refused.detail) == (None, "ambiguous", True)
    assert found.modality == "image"


def test_half_a_surrogate_pair_costs_its_line_only(tmp_path: Path) -> None:
    lines = [
        '{"uri": "\\ud800.jpg", "version": "v"}',
        '{"uri": "a", "version": "v", "label": "\\udc00"}',
        '{"uri": "a", "version": "v", "label": {"\\ud800": 1}}',
        '{"uri": "a", "version": "v", "\\ud800": 1}',
        '{"uri": "\\ud83d\\ude00.jpg", "version": "v", "label": "\\u00fc"}',
    ]
    rows = rows_of(open_corpus(str(manifest_jsonl(tmp_path / "m.jsonl", list(lines)))))
    assert [(row["uri"], row["label"]) for row in rows if row["problem"] is None] == [(f"{tmp_path}/\U0001f600.jpg", "\u00fc")]
    assert ["surrogate" in row["problem"] for row in rows if row["problem"]] == [True] * 4


def test_a_time_that_is_none_is_a_problem_and_one_that_is_missing_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, MEDIA)
    size = len(MEDIA["a.jpg"])
    columns: dict[str, list[Any]] = {"uri": ["a.jpg"] * 4, "size": [size] * 4, "mtime": [float("inf"), float("nan"), None, 5.0]}
    rows = rows_of(open_corpus(str(as_parquet(tmp_path, columns))))
    assert [row["problem"] is None for row in rows] == [False, True, True, True]
    assert "mtime 'inf' is no time" in rows[0]["problem"]
    assert rows[1]["version"] == rows[2]["version"] != rows[3]["version"] == f"{size}-5000000000"


def test_a_size_is_used_whatever_names_the_version(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"uri": list("abcd"), "size": [5, None, -1, 0]}
    ways: list[dict[str, list[Any]]] = [{"version": list("1234")}, {"etag": list("1234")}]
    for named in (*ways, {**ways[0], "mtime": [None] * 4}):
        rows = rows_of(open_corpus(str(as_parquet(tmp_path, {**columns, **named}))))
        assert [row["size_bytes"] for row in rows] == [5, None, None, 0]
        assert [row["problem"] is None for row in rows] == [True, True, False, True]
        assert "its size is -1" in rows[2]["problem"]
    write(tmp_path, MEDIA)
    (row,) = rows_of(open_corpus(str(as_parquet(tmp_path, {"uri": ["a.jpg"], "size": [1]}))))
    assert row["size_bytes"] == len(MEDIA["a.jpg"])  # its version is the disk's, and so is its size


@pytest.mark.parametrize(
    ("values", "kind", "plain"),
    [
        (["x", None], pa.dictionary(pa.int32(), pa.string()), pa.string()),
        ([7, None], pa.dictionary(pa.int8(), pa.int64()), pa.int64()),
        (["x", None], pa.string_view(), pa.string()),
        ([b"x", None], pa.binary_view(), pa.binary()),
        ([None, None], pa.null(), pa.string()),
        ([["x"], None], pa.list_(pa.dictionary(pa.int32(), pa.string())), pa.list_(pa.string())),
        ([{"a": "x"}, None], pa.struct([("a", pa.string_view())]), pa.struct([("a", pa.string())])),
    ],
)
def test_own_columns_are_of_plain_types(values: list[Any], kind: pa.DataType, plain: pa.DataType, tmp_path: Path) -> None:
    schema = pa.schema([("uri", pa.string()), ("version", pa.string()), ("own", kind)])
    table = pa.table([["a", "b"], ["1", "2"], pa.array(values, kind)], schema=schema)
    manifest = Manifest(Place.of(str(tmp_path / "m")), str(tmp_path), schema, Wanted())
    assert manifest.own.field("own").type == plain
    (batch,) = manifest.sources([Part(table)], Counter())
    assert batch.schema.field("own").type == plain
    assert batch["own"].to_pylist() == values


def test_a_dictionary_of_views_is_decoded_too(tmp_path: Path) -> None:
    own = pa.DictionaryArray.from_arrays(pa.array([0, None]), pa.array(["x"]).cast(pa.string_view()))
    table = pa.table({"uri": ["a", "b"], "version": ["1", "2"], "own": own})
    (batch,) = Manifest(Place.of(str(tmp_path)), str(tmp_path), table.schema, Wanted()).sources([Part(table)], Counter())
    assert (batch["own"].type, batch["own"].to_pylist()) == (pa.string(), ["x", None])


def test_intervals_are_refused_by_name(tmp_path: Path) -> None:
    schema = pa.schema([("uri", pa.string()), ("every", pa.month_day_nano_interval())])
    with pytest.raises(CorpusError, match=r"'every' .* month_day_nano_interval, which no table holds"):
        Manifest(Place.of(str(tmp_path)), str(tmp_path), schema, Wanted())
