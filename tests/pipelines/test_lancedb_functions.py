"""Plain LanceDB over a table of ours, with nothing but an import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.embeddings import EmbeddingFunctionConfig, get_registry
from PIL import Image
from searchable import make_media, make_space, rows_of, write_table

from encoders import URI, DecodeError
from encoders.space import Space
from pipelines.lancedb_functions import BinderyFunction, modality_of
from pipelines.table import item_schema

Media = list[tuple[str, Path]]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return make_space(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Media:
    return make_media(tmp_path_factory.mktemp("media"), 4)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory, space: Space, media: Media) -> str:
    folder = tmp_path_factory.mktemp("db")
    write_table(folder, rows_of(space, media))
    return str(folder)


def nearest(db: str, query: object) -> tuple[str, float]:
    row = lancedb.connect(db).open_table("media").search(query).distance_type("cosine").limit(1).to_list()[0]
    return row["uri"], row["_distance"]


def test_words_work_in_a_fresh_process(db: str, space: Space) -> None:
    program = (
        "import lancedb, pipelines.lancedb_functions;"
        f"print(lancedb.connect({db!r}).open_table('media').search('dog barking').limit(3).to_pandas()['item_id'].to_json())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    by_vector = lancedb.connect(db).open_table("media").search(space.embed("text", ["dog barking"])[0]).limit(3).to_pandas()
    assert json.loads(done.stdout) == json.loads(by_vector["item_id"].to_json())


def test_media_are_judged_one_by_one(db: str, media: Media) -> None:
    (_, image), (_, text), (_, audio), _ = media[:4]
    for query in (image, URI(str(image)), image.read_bytes(), Image.open(image)):
        assert nearest(db, query) == (str(image), pytest.approx(0, abs=1e-5))
    for query in (audio, audio.read_bytes()):
        assert nearest(db, query) == (str(audio), pytest.approx(0, abs=1e-5))
    assert nearest(db, text)[1] == pytest.approx(0, abs=1e-5)


def test_a_str_is_text_even_where_it_names_a_file(media: Media) -> None:
    assert modality_of(str(media[0][1]), ["image", "text"]) == "text"


def test_bytes_that_do_not_tell_are_refused_at_once(db: str, media: Media) -> None:
    trace = dict(media)["imu"]
    with pytest.raises(DecodeError, match=r"search\(imu="):
        nearest(db, trace)
    with pytest.raises(DecodeError):
        nearest(db, b"\xff\xd8\xff damaged")


def test_a_folder_tells_what_bytes_do_not(db: str, media: Media, tmp_path: Path) -> None:
    (tmp_path / "imu" / "deeper").mkdir(parents=True)
    trace, told = dict(media)["imu"], tmp_path / "imu" / "deeper" / "0.npy"
    told.write_bytes(trace.read_bytes())
    for query in (told, URI(str(told))):
        assert nearest(db, query) == (str(trace), pytest.approx(0, abs=1e-5))
    picture = tmp_path / "imu" / "picture.png"  # bytes are believed first
    picture.write_bytes(dict(media)["image"].read_bytes())
    assert nearest(db, picture) == (str(dict(media)["image"]), pytest.approx(0, abs=1e-5))


def test_texts_of_the_source_column_become_vectors(space: Space) -> None:
    function = BinderyFunction.create(space=space.uri)
    made = function.compute_source_embeddings_with_retry(pa.array(["dog", None, "bell"]))
    assert made[1] is None and function.ndims() == 128
    np.testing.assert_allclose(np.stack([made[0], made[2]]), space.embed("text", ["dog", "bell"]), atol=1e-6)


def test_the_metadata_that_tables_carry_is_what_lancedb_would_write(space: Space) -> None:
    function = BinderyFunction.create(space=space.uri)
    theirs = get_registry().get_table_metadata(
        [EmbeddingFunctionConfig(source_column="text", vector_column="vector", function=function)]
    )
    ours = item_schema(space, pa.schema([])).metadata[b"embedding_functions"]
    assert json.loads(ours) == json.loads(theirs["embedding_functions"])
