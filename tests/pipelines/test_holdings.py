"""What a table, its rejects and its tombstones hold is told by the whole id and by all its rows, on real tables."""

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa

from pipelines.holdings import Holdings, read_holdings
from pipelines.known import ABSENT, OTHER, SAME, id_words, state_hash
from pipelines.rejects import Rejected, Rejects
from pipelines.table import ITEM_COLUMNS, create_table, open_table
from pipelines.tombstones import Tombstones

A, B, C = (f"{high:016x}{low:016x}" for high, low in ((7, 1), (7, 2), (8, 1)))  # A and B are forged to begin alike


def _table(tmp_path: Path, **segments: int) -> str:
    """A table of sources by id, each of so many segments, with one label."""
    uri = str(tmp_path / "media.lance")
    create_table(uri, pa.schema([*ITEM_COLUMNS, pa.field("label", pa.string())]))
    constant = {"uri": "u", "modality": "audio", "corpus": "/c", "version": "v", "recipe": "r", "label": "x"}
    rows = [
        {"item_id": f"{i}{k}", "source_id": i, "segment_count": count, **constant}
        for i, count in segments.items()
        for k in range(count)
    ]
    lance.write_dataset(pa.Table.from_pylist(rows, schema=open_table(uri).schema), uri, mode="append")  # type: ignore[union-attr]
    return uri


def _holdings(tmp_path: Path) -> Holdings:
    rejects, tombstones = Rejects(str(tmp_path / "rejects.lance"), "run"), Tombstones(str(tmp_path / "deleted.lance"))
    return read_holdings(open_table(str(tmp_path / "media.lance")), rejects, tombstones, "/c", ["label"], False)


def test_a_source_whose_id_begins_as_another_ones_is_never_taken_for_it(tmp_path: Path) -> None:
    _table(tmp_path, **{A: 1})
    Rejects(str(tmp_path / "rejects.lance"), "run").write(
        [Rejected(A, "u", "audio", "v", "decode", "DecodeError", "bad")], "/c"
    )
    dead = pa.table({"source_id": [A], "uri": ["u"], "modality": ["audio"], "corpus": ["/c"]})
    Tombstones(str(tmp_path / "deleted.lance")).add(dead, "run", None)
    held, words = _holdings(tmp_path), id_words(pa.array([A, B, C]))

    def of(state: np.ndarray) -> np.ndarray:
        return np.repeat(state, 3)

    assert held.items.compare(words, of(state_hash(pa.array(["v"]), "r"))).tolist() == [SAME, OTHER, ABSENT]
    assert held.rejects.compare(words, of(state_hash(pa.array(["v"]), ""))).tolist() == [SAME, OTHER, ABSENT]
    assert (held.deleted.compare(words, np.zeros(3, np.uint64)) == SAME).tolist() == [True, False, False]
    _, marks = held.labels.runs[0]
    assert (held.labels.compare(words, of(marks ^ words[1][:1])) == SAME).tolist() == [True, False, False]


def test_a_source_that_lost_a_segment_to_someone_else_is_not_the_same_any_more(tmp_path: Path) -> None:
    uri = _table(tmp_path, **{A: 3, B: 3, C: 1})
    words, states = id_words(pa.array([A, B, C])), np.repeat(state_hash(pa.array(["v"]), "r"), 3)
    assert _holdings(tmp_path).items.compare(words, states).tolist() == [SAME, SAME, SAME]
    lance.dataset(uri).delete(f"item_id = '{B}1'")
    assert _holdings(tmp_path).items.compare(words, states).tolist() == [SAME, OTHER, SAME]
