"""The ways to ask beyond the nearest, each against arithmetic done by hand on the same vectors."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from searchable import MODALITIES, clustered, make_media, make_space, many_rows, write_table

from encoders.algebra import similarity
from encoders.ranking import maximal_marginal_relevance
from encoders.space import Space
from pipelines.index import Index, open_index
from pipelines.table import open_table, table_uri
from pipelines.upkeep import UpkeepSettings, upkeep


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return make_space(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def rows(space: Space) -> pa.Table:
    return many_rows(space, 0, 1200)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, rows: pa.Table) -> Index:
    folder = tmp_path_factory.mktemp("db")
    write_table(folder, rows)
    upkeep(UpkeepSettings(db=str(folder)))
    return open_index(str(folder))


def vectors(rows: pa.Table) -> np.ndarray:
    return np.array(rows["vector"].to_pylist(), np.float32)


def asked(modality: str, dim: int = 128) -> np.ndarray:
    return clustered(np.array([5]), np.array([modality]), dim, seed=3)[0]


def ids(hits: object) -> list[str]:
    return hits.to_arrow()["item_id"].to_pylist()  # type: ignore[attr-defined,no-any-return]


def test_pages_follow_each_other(index: Index) -> None:
    for how in ({}, {"modality": "audio"}, {"calibrated": False}, {"collapse": 0.9}, {"hybrid": True}):
        whole = ids(index.search("dog 50", k=12, **how))
        assert [*ids(index.search("dog 50", k=5, **how)), *ids(index.search("dog 50", k=7, offset=5, **how))] == whole
    assert len(index.search("dog", k=5, offset=10_000)) == 0


def test_mixed_results_are_in_the_order_of_standard_scores(index: Index, rows: pa.Table) -> None:
    query = asked("text")
    hits = index.search(vector=query, k=1200).to_arrow()
    assert hits.num_rows == 1200
    score, modality = hits["score"].to_numpy(), np.array(hits["modality"].to_pylist())
    assert (np.diff(score) <= 0).all()
    cosine, kinds = vectors(rows) @ query, np.array(rows["modality"].to_pylist())
    for name in MODALITIES:  # the sample is of all 300 rows, or evenly of 256 of them
        own = cosine[kinds == name]
        expected = (hits["similarity"].to_numpy()[modality == name] - own.mean()) / own.std()
        np.testing.assert_allclose(score[modality == name], expected, atol=0.25)


def test_no_modality_crowds_out_the_others(index: Index) -> None:
    """A query of one modality lies in the cone of its own: by the cosine it finds nothing else."""
    query = asked("text")
    by_cosine = Counter(index.search(vector=query, k=40, calibrated=False).to_arrow()["modality"].to_pylist())
    by_score = Counter(index.search(vector=query, k=40).to_arrow()["modality"].to_pylist())
    assert by_cosine == {"text": 40} and len(by_score) == 4 and max(by_score.values()) <= 20


def test_within_one_modality_the_cosine_decides(index: Index) -> None:
    hits = index.search(vector=asked("text"), modality="audio", k=300).to_arrow()
    assert (np.diff(hits["similarity"].to_numpy()) <= 0).all() and (np.diff(hits["score"].to_numpy()) <= 0).all()


def test_centring_takes_the_mean_of_its_modality_off_each_part(index: Index, rows: pa.Table) -> None:
    kinds, all_vectors = np.array(rows["modality"].to_pylist()), vectors(rows)
    image, text = rows.slice(0, 1), rows.slice(2, 1)
    assert image["modality"][0].as_py() == "image" and text["modality"][0].as_py() == "text"

    def centred(row: pa.Table) -> np.ndarray:
        vector = vectors(row)[0] - all_vectors[kinds == row["modality"][0].as_py()].mean(axis=0)
        return vector / np.linalg.norm(vector)

    only = index.search(item_id=image["item_id"][0].as_py(), centred=True, modality="audio", k=300).to_arrow()
    expected = similarity(centred(image), vectors(rows.filter(pc.equal(rows["modality"], "audio"))))[0]
    np.testing.assert_allclose(only["similarity"].to_numpy(), np.sort(expected)[::-1], atol=0.02)
    plain = index.search(item_id=image["item_id"][0].as_py(), modality="audio", k=300).to_arrow()
    assert abs(plain["similarity"].to_numpy() - only["similarity"].to_numpy()).max() > 0.1


def test_nothing_is_taken_off_a_bare_vector(index: Index) -> None:
    query = asked("text")
    assert index.search(vector=query, centred=True, k=20).to_arrow().equals(index.search(vector=query, k=20).to_arrow())


def test_hybrid_search_lifts_what_has_the_words(index: Index, rows: pa.Table) -> None:
    text = next(text for text in rows["text"].to_pylist() if text)  # a word and a number that no other text has
    number = text.split()[1]
    assert number not in {str(t).split()[-1] for t in index.search(number, k=10).to_arrow()["text"].to_pylist()}
    hits = list(index.search(number, k=10, hybrid=True))
    assert text in [hit["text"] for hit in hits[:2]]
    assert hits[0]["score"] == pytest.approx(1 / 61) and hits[0]["score"] >= hits[1]["score"] >= hits[-1]["score"]
    own = next(hit for hit in hits if hit["text"] == text)
    row = rows.filter(pc.equal(rows["text"], text))
    assert own["similarity"] == pytest.approx(float(vectors(row)[0] @ index.space.embed("text", [number])[0]), abs=1e-5)
    assert {hit["modality"] for hit in index.search(number, k=10, hybrid=True, modality="audio")} == {"audio"}
    assert all(hit["rating"] < 5 for hit in index.search("dog", k=50, hybrid=True, where="rating < 5"))


def test_words_of_a_hybrid_search_are_no_query_language(index: Index) -> None:
    for words in ('"dog', "dog AND (", "text:dog", "dog*~^", "'; DROP", "()", "🐕"):
        assert len(index.search(words, hybrid=True, k=3)) == 3


def test_a_hybrid_search_without_a_text_is_not_blamed_on_the_condition(index: Index) -> None:
    with pytest.raises(ValueError, match=r"^hybrid=True also looks for words, but the query"):
        index.search(vector=asked("text"), hybrid=True, where="rating < 5")


def test_near_duplicates_are_collapsed_to_the_best(space: Space, rows: pa.Table, tmp_path: Path) -> None:
    column = rows.schema.get_field_index("vector")
    some = rows.slice(0, 24)
    doubled = [vector for vector in vectors(some)[::2] for _ in range(2)]
    write_table(
        tmp_path, some.set_column(column, rows.schema.field("vector"), pa.array(doubled, rows.schema.field("vector").type))
    )
    index = open_index(str(tmp_path))
    query = asked("image")
    assert len(index.search(vector=query, k=24)) == 24
    hits = index.search(vector=query, k=24, collapse=0.999, columns=["vector"]).to_arrow()
    assert hits.num_rows == 12 and hits["similarity"][0] == index.search(vector=query, k=1).to_arrow()["similarity"][0]
    likeness = similarity(vectors(hits), vectors(hits)) - np.eye(12)
    assert likeness.max() < 0.999


def test_diverse_hits_are_less_alike_and_begin_with_the_best(index: Index) -> None:
    query, how = asked("audio"), {"modality": "audio", "columns": ["vector"], "k": 10}
    plain, diverse = (index.search(vector=query, diversity=d, **how).to_arrow() for d in (0.0, 0.5))

    def alike(hits: pa.Table) -> float:
        return float((similarity(vectors(hits), vectors(hits)).sum() - 10) / 90)

    assert alike(diverse) < alike(plain) - 0.02 and diverse["item_id"][0] == plain["item_id"][0]


def test_diversity_weighs_relevance_between_the_worst_and_the_best_candidate(index: Index) -> None:
    query = asked("text")
    found = index.search(vector=query, k=64, columns=["vector"]).to_arrow()  # as many as there are candidates
    score, candidates = found["score"].to_numpy().astype(np.float64), np.stack(found["vector"].to_numpy())
    relevance = (score - score.min()) / (score.max() - score.min())
    chosen = maximal_marginal_relevance(relevance, candidates, 6, 0.4)
    assert chosen.tolist() != list(range(6))
    assert ids(index.search(vector=query, k=6, diversity=0.4)) == [found["item_id"][n].as_py() for n in chosen.tolist()]


@pytest.mark.parametrize("how", [{"hybrid": True}, {"diversity": 0.5}, {"collapse": 0.9}])
def test_what_is_compared_with_each_other_stays_within_bounds(index: Index, how: dict[str, Any]) -> None:
    assert len(index.search("dog", k=24, offset=1000, **how)) <= 24
    with pytest.raises(ValueError, match=r"k=25, offset=1000: .* 1,024 together"):
        index.search("dog", k=25, offset=1000, **how)
    assert len(index.search("dog", k=25, offset=1000)) == 25


def test_many_queries_at_once_find_what_each_finds_alone(index: Index, rows: pa.Table, tmp_path: Path) -> None:
    (_, picture), *_ = make_media(tmp_path, 1)
    item = rows["item_id"][7].as_py()
    queries = ["dog", {"image": picture, "text": "sea", "weights": {"text": -0.5}}, {"item_id": item}, {"text": "dog"}]
    for how in ({}, {"modality": "audio"}, {"calibrated": False}, {"diversity": 0.3}, {"where": "rating < 50"}):
        alone = [
            index.search("dog", **how),
            index.search("sea", image=picture, weights={"text": -0.5}, **how),
            index.search(item_id=item, **how),
            index.search("dog", **how),
        ]
        for one, together in zip(alone, index.search_many(queries, **how), strict=True):
            assert ids(one) == ids(together)
            np.testing.assert_allclose(one.to_arrow()["similarity"], together.to_arrow()["similarity"], atol=1e-5)
    assert index.search_many([]) == []
    with pytest.raises(TypeError, match="takes a list"):
        index.search_many("dog")
    with pytest.raises(ValueError, match="nothing to search for"):
        index.search_many(["dog", {}])


def test_a_new_modality_is_found_as_soon_as_it_is_there(space: Space, rows: pa.Table, tmp_path: Path) -> None:
    kinds = np.array(rows["modality"].to_pylist())
    write_table(tmp_path, rows.filter(pa.array(kinds != "imu")))
    index = open_index(str(tmp_path))
    assert {hit["modality"] for hit in index.search("dog", k=100)} == {"image", "text", "audio"}
    write_table(tmp_path, rows.filter(pa.array(kinds == "imu")))
    index._looked = 0.0  # a second later
    assert {hit["modality"] for hit in index.search("dog", k=100)} == {"image", "text", "audio", "imu"}


def test_a_table_of_another_space_put_in_its_place_is_refused(space: Space, rows: pa.Table, tmp_path: Path) -> None:
    import shutil

    from encoders import SpaceError

    write_table(tmp_path / "db", rows.slice(0, 8))
    index = open_index(str(tmp_path / "db"))
    shutil.rmtree(tmp_path / "db" / "media.lance")
    other = make_space(tmp_path, seed=1)
    write_table(tmp_path / "db", many_rows(other, 0, 4))
    write_table(tmp_path / "db", many_rows(other, 4, 4))
    assert open_table(table_uri(str(tmp_path / "db"), "media")) is not None
    index._looked = 0.0
    with pytest.raises(SpaceError, match="two spaces"):
        index.search("dog")


def test_what_is_left_of_a_modality_that_the_space_has_no_more_is_found_too(
    tmp_path: Path, rows: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.background.LOOKED_AT", 8)  # rows; the odd one is not among them
    few = rows.filter(pc.equal(rows["modality"], "image"))
    modality = pa.array([*few["modality"].to_pylist()[:-2], "lidar", "image"])
    write_table(tmp_path, few.set_column(few.schema.get_field_index("modality"), "modality", modality))
    found = open_index(str(tmp_path)).search(vector=vectors(few)[-2], k=3, calibrated=False).to_arrow()
    assert found["modality"][0].as_py() == "lidar" and np.isfinite(found["score"].to_numpy()).all()
