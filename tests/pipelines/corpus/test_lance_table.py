"""Lance tables as manifests, on a real table."""

from __future__ import annotations

from pathlib import Path

import lance
import pyarrow as pa
import pytest
from corpora import MEDIA, rows_of, write

from pipelines.corpus import CorpusError, find_modalities, open_corpus
from pipelines.reach import PUBLIC
from pipelines.table import RESERVED_COLUMNS


def test_rows_with_uris_resolve_beside_the_table_and_keep_their_columns(tmp_path: Path) -> None:
    write(tmp_path, MEDIA)
    labels = pa.array([["x"], [], None, ["y", "z"]], pa.list_(pa.string()))
    lance.write_dataset(pa.table({"uri": list(MEDIA), "labels": labels}), str(tmp_path / "m.lance"))
    corpus = open_corpus(str(tmp_path / "m.lance"))
    rows = rows_of(corpus)
    assert [row["uri"] for row in rows] == [f"{tmp_path}/{name}" for name in MEDIA]
    assert [row["labels"] for row in rows] == labels.to_pylist()
    assert corpus.columns == pa.schema([("labels", pa.list_(pa.string()))])
    assert all(row["version"] for row in rows)


def test_blobs_are_inline_media(tmp_path: Path) -> None:
    blob = pa.field("media", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    table = pa.table(
        [list(MEDIA), pa.array(MEDIA.values(), pa.large_binary())], schema=pa.schema([pa.field("id", pa.string()), blob])
    )
    lance.write_dataset(table, str(tmp_path / "m.lance"), data_storage_version="2.1")
    (batch,) = open_corpus(str(tmp_path / "m.lance")).batches()
    assert batch["media"].to_pylist() == list(MEDIA.values())
    assert [guess.modality for guess in find_modalities(batch, PUBLIC)] == ["image", "image", "image", "text"]


def test_large_media_come_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.corpus.formats import lance_table

    monkeypatch.setattr(lance_table, "INLINE_BYTES", 1_000_000)
    lance.write_dataset(pa.table({"media": [bytes([k]) * 100_000 for k in range(50)]}), str(tmp_path / "m.lance"))
    sizes = [batch.num_rows for batch in open_corpus(str(tmp_path / "m.lance")).batches()]
    assert sum(sizes) == 50
    assert max(sizes) <= 20


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    lance.write_dataset(pa.table({"url": ["a"]}), str(tmp_path / "url.lance"))
    with pytest.raises(CorpusError, match="neither a column `uri` nor `media` but url"):
        open_corpus(str(tmp_path / "url.lance"))
    lance.write_dataset(pa.table({"uri": ["a"], "vector": [1.0]}), str(tmp_path / "vector.lance"))
    with pytest.raises(CorpusError, match=r"'vector' .* clash"):
        open_corpus(str(tmp_path / "vector.lance"), reserved=RESERVED_COLUMNS)
    lance.write_dataset(pa.table({"uri": pa.array([], pa.string())}), str(tmp_path / "none.lance"))
    with pytest.raises(CorpusError, match="has no rows"):
        open_corpus(str(tmp_path / "none.lance"))
    (tmp_path / "empty.lance").mkdir()
    with pytest.raises(CorpusError, match="no Lance table is at"):
        open_corpus(str(tmp_path / "empty.lance"))


def test_damage_is_the_tables_fault(tmp_path: Path) -> None:
    lance.write_dataset(
        pa.table({"uri": [f"s3://b/{k}" for k in range(2000)], "version": ["1"] * 2000}), str(tmp_path / "m.lance")
    )
    (data,) = (tmp_path / "m.lance" / "data").iterdir()
    data.write_bytes(b"\xff" * 2000 + data.read_bytes()[2000:])
    corpus = open_corpus(str(tmp_path / "m.lance"))
    with pytest.raises(CorpusError, match=r"m\.lance is damaged .*; write it again"):
        list(corpus.batches())
