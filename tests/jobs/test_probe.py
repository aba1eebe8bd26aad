"""A linear probe on a table: what it learns from how much, what it never mixes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from searchable import make_media, make_space, rows_of, write_table

from encoders import SpaceError
from jobs.probe import main
from pipelines.probe import probe
from pipelines.table import VECTOR

Capture = pytest.CaptureFixture[str]


def clusters(classes: int, each: int, spread: float, dim: int = 32) -> tuple[np.ndarray, list[str], list[str]]:
    """Unit vectors around a random direction for each class; every item is a source of its own."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, dim))
    rows = np.repeat(centres, each, axis=0) + spread * rng.normal(size=(classes * each, dim))
    labels = [f"class {k}" for k in range(classes) for _ in range(each)]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels, [str(k) for k in range(classes * each)]


def test_more_examples_teach_more_and_all_of_them_most() -> None:
    found = probe(*clusters(6, 40, 1.5), shots=[1, 4, 16], seeds=4)
    means = [float(np.mean(found.shots[k])) for k in (1, 4, 16)]
    assert found.chance == 1 / 6 < means[0] < means[1] < means[2] <= float(np.mean(found.full)) + 0.02
    assert means[2] > 0.85 and all(len(each) == 4 for each in (*found.shots.values(), found.full))
    assert found == probe(*clusters(6, 40, 1.5), shots=[1, 4, 16], seeds=4)


def test_labels_that_vectors_know_nothing_of_are_at_chance() -> None:
    vectors, labels, sources = clusters(5, 60, 1.0)
    wrong = list(np.random.default_rng(1).permutation(labels))
    found = probe(vectors, wrong, sources, [1, 8], 5)
    assert np.mean(found.full) == pytest.approx(0.2, abs=0.08) and np.mean(found.shots[8]) == pytest.approx(0.2, abs=0.08)


def test_parts_of_one_source_are_never_learnt_from_and_tried_on() -> None:
    rng = np.random.default_rng(0)
    films = np.repeat(rng.normal(size=(20, 64)), 10, axis=0) + 0.05 * rng.normal(size=(200, 64))  # parts are nearly the same
    films /= np.linalg.norm(films, axis=1, keepdims=True)
    labels = [("day", "night")[film % 2] for film in range(20) for _ in range(10)]  # says nothing of what the film shows
    found = probe(films, labels, [str(film) for film in range(20) for _ in range(10)], [1], 8)
    assert np.mean(found.full) < 0.75  # nearly 1 if parts of a film were on both sides


def test_what_cannot_be_learnt_from_is_left_out_and_said() -> None:
    vectors, labels, sources = clusters(3, 6, 0.5)
    labels[0] = "alone"
    found = probe(vectors, labels, sources, [1, 2, 9], 2)
    assert found.left_out == ["alone"] and list(found.shots) == [1, 2] and found.too_few == [9]
    assert found.classes == {"class 0": 5, "class 1": 6, "class 2": 6}
    with pytest.raises(SpaceError, match="smallest class has 3 sources"):
        probe(vectors, labels, sources, [9], 1)
    with pytest.raises(SpaceError, match="1 classes have at least 2 sources"):
        probe(vectors[:6], ["a"] * 5 + ["b"], sources[:6], [1], 1)
    with pytest.raises(SpaceError, match="at least 1 of each"):
        probe(vectors, labels, sources, [0], 1)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A table whose vectors tell the light of each scene; an older encoder has embedded the last two rows."""
    folder = tmp_path_factory.mktemp("probe")
    rows = rows_of(make_space(folder), make_media(folder / "media", 24))
    light = ["sea" if int(Path(uri).stem) % 2 else "rain" for uri in rows["uri"].to_pylist()]
    vectors = np.random.default_rng(0).normal(size=(len(rows), 128)).astype(np.float32)
    vectors[:, 0] += [30.0 if one == "sea" else -30.0 for one in light]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    encoders = [*rows["encoder"].to_pylist()[:-2], "0" * 32, "0" * 32]
    columns = {VECTOR: pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 128), "encoder": pa.array(encoders)}
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
    write_table(folder / "db", rows.append_column("light", pa.array(light)))
    return f"{folder}/db"


def test_a_table_is_probed_and_a_picture_is_drawn(db: str, tmp_path: Path, capsys: Capture) -> None:
    argv = ["--db", db, "--label", "light", "--modality", "audio", "--shots", "1,4", "--seeds", "3"]
    assert main([*argv, "--out", f"{tmp_path}/probe"]) == 0
    captured = capsys.readouterr()
    assert "left out: 1 row of audio that another encoder has embedded" in captured.err
    report: dict[str, Any] = json.loads(captured.out.splitlines()[-1])
    assert (report["items"], report["stale_rows"], report["classes"]) == (23, 1, {"rain": 12, "sea": 11})
    assert np.mean(report["shots"]["4"]) == np.mean(report["full"]) == 1.0 and report["chance"] == 0.5
    assert 0 <= report["zero_shot"] <= 1 and report["license"] == "CC0-1.0"
    assert (tmp_path / "probe" / "probe.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "probe" / "probe.json").read_text())["shots"] == report["shots"]
    assert main([*argv, "--where", "rating < 4"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["items"] == 10


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--label", "colour", "--modality", "audio"], "has no column 'colour'"),
        (["--label", "light", "--modality", "smell"], "no encoder for 'smell'"),
        (["--label", "light", "--modality", "image", "--where", "rating < 0"], "0 classes"),
        (["--label", "light", "--modality", "audio", "--shots", "1,few"], "whole numbers with commas"),
        (["--label", "light", "--modality", "audio", "--table", "none"], "no table 'none'"),
    ],
)
def test_what_cannot_be_probed_ends_with_2(db: str, flags: list[str], message: str, capsys: Capture) -> None:
    assert main(["--db", db, *flags]) == 2
    assert message in capsys.readouterr().err
