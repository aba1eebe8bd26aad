"""New labels on old rows: found by one pass, in portions, whatever was deleted between them."""

from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from pipelines.labels import relabelled_rows


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_the_rows_of_a_corpus_get_their_labels_and_stay_as_they_are(tmp_path: Path, at_once: int) -> None:
    rows = [
        {
            "item_id": f"{source}{segment}",
            "source_id": source,
            "corpus": "/c" if source != "other" else "/d",
            "label": "old",
            "n": k,
        }
        for k, (source, segment) in enumerate((s, g) for s in ("a", "b", "other", "d", "e") for g in range(4))
    ]
    dataset: Any = lance.write_dataset(
        pa.Table.from_pylist(rows), str(tmp_path / "t.lance"), max_rows_per_file=7, enable_stable_row_ids=True
    )
    dataset.delete("item_id IN ('a0', 'b2', 'other1', 'e0')")
    labels = pa.table({"source_id": ["e", "b", "other", "none"], "label": ["E", "B", "O", "N"]})
    portions = list(relabelled_rows(dataset, labels, "/c", at_once))
    assert max(portion.num_rows for portion in portions) <= at_once
    found = {row["item_id"]: (row["label"], row["n"]) for portion in portions for row in portion.to_pylist()}
    assert found == {
        f"{s}{g}": (s.upper(), n) for s, g, n in (("b", 0, 4), ("b", 1, 5), ("b", 3, 7), *(("e", g, 16 + g) for g in (1, 2, 3)))
    }
