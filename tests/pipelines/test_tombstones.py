"""What was deleted for good is remembered by its hash."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.identity import source_id
from pipelines.known import ABSENT, SAME, id_words
from pipelines.tombstones import Tombstones


def _sources(*uris: str) -> pa.Table:
    count = len(uris)
    ids = [source_id(uri, "image") for uri in uris]
    return pa.table({"source_id": ids, "uri": list(uris), "modality": ["image"] * count, "corpus": ["/c"] * count})


def _verdicts(tombstones: Tombstones, *uris: str) -> list[int]:
    words = id_words(_sources(*uris)["source_id"])
    verdicts: list[int] = tombstones.known().compare(words, np.zeros(len(uris), np.uint64)).tolist()
    return verdicts


def test_a_source_is_deleted_once_however_often_that_is_said_and_until_it_is_lifted(tmp_path: Path) -> None:
    tombstones = Tombstones(str(tmp_path / "media__deleted.lance"))
    assert _verdicts(tombstones, "/c/a") == [ABSENT]
    tombstones.add(_sources("/c/a", "/c/b"), "first", "asked for")
    tombstones.add(_sources("/c/b"), "second", None)
    assert _verdicts(tombstones, "/c/a", "/c/b", "/c/c") == [SAME, SAME, ABSENT]
    assert tombstones.find("uri LIKE '/c/%'").num_rows == 2
    tombstones.lift([source_id("/c/a", "image")])
    assert _verdicts(tombstones, "/c/a", "/c/b") == [ABSENT, SAME]
