"""Search, against arithmetic done by hand on the same vectors."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import lance
import numpy as np
import pyarrow as pa
import pytest
from searchable import make_media, make_space, rows_of, write_table

from encoders import URI, MediaError, SpaceError
from encoders.space import Space
from pipelines.identity import canonical_uri
from pipelines.index import Index, open_index
from pipelines.storage import has_rings
from pipelines.table import table_uri


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return make_space(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    return make_media(tmp_path_factory.mktemp("media"), 12)


@pytest.fixture(scope="module")
def rows(space: Space, media: list[tuple[str, Path]]) -> pa.Table:
    return rows_of(space, media)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory, rows: pa.Table) -> Path:
    folder = tmp_path_factory.mktemp("db")
    write_table(folder, rows)
    return folder


@pytest.fixture(scope="module")
def index(db: Path) -> Index:
    return open_index(str(db))


def vectors(rows: pa.Table) -> np.ndarray:
    return np.array(rows["vector"].to_pylist(), np.float32)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_the_space_comes_from_the_table(index: Index, space: Space) -> None:
    assert index.space.fingerprint == space.fingerprint and index.space.uri == space.uri


@pytest.mark.parametrize("rings", sorted({False, has_rings()}))  # with, too, where this kernel has them
@pytest.mark.parametrize("name", ["plain", "100% of #1, ä?", "50%25;+[x]", "{}"])
def test_a_table_is_found_wherever_it_lies_with_io_uring_and_without(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: Index, rings: bool, name: str
) -> None:
    monkeypatch.setattr("pipelines.table.has_rings", lambda: rings)
    copy = shutil.copytree(db, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for uri in (str(copy), copy.as_uri(), name):
        there = open_index(uri)
        assert there.search("dog barking").to_arrow() == index.search("dog barking").to_arrow()
        assert there._snapshot().rings.uri.startswith("file+uring://") == rings
        with pytest.raises(ValueError, match="has no item") as refused:
            there.search(item_id="?")
        assert canonical_uri(str(refused.value).partition(" has no item")[0]) == str(copy / "media.lance")


def test_where_there_is_no_table_those_that_there_are_are_named(db: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no table 'media' in nowhere, nor any other; `bindery embed"):
        open_index("nowhere")
    for name in ("media", "films", "films__rejects"):
        shutil.copytree(db / "media.lance", tmp_path / f"{name}.lance")
    with pytest.raises(ValueError, match=f"there is no table 'medium' in {tmp_path}, which has films, media; `bindery embed"):
        open_index(str(tmp_path), table="medium")


def test_hits_are_the_nearest_by_cosine_best_first(index: Index, space: Space, rows: pa.Table) -> None:
    cosine = vectors(rows) @ space.embed("text", ["dog barking"])[0]
    hits = index.search("dog barking", k=7, calibrated=False).to_arrow()
    np.testing.assert_allclose(hits["similarity"].to_numpy(), np.sort(cosine)[::-1][:7], atol=1e-5)
    assert hits["item_id"].to_pylist() == rows["item_id"].take(np.argsort(-cosine)[:7]).to_pylist()


def test_every_modality_of_the_space_can_be_the_query(index: Index, media: list[tuple[str, Path]]) -> None:
    for modality, path in media[:4]:
        query = path.read_text() if modality == "text" else path
        best = index.search(**{modality: query}, modality=modality, k=1)
        assert next(iter(best))["uri"] == str(path)
        assert best.to_arrow()["similarity"].to_pylist() == pytest.approx([1.0], abs=1e-5)


def test_a_str_is_text_even_where_it_names_a_file(index: Index, space: Space, media: list[tuple[str, Path]]) -> None:
    path = str(media[0][1])
    by_str = index.search(path, k=3).to_arrow()["similarity"]
    assert by_str == index.search(vector=space.embed("text", [path])[0], k=3).to_arrow()["similarity"]


def test_several_arguments_are_the_weighted_sum_of_unit_vectors(
    index: Index, space: Space, media: list[tuple[str, Path]]
) -> None:
    image, text = space.embed("image", [media[0][1]])[0], space.embed("text", ["sea"])[0]
    hits = index.search("sea", image=media[0][1], weights={"image": 2.0, "text": -0.5}, k=48)
    expected = index.search(vector=7 * unit(2.0 * image - 0.5 * text), k=48)
    assert hits.to_arrow()["item_id"] == expected.to_arrow()["item_id"]
    np.testing.assert_allclose(hits.to_arrow()["similarity"], expected.to_arrow()["similarity"], atol=1e-6)
    assert hits.query == f'-0.5 text "sea" + 2 image {media[0][1].name}'


def test_an_item_asks_with_its_own_vector(index: Index, rows: pa.Table) -> None:
    item = rows["item_id"][5].as_py()
    hits = list(index.search(item_id=item, k=1, calibrated=False))
    assert hits[0]["item_id"] == item and hits[0]["similarity"] == pytest.approx(1, abs=1e-6)


def test_similarity_stays_within_its_range(index: Index, rows: pa.Table) -> None:
    one = vectors(rows)[3]
    assert index.search(vector=one * 1e20, k=1).to_arrow()["similarity"][0].as_py() <= 1
    assert min(index.search(vector=-one, k=48).to_arrow()["similarity"].to_pylist()) >= -1


def test_only_the_modalities_asked_for_are_found(index: Index) -> None:
    assert {hit["modality"] for hit in index.search("dog", modality="audio", k=48)} == {"audio"}
    assert {hit["modality"] for hit in index.search("dog", modality=["audio", "imu"], k=48)} == {"audio", "imu"}


def test_where_holds_together_with_the_modality(index: Index) -> None:
    hits = list(index.search("dog", modality="audio", where="rating < 2 OR thing = 'bell'", k=48))
    assert hits and all(hit["modality"] == "audio" and (hit["rating"] < 2 or hit["thing"] == "bell") for hit in hits)


@pytest.mark.parametrize(
    "where",
    [
        "true) OR (true",
        "true OR true -- ",
        "true /*",
        "rating < 'x",
        "rating <",
        "nosuch = 1",
        "rating < 5; true",
        "rating < 5 nonsense",
        "1",
        "",
        "rating = ?",
        "thing = N'x'",
        "count(*) > 1",
    ],
)
def test_a_where_that_is_no_condition_is_refused(index: Index, where: str) -> None:
    with pytest.raises(ValueError, match="where="):
        index.search("dog", modality="audio", where=where)
    with pytest.raises(ValueError, match="where="):
        index.zero_shot(["dog"], where=where)


def test_an_unknown_column_in_where_is_answered_with_the_known(index: Index) -> None:
    with pytest.raises(ValueError, match=r"nosuch.*item_id.*duration_s.*thing") as told:
        index.search("dog", where="nosuch = 1")
    assert "_rowaddr" not in str(told.value) and ".rs" not in str(told.value)  # nothing of Lance's inside


def test_quotes_and_brackets_within_strings_are_only_text(index: Index) -> None:
    assert len(index.search("dog", where="thing = 'it''s ) -- ; ('")) == 0
    assert len(index.search("dog", where="thing LIKE 'b%' AND (rating::int >= 0)")) > 0


def test_our_own_filters_are_escaped(space: Space, rows: pa.Table, tmp_path: Path) -> None:
    odd = "o'clock') OR ('a' = 'a"
    odd_space = replace(space, encoders={**space.encoders, odd: space.encoders["text"]})
    renamed = rows.slice(0, 1).set_column(rows.schema.get_field_index("modality"), rows.schema.field("modality"), [[odd]])
    write_table(tmp_path, pa.concat_tables([renamed, rows.slice(1)]))
    index = open_index(str(tmp_path), space=odd_space)
    assert [hit["modality"] for hit in index.search("dog", modality=odd, k=48)] == [odd]
    with pytest.raises(ValueError, match="no item"):
        index.search(item_id="' OR 'a' = 'a")


def test_k_beyond_the_table_gives_all_and_an_empty_table_nothing(index: Index, rows: pa.Table, tmp_path: Path) -> None:
    assert len(index.search("dog", k=10_000)) == rows.num_rows
    write_table(tmp_path, rows.slice(0, 0))
    empty = open_index(str(tmp_path))
    assert len(empty.search("dog")) == 0 and "0 hits" in repr(empty.search("dog"))
    assert len(empty.zero_shot(["dog", "cat"])) == 0 and empty.stats().rows == 0


def test_columns_are_those_asked_for(index: Index) -> None:
    assert index.search("dog", columns=["thing"]).to_arrow().column_names == ["similarity", "score", "item_id", "thing"]
    assert "vector" not in index.search("dog").to_arrow().column_names
    assert len(index.search("dog", columns=["vector"]).to_arrow()["vector"][0]) == 128
    with pytest.raises(ValueError, match=r"nosuch.*thing"):
        index.search("dog", columns=["nosuch"])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "nothing to search for"),
        ({"item_id": "0" * 32}, "no item"),
        ({"vector": [1.0, 2.0]}, r"\(2,\).*\(128,\)"),
        ({"vector": [float("nan")] * 128}, "finite"),
        ({"vector": [0.0] * 128}, "zeros"),
        ({"text": "dog", "weights": {"image": 1.0}}, "weights names 'image'"),
        ({"text": "dog", "weights": {"text": 0.0}}, "cancel"),
        ({"text": "dog", "weights": {"text": float("inf")}}, "finite"),
        ({"text": "dog", "k": 0}, "at least 1"),
        ({"text": "dog", "offset": -1}, "offset=-1"),
        ({"text": "dog", "diversity": 2.0}, r"diversity=2\.0"),
        ({"text": "dog", "collapse": 0.0}, r"collapse=0\.0"),
        ({"item_id": None, "vector": np.ones(128), "hybrid": True}, "no text"),
        ({"text": "dog", "hybrid": True}, "full-text index.*optimize"),
        ({"text": "dog", "modality": "smell"}, "audio, image"),
        ({"text": "dog", "modality": []}, "audio, image"),
        ({"text": "dog", "modality": 3}, "audio, image"),
    ],
)
def test_a_query_that_means_nothing_is_refused(index: Index, query: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        index.search(**query)  # type: ignore[arg-type]


def test_a_query_of_a_wrong_kind_is_told_what_there_is(index: Index) -> None:
    with pytest.raises(TypeError, match=r"'smell'.*audio, image"):
        index.search(smell=b"roses")
    with pytest.raises(TypeError, match=r"search\(image="):
        index.search(Path("crane.jpg"))  # type: ignore[arg-type]
    for wrong in ({"k": 2.5}, {"k": "3"}, {"offset": None}, {"where": 5}):
        with pytest.raises(TypeError, match="whole numbers, and a condition in SQL"):
            index.search("dog", **wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a query is text, or .* not .*crane\.jpg"):
        index.search_many([Path("crane.jpg")])  # type: ignore[list-item]


def test_media_that_do_not_decode_are_named(index: Index) -> None:
    with pytest.raises(MediaError):
        index.search(image=b"no picture")
    with pytest.raises(MediaError):
        index.search("  ")


def test_a_long_lived_index_sees_new_commits(rows: pa.Table, tmp_path: Path) -> None:
    write_table(tmp_path, rows.slice(0, 4))
    index = open_index(str(tmp_path))
    assert len(index.search("dog", k=48)) == 4
    write_table(tmp_path, rows.slice(4, 3))
    time.sleep(1.1)
    assert len(index.search("dog", k=48)) == 7 and index.stats().rows == 7


def test_zero_shot_labels_each_item_by_words(index: Index, space: Space, rows: pa.Table) -> None:
    frame = index.zero_shot(["dog", "cat", "bell"], template="a {}", modality="imu")
    assert list(frame["modality"].unique()) == ["imu"] and len(frame) == 12
    text = space.embed("text", ["a dog", "a cat", "a bell"])
    cosine = dict(zip(rows["item_id"].to_pylist(), vectors(rows) @ text.T, strict=True))
    for row in frame.to_dict("records"):
        odds = np.exp(10.0 * cosine[row["item_id"]].astype(float))
        assert row["label"] == ["dog", "cat", "bell"][odds.argmax()]
        assert row["probability"] == pytest.approx(odds.max() / odds.sum(), rel=1e-3)
        assert row["similarity"] == pytest.approx(cosine[row["item_id"]].max(), abs=1e-5)


def test_zero_shot_of_nothing_has_the_same_columns(index: Index) -> None:
    none = index.zero_shot(["dog"], where="rating < 0")
    assert len(none) == 0 and none.dtypes.equals(index.zero_shot(["dog"]).dtypes)


def test_stats_count_items_by_modality(index: Index, rows: pa.Table) -> None:
    stats = index.stats()
    assert stats.items == {"audio": 12, "image": 12, "imu": 12, "text": 12} and stats.rows == rows.num_rows
    assert stats.unindexed_rows == 48 and stats.dim == 128 and stats.space == "toy"


def test_reading_writes_nothing(db: Path, index: Index) -> None:
    before = lance.dataset(table_uri(str(db), "media")).version
    index.search("dog")
    index.zero_shot(["dog", "cat"])
    index.stats()
    assert lance.dataset(table_uri(str(db), "media")).version == before


def test_a_table_and_media_on_s3_are_searched_alike(s3: str, space: Space, rows: pa.Table, index: Index) -> None:
    store = fsspec.filesystem("s3")
    moved = [f"{s3}/media/{Path(uri).name}" for uri in rows["uri"].to_pylist()]
    for uri, target in zip(rows["uri"].to_pylist(), moved, strict=True):
        store.pipe_file(target, Path(uri).read_bytes())
    write_table(f"{s3}/index", rows.set_column(rows.schema.get_field_index("uri"), rows.schema.field("uri"), [moved]))
    remote = open_index(f"{s3}/index")
    image = next(uri for uri in moved if uri.endswith(".png"))
    assert next(iter(remote.search(image=URI(image), k=1)))["uri"] == image
    assert remote.search("dog").to_arrow()["item_id"] == index.search("dog").to_arrow()["item_id"]
    assert remote.search("dog", modality="audio", k=2)._repr_html_().count("<audio") == 2


def test_what_is_no_table_of_ours_is_refused(space: Space, db: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no table 'media'"):
        open_index(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(ValueError, match="no table 'other'"):
        open_index(str(db), "other")
    lance.write_dataset(pa.table({"a": [1]}), table_uri(str(tmp_path), "media"))
    with pytest.raises(SpaceError, match=r"not one of Bindery's"):
        open_index(str(tmp_path))
    with pytest.raises(SpaceError, match="two spaces"):
        open_index(str(db), space=make_space(tmp_path, seed=1))
