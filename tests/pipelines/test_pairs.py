"""Pairs: what is whole becomes features in the manifest's order, what is not is dropped and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoders import build_encoder
from pipelines.demo_world import scene, write_corpus
from pipelines.pairs import BLOCK_ROWS, PairsError, prepare_pairs, read_manifest

SCENES = BLOCK_ROWS + 4  # two blocks


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_corpus(str(folder), [scene(500 + i) for i in range(SCENES)], ["image", "imu"])
    return folder


def test_a_manifest_without_a_modality_is_refused_by_the_name_of_its_column(corpus: Path) -> None:
    with pytest.raises(PairsError, match=r"no column 'audio'; it has .*image"):
        read_manifest(f"{corpus}/pairs.parquet", ["image", "audio"])
    with pytest.raises(PairsError, match="no pairs manifest at"):
        read_manifest(f"{corpus}/none.parquet", ["image"])
    with pytest.raises(PairsError, match="no pairs manifest at"):
        read_manifest(str(corpus), ["image"])
    (corpus / "junk.parquet").write_bytes(b"not a table at all")
    with pytest.raises(PairsError, match="cannot be read as Parquet"):
        read_manifest(f"{corpus}/junk.parquet", ["image"])


def test_an_optional_column_is_read_where_it_is(corpus: Path) -> None:
    assert read_manifest(f"{corpus}/pairs.parquet", ["image"], ["text", "audio"]).column_names == ["image", "caption"]


def test_broken_members_are_dropped_and_named_and_the_rest_is_what_the_encoder_makes_of_each_file(
    corpus: Path, ray_local: None
) -> None:
    table = pq.read_table(corpus / "pairs.parquet")
    images, traces = table["image"].to_pylist(), table["imu"].to_pylist()
    inline = (corpus / images[0]).read_bytes()
    images[3], images[5], traces[7], traces[BLOCK_ROWS + 1] = None, "image/absent.jpg", "imu/cut.csv", "imu/empty.csv"
    images[9] = str(corpus / images[9])  # an absolute path among relative ones
    (corpus / "imu/cut.csv").write_bytes((corpus / table["imu"][7].as_py()).read_bytes()[:20])
    (corpus / "imu/empty.csv").touch()
    uri = f"{corpus}/broken.parquet"
    pq.write_table(pa.table({"image": images, "imu": traces, "caption": table["caption"]}), uri)
    encoders = {"image": build_encoder("demo/image"), "imu": build_encoder("demo/imu")}

    pairs = prepare_pairs(read_manifest(uri, list(encoders)), uri, encoders)

    assert [(d.row, d.member) for d in pairs.dropped] == [(3, "image"), (5, "image"), (7, "imu"), (BLOCK_ROWS + 1, "imu")]
    assert "null" in pairs.dropped[0].message and "FileNotFoundError" in pairs.dropped[1].message
    assert "empty" in pairs.dropped[3].message
    assert (pairs.found, pairs.count) == (SCENES, SCENES - 4)
    columns = {}
    for batch in pairs.features.iter_batches(batch_size=None, batch_format="numpy"):
        columns.update(zip(batch["row"].tolist(), batch["image.image"], strict=True))
    assert sorted(columns) == [row for row in range(SCENES) if row not in {3, 5, 7, BLOCK_ROWS + 1}]
    for row in (0, 9, SCENES - 1):
        expected = encoders["image"].preprocess(corpus / images[row])["image"]
        assert columns[row].dtype == np.uint8
        np.testing.assert_array_equal(columns[row], expected)

    pq.write_table(pa.table({"image": pa.array([inline], pa.binary())}), uri)
    kept = prepare_pairs(read_manifest(uri, ["image"]), uri, {"image": encoders["image"]})
    np.testing.assert_array_equal(kept.features.take_all()[0]["image.image"], columns[0])
