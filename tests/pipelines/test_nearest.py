"""Rows by id, and the candidates of an index compared: in the order asked for, each as often, however many are held at once."""

from __future__ import annotations

import lance
import numpy as np
import pyarrow as pa
import pytest

from pipelines.nearest import Way, nearest, rows_by_id
from pipelines.table import VECTOR

ROWS, DIM = 2000, 32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> lance.LanceDataset:
    """Vectors of two modalities in an index that holds them as they are; every tenth row was deleted, the rest compacted."""
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM)
    modality = np.array(["image", "text"])[np.arange(ROWS) % 2]
    table = pa.table({"number": np.arange(ROWS), "modality": modality, VECTOR: column})
    uri = tmp_path_factory.mktemp("table")
    made = lance.write_dataset(table, uri, enable_stable_row_ids=True, max_rows_per_file=300)
    made.delete("number % 10 = 0")
    made.optimize.compact_files()
    made.create_index(VECTOR, "IVF_FLAT", metric="cosine", num_partitions=8)
    return lance.dataset(uri)


def test_rows_come_in_the_order_of_their_ids_each_as_often_as_it_is_named(dataset: lance.LanceDataset) -> None:
    known = dataset.to_table(columns=["number"], with_row_id=True)
    ids = dict(zip(known["number"].to_pylist(), known["_rowid"].to_pylist(), strict=True))
    wanted = [1999, 3, 777, 3, 3, 1]
    rows = rows_by_id(dataset, np.array([ids[number] for number in wanted], np.uint64), ["modality", "number"])
    assert rows["number"].to_pylist() == wanted and rows.column_names == ["modality", "number"]
    assert rows_by_id(dataset, np.array([], np.uint64), ["number"]).num_rows == 0


@pytest.mark.parametrize("held", [7, 4096])
@pytest.mark.parametrize("queries", [1, 5])
def test_the_best_of_the_candidates_are_what_comparing_every_vector_finds(
    dataset: lance.LanceDataset, monkeypatch: pytest.MonkeyPatch, held: int, queries: int
) -> None:
    monkeypatch.setattr("pipelines.nearest.COMPARED_ROWS", held)
    query_QD = np.random.default_rng(1).normal(size=(queries, DIM)).astype(np.float32)
    query_QD /= np.linalg.norm(query_QD, axis=1, keepdims=True)
    true = nearest(dataset, query_QD, 6, None, "modality = 'text'", columns=["number"])
    found = nearest(dataset, query_QD, 6, Way(8, 4), "modality = 'text'", columns=["number"])
    assert found.drop_columns(["similarity"]) == true.drop_columns(["similarity"]) and found.num_rows == 6 * queries
    np.testing.assert_allclose(found["similarity"].to_numpy(), true["similarity"].to_numpy(), atol=1e-6)


def test_candidates_are_looked_for_elsewhere_and_compared_with_the_query(dataset: lance.LanceDataset) -> None:
    query, near = np.eye(DIM, dtype=np.float32)[:1], np.eye(DIM, dtype=np.float32)[1:2]
    around = nearest(dataset, near, 24, Way(8, 1), None)
    found = nearest(dataset, query, 6, Way(8, 4), None, near_QD=near)
    cosines = nearest(dataset, query, ROWS, None, None)
    known = dict(zip(cosines["row"].to_pylist(), cosines["similarity"].to_pylist(), strict=True))
    best = sorted(around["row"].to_pylist(), key=lambda row: -known[row])[:6]
    assert found["row"].to_pylist() == best
    np.testing.assert_allclose(found["similarity"].to_numpy(), [known[row] for row in best], atol=1e-6)
