"""Two tables cannot share a commit: what a crash between them leaves is seen by no reader, and is gone after the next run."""

import io
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines import open_index
from pipelines.embed import EmbedSettings, embed
from pipelines.rejects import Rejected, Rejects, valid_rejects
from pipelines.report import EmbedReport
from pipelines.table import open_table, table_uri


def _picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), shade, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def _run(folder: Path, db: Path) -> EmbedReport:
    report = embed(EmbedSettings(corpus=str(folder), db=str(db), max_reject_rate=1.0))
    assert report.failures == []
    return report


def _all_rejects(db: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lance.dataset(table_uri(str(db), "media__rejects")).to_table().to_pylist()
    return rows


@pytest.mark.usefixtures("ray_local")
def test_after_a_crash_between_items_and_rejects_readers_see_no_stale_reject_and_the_next_run_clears_it(tmp_path: Path) -> None:
    folder, db = tmp_path / "media", tmp_path / "db"
    folder.mkdir()
    (folder / "mended.jpg").write_bytes(_picture(10)[:200])
    (folder / "broken.jpg").write_bytes(_picture(20)[:200])
    (folder / "what.bin.jpg.txt").write_bytes(b"words")
    assert _run(folder, db).tally.rejected == 2
    before = lance.dataset(table_uri(str(db), "media__rejects")).version
    assert sorted(Path(uri).name for uri in open_index(str(db)).rejects()["uri"]) == ["broken.jpg", "mended.jpg"]

    (folder / "mended.jpg").write_bytes(_picture(10))
    stale = next(row for row in _all_rejects(db) if row["uri"].endswith("mended.jpg"))
    assert _run(folder, db).tally.embedded == 1
    lance.dataset(table_uri(str(db), "media__rejects"), version=before).restore()  # as if the driver had died before it cleared
    item = lance.dataset(table_uri(str(db), "media")).to_table(filter=f"source_id = '{stale['source_id']}'").to_pylist()[0]
    again = Rejected(stale["source_id"], stale["uri"], stale["modality"], item["version"], "decode", "DecodeError", "")
    Rejects(table_uri(str(db), "media__rejects"), "late").write([again], stale["corpus"])  # or a paused one had written late
    assert len(_all_rejects(db)) == 2
    seen = open_index(str(db)).rejects()
    assert [Path(uri).name for uri in seen["uri"]] == ["broken.jpg"] and seen["attempts"].tolist() == [1]

    assert _run(folder, db).tally.unchanged == 2
    assert [Path(row["uri"]).name for row in _all_rejects(db)] == ["broken.jpg"]


def test_a_reject_of_other_bytes_than_the_table_holds_is_no_stale_one(tmp_path: Path) -> None:
    items = lance.write_dataset(
        pa.table({"source_id": ["a" * 32, "b" * 32], "uri": ["/a", "/b"], "version": ["1", "1"]}), str(tmp_path / "items.lance")
    )
    uri = str(tmp_path / "rejects.lance")
    assert valid_rejects(open_table(uri), items).num_rows == 0, "there may be no such table"
    found = [
        Rejected("a" * 32, "/a", "image", "2", "decode", "DecodeError", "newer bytes"),
        Rejected("b" * 32, "/b", "image", "1", "decode", "DecodeError", "stale"),
        Rejected("c" * 32, "/b", "", "1", "identify", "AmbiguousMedia", "stale: it is known now"),
        Rejected("d" * 32, "/b", "audio", "1", "decode", "DecodeError", "its sound"),
    ]
    Rejects(uri, "run").write(found, "/")
    assert valid_rejects(open_table(uri), items)["message"].to_pylist() == ["newer bytes", "its sound"]
    assert valid_rejects(open_table(uri), None).num_rows == 4
