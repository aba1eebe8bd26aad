"""A map of a table: near means alike, every item is on it, and what is on its page cannot do anything."""

from __future__ import annotations

import importlib.util
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from html_page import Tags
from matplotlib.colors import to_rgb
from PIL import Image
from searchable import make_media, make_space, rows_of, write_table

from jobs.map import main
from pipelines import table_map as module
from pipelines.index import Index, open_index
from pipelines.table_map import map_table

EVIL = "</script><img src=x onerror=alert(1)>'\"<!--"


def replaced(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    field = rows.schema.field(name)
    return rows.set_column(rows.schema.get_field_index(name), field, pa.array(values, field.type))


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> str:
    """32 items: of each modality four near the first axis of the space and four near the second, which `thing` tells."""
    folder = tmp_path_factory.mktemp("db")
    rows = rows_of(make_space(folder), make_media(folder / "media", 8))
    side = np.arange(rows.num_rows) // 4 % 2  # four modalities a number
    vectors = np.random.default_rng(0).normal(0, 0.05, (rows.num_rows, 128)).astype(np.float32)
    vectors[np.arange(rows.num_rows), side] += 1
    names = ["left" if one == 0 else "right" for one in side]
    write_table(folder, replaced(replaced(rows, "vector", vectors.tolist()), "thing", names))
    return str(folder)


@pytest.fixture(scope="module")
def index(db: str) -> Index:
    return open_index(db)


def data_of(page: str) -> dict[str, list]:
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert held
    return json.loads(held[1])


def test_near_means_alike_whatever_the_modality(index: Index) -> None:
    points = map_table(index, method="pca").to_pandas()
    left, right = (points[points["thing"] == side]["x"] for side in ("left", "right"))
    assert len(left) == len(right) == 16
    assert left.max() < right.min() or right.max() < left.min()


def test_a_map_is_the_same_every_time(index: Index) -> None:
    first, second = (map_table(index, method="pca", limit=20, seed=3).to_pandas() for _ in range(2))
    assert first.equals(second) and len(first) == 20
    other = map_table(index, method="pca", limit=20, seed=4).to_pandas()
    assert set(other["item_id"]) != set(first["item_id"])


def test_a_filter_keeps_only_what_fulfils_it(index: Index) -> None:
    found = map_table(index, ["thing"], modality=["image", "audio"], where="thing = 'left'", limit=5)
    assert set(found.points["modality"]) <= {"image", "audio"} and set(found.points["thing"]) == {"left"}
    assert len(found.points) == 5 and found.count == 8


def test_labels_are_own_columns_of_few_values_unless_given(index: Index) -> None:
    assert map_table(index, method="pca").labels == ["thing"]  # `score` holds numbers that are not whole
    assert map_table(index, labels=["rating", "modality"], method="pca").labels == ["rating", "modality"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_items_make_a_map_too(index: Index, count: int) -> None:
    found = map_table(index, limit=count)
    assert len(found.points) == count and found.method == "pca" and np.isfinite(found.points[["x", "y"]].to_numpy()).all()
    assert len(data_of(found.page())["x"]) == count
    assert count > 1 or found.picture()


def test_the_picture_is_a_png_with_a_panel_for_each_column(index: Index) -> None:
    found = map_table(index, method="pca")
    one, two = (Image.open(io.BytesIO(found.picture(by))) for by in (["thing"], ["modality", "thing"]))
    assert one.format == "PNG" and two.width == 2 * one.width and two.height == one.height


def test_the_page_holds_every_item_and_needs_nothing_from_outside(index: Index) -> None:
    page = map_table(index, method="pca").page()
    data = data_of(page)
    assert len(data["x"]) == len(data["names"]) == len(data["pictures"]) == 32
    assert sum(picture.startswith("data:image/jpeg;base64,") for picture in data["pictures"]) == 24  # all but the texts
    assert [column["name"] for column in data["columns"]] == ["thing", "modality"], "the first is what the page shows"
    assert data["columns"][1]["values"] == ["audio", "image", "imu", "text"]
    tags = Tags(page).found
    assert not [tag for tag, attributes in tags if "src" in attributes or "href" in attributes]
    assert any("default-src 'none'" in (attributes.get("content") or "") for _, attributes in tags)


def test_no_two_values_of_a_legend_look_alike(index: Index) -> None:
    for limit in (8, 24, 32):  # of so many values
        column = data_of(map_table(index, labels=["uri"], limit=limit, method="pca").page())["columns"][0]
        shades = np.array([to_rgb(colour) for colour in column["colours"]])
        assert len(shades) == len(column["values"]) == limit
        apart = np.linalg.norm(shades[:, None] - shades, axis=2) + np.eye(limit)
        assert apart.min() > 0.15  # of 1.7 between black and white


def test_what_a_page_holds_stays_data(index: Index, tmp_path: Path) -> None:
    rows = rows_of(index.space, make_media(tmp_path / "media", 1))
    evil = [EVIL] * rows.num_rows
    write_table(tmp_path, replaced(replaced(rows, "thing", evil), "text", evil))
    found = map_table(open_index(str(tmp_path), space=index.space), labels=["thing"])
    data = data_of(found.page())
    assert data["columns"][0]["values"] == [EVIL] and data["texts"] == [EVIL] * 4
    assert [tag for tag, _ in Tags(found.page()).found if tag == "img"] == []
    frame = Tags(found._repr_html_()).found
    assert [tag for tag, _ in frame] == ["iframe"] and frame[0][1]["sandbox"] == "allow-scripts"


def test_of_too_many_values_the_rarest_are_other(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COLOURS", 3)
    column = data_of(map_table(index, labels=["uri"], limit=10).page())["columns"][0]
    assert len(column["values"]) == 3 and column["values"].count("other") == 1
    assert len(column["codes"]) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"where": "nosuch = 1"}, "the columns are"),
        ({"where": "true) OR (true"}, "parentheses"),
        ({"where": "thing = 'nobody'"}, "no items"),
        ({"modality": "smell"}, "no items"),
        ({"labels": ["nosuch"]}, "give a list of columns"),
        ({"labels": "thing"}, "give a list of columns"),
        ({"labels": ["vector"]}, "give a list of columns"),
        ({"limit": 0}, "at least 1"),
        ({"method": "tsne"}, "umap, pca"),
    ],
)
def test_bad_input_is_told(index: Index, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        map_table(index, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="coloured by modality, thing"):
        map_table(index, method="pca").picture(["nosuch"])


def test_umap_is_asked_for_by_name_only_where_it_can_be_had(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("umap"):
        with pytest.raises(ValueError, match="too few"):
            map_table(index, method="umap", limit=4)
    monkeypatch.setattr(module, "UMAP_FROM", 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert map_table(index).method == "pca"
    with pytest.raises(ValueError, match="pip install"):
        map_table(index, method="umap")


@pytest.mark.slow
def test_umap_keeps_what_is_alike_together(index: Index) -> None:
    points = map_table(index, method="umap").to_pandas()
    places = points[["x", "y"]].to_numpy()
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (points["thing"].to_numpy()[distance.argmin(axis=1)] == points["thing"]).all()


@pytest.mark.parametrize(("name", "begins"), [("map.html", b"<!doctype html>"), ("map.png", b"\x89PNG")])
def test_the_verb_writes_a_page_or_a_picture(
    db: str, tmp_path: Path, name: str, begins: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--db", db, "--out", str(tmp_path / "new" / name), "--labels", "thing", "--modality", "image,imu"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    written = (tmp_path / "new" / name).read_bytes()
    assert written.startswith(begins) and report["bytes"] == len(written)
    assert (report["items"], report["of"], report["method"]) == (16, 16, "pca")


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--out", "map.pdf"], ".png"), (["--out", "a.png", "--table", "x"], "no table")]
)
def test_the_verb_refuses_what_it_cannot_do(
    db: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--db", db, *arguments]) == 2
    assert message in capsys.readouterr().err
