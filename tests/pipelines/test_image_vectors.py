"""The frozen tower's vectors: taken from a table, completed by the ordinary pipeline, row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoders import load_space
from pipelines.demo_world import scene, write_corpus
from pipelines.image_vectors import image_vectors

SCENES = 12


@pytest.mark.slow
def test_images_that_a_table_holds_are_taken_and_others_embedded_and_kept(tmp_path: Path, ray_local: None) -> None:
    space = load_space("demo")
    write_corpus(str(tmp_path), [scene(700 + i) for i in range(SCENES)], ["image"])
    files = [path.relative_to(tmp_path).as_posix() for path in sorted((tmp_path / "image").iterdir())]
    (tmp_path / "image" / "junk.jpg").write_bytes(b"not a picture")
    manifest, db = f"{tmp_path}/pairs.parquet", f"{tmp_path}/db"
    rows = [files[2], None, files[0], "image/junk.jpg", files[2], (tmp_path / files[5]).read_bytes(), "image/absent.jpg"]

    first = image_vectors(rows, manifest, space, db)

    expected = space.embed("image", [tmp_path / files[k] for k in (2, 0, 2, 5)])
    np.testing.assert_allclose(first.vectors[[0, 2, 4, 5]], expected, atol=1e-5)
    assert np.isnan(first.vectors[[1, 3, 6]]).all()
    assert sorted(first.problems) == [1, 3, 6] and "null" in first.problems[1]
    assert first.problems[3] and "not found" in first.problems[6]
    assert (first.found, first.embedded) == (0, 3)

    second = image_vectors([*files], manifest, space, db)

    assert (second.found, second.embedded) == (2, SCENES - 2) and not second.problems
    np.testing.assert_allclose(second.vectors, space.embed("image", [tmp_path / file for file in files]), atol=1e-5)
