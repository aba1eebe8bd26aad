"""A table as a map: near means alike. In: an index. Out: its items in two dimensions, as a DataFrame, a picture, a page.

N items, D dimension.
"""

from __future__ import annotations

import colorsys
import html
import importlib.util
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from encoders.algebra import units
from pipelines.damage import batches_where
from pipelines.filters import conjunction, explained, is_in
from pipelines.hits import data_uri, templates
from pipelines.index import Index
from pipelines.table import RESERVED_COLUMNS, VECTOR, open_table, vectors_of

Method = Literal["umap", "pca"]

UMAP_FROM = 100  # items; of fewer, UMAP makes up what is not there
MAX_COLOURS = 40  # values of a label; more are no legend that anybody reads
MAX_THUMBNAILS = 2000  # items; a larger map names its items only
THUMBNAIL = (72, 72)  # pixels at most
_SHOWN = ("item_id", "uri", "modality", "text", "preview")
_TAKE = 5000  # rows at a time, by their ids
_MARKERS = "o^sDvP*X<>"
_LEGEND_ROWS = 24
_TEN = [to_rgb(colour) for colour in mpl.color_sequences["tab10"]]


@dataclass(frozen=True)
class TableMap:
    """Items of a table in two dimensions; in a notebook it shows itself.

    Attributes:
        points: a row an item: `x`, `y`, `item_id`, `uri`, `modality`, `text`, `preview`, then the labels.
        labels: the table's own columns that can colour the map.
        method: how the dimensions were brought down to two.
        count: how many items there were to draw from.
    """

    points: pd.DataFrame
    labels: Sequence[str]
    method: Method
    count: int

    def to_pandas(self) -> pd.DataFrame:
        """The points."""
        return self.points

    def picture(self, by: Sequence[str] | None = None) -> bytes:
        """A PNG with a panel for each column to colour by; `modality` and the first label by default.

        Raises:
            ValueError: a column that is neither `modality` nor one of `labels`.
        """
        columns = list(by) if by is not None else ["modality", *self.labels[:1]]
        unknown = [name for name in columns if name not in ("modality", *self.labels)]
        if unknown or not columns:
            raise ValueError(f"by={by!r}: this map can be coloured by {', '.join(['modality', *self.labels])}")
        figure = Figure(figsize=(6.4 * len(columns), 5.2), layout="constrained")
        panels = figure.subplots(1, len(columns), squeeze=False)[0]
        for panel, column in zip(panels, columns, strict=True):
            self._draw(panel, column)
        figure.suptitle(self._title(), fontsize=10)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()

    def page(self) -> str:
        """One HTML page to look around in: hover, zoom, colour by any label, the first to begin with; it needs no network."""
        points = self.points
        shown = len(points) <= MAX_THUMBNAILS
        pictures = [_thumbnail(preview) for preview in points["preview"]] if shown else []
        data = {
            "x": points["x"].round(4).tolist(),
            "y": points["y"].round(4).tolist(),
            "names": [str(uri).rstrip("/").rpartition("/")[2] for uri in points["uri"]],
            "texts": [str(text)[:200] if isinstance(text, str) else "" for text in points["text"]],
            "pictures": pictures,
            "columns": [{"name": name, **_coloured(_coded(points[name]))} for name in (*self.labels, "modality")],
        }
        template = templates(Path(__file__).parent).get_template("table_map.html.jinja")
        return template.render(data=data, title=self._title())

    def _repr_html_(self) -> str:
        page = html.escape(self.page())
        return f'<iframe srcdoc="{page}" sandbox="allow-scripts" style="width:100%;height:560px;border:0"></iframe>'

    def _title(self) -> str:
        part = "" if len(self.points) == self.count else f" of {self.count:,}, drawn by lot"
        return f"{len(self.points):,} items{part}, by {self.method.upper()}"

    def _draw(self, panel: Any, column: str) -> None:
        coded, modalities = _coded(self.points[column]), _coded(self.points["modality"])
        codes, kinds = np.array(coded["codes"], int), np.array(modalities["codes"], int)
        for code, value in enumerate(coded["values"]):
            colour = _colour(code, len(coded["values"]))
            for kind in np.unique(kinds[codes == code]):
                found = self.points[(codes == code) & (kinds == kind)]
                panel.scatter(found["x"], found["y"], s=9, color=[colour], marker=_MARKERS[kind % len(_MARKERS)], linewidths=0)
            panel.scatter([], [], s=22, color=[colour], label=value)  # for the legend
        panel.set(xticks=[], yticks=[], title=f"by {column}")
        long = 1 + (len(coded["values"]) - 1) // _LEGEND_ROWS
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8, ncols=long, handletextpad=0.1)


@dataclass(frozen=True)
class Items:
    """What a map is made of: the items' rows, how many there were to draw from, the columns to colour by, the method."""

    rows: pa.Table
    count: int
    labels: Sequence[str]
    method: Method


def map_table(
    index: Index,
    labels: Sequence[str] | None = None,
    modality: str | Sequence[str] | None = None,
    where: str | None = None,
    limit: int = 5000,
    method: Method | None = None,
    centred: bool = True,
    seed: int = 0,
) -> TableMap:
    """Lay the items of a table out in two dimensions, so that neighbours in the space are neighbours on the map.

    Args:
        index: the table.
        labels: its columns to colour by; by default its own ones of 2 to MAX_COLOURS different words or whole numbers.
        modality: only items of this modality, or of these.
        where: an SQL condition on the table's columns.
        limit: how many items at most; of more, so many are drawn by lot.
        method: "umap" (McInnes, Healy and Melville 2018, by cosine), or "pca", the two directions that differ most. By default
            UMAP, if it is installed (`bindery[notebook]`) and there are UMAP_FROM items or more.
        centred: take the mean of each modality away first. Without that a map shows modalities as islands: each keeps to a
            corner of the space of its own, whatever its items show (Liang and others 2022, "Mind the gap").
        seed: of the lot and of UMAP.

    Raises:
        ValueError: nothing to map, an unknown label or method, or a `where` that is no condition.
    """
    items = map_items(index, labels, modality, where, limit, method, seed, [*_SHOWN, VECTOR])
    points: pd.DataFrame = items.rows.drop_columns([VECTOR]).to_pandas()
    vectors_ND = units(vectors_of(items.rows))
    if centred:
        for _, group in points.groupby("modality"):
            vectors_ND[group.index] -= vectors_ND[group.index].mean(axis=0)
    place_N2 = _by_umap(vectors_ND, seed) if items.method == "umap" else _by_pca(vectors_ND)
    points.insert(0, "x", place_N2[:, 0])
    points.insert(1, "y", place_N2[:, 1])
    kept = points[["x", "y", *_SHOWN, *(name for name in items.labels if name not in _SHOWN)]]
    return TableMap(kept, items.labels, items.method, items.count)


def map_items(
    index: Index,
    labels: Sequence[str] | None = None,
    modality: str | Sequence[str] | None = None,
    where: str | None = None,
    limit: int = 5000,
    method: Method | None = None,
    seed: int = 0,
    columns: Sequence[str] = ("modality",),  # one at least: rows of no columns are none
) -> Items:
    """What `map_table` would draw of the same arguments, with these columns and those to colour by; it raises the same."""
    if limit < 1 or method not in (None, *get_args(Method)):
        raise ValueError(f"limit={limit}, method={method!r}: at least 1 item, by one of {', '.join(get_args(Method))}")
    names = [modality] if isinstance(modality, str) else modality
    condition = conjunction(where, *([is_in("modality", names)] if names is not None else []))
    given = list(labels) if labels is not None else [name for name in index.columns if name not in RESERVED_COLUMNS]
    unknown = [name for name in given if name not in index.columns or name in (VECTOR, "preview")]
    if unknown or isinstance(labels, str):
        raise ValueError(f"labels={labels!r}: give a list of columns that hold words or numbers, of {', '.join(index.columns)}")
    with explained(where, index.columns):
        rows, count = _drawn(open_table(index.uri), condition, list(dict.fromkeys([*columns, *given])), limit, seed)
    if not count:
        raise ValueError(f"{index.uri} has no items to map" + (f" with {condition}" if condition else ""))
    words = rows.select(given).to_pandas()
    chosen = given if labels is not None else [name for name in given if _is_label(words[name])]
    return Items(rows, count, chosen, _method(method, len(rows)))


def _method(asked: Method | None, items: int) -> Method:
    """How so many items are brought down to two dimensions; ValueError where UMAP is asked for and cannot do it."""
    installed = importlib.util.find_spec("umap") is not None
    if asked is None:
        return "umap" if installed and items >= UMAP_FROM else "pca"
    if asked == "umap" and not installed:
        raise ValueError("UMAP is not installed; `pip install 'bindery[notebook]'`, or method='pca'")
    if asked == "umap" and items < 5:
        raise ValueError(f"{items} items are too few for UMAP; method='pca' takes any number")
    return asked


def _drawn(dataset: Any, condition: str | None, columns: list[str], limit: int, seed: int) -> tuple[pa.Table, int]:
    """At most `limit` rows that fulfil the condition, each as likely as any other, and how many do."""
    lots = np.random.default_rng(seed)
    ids, lot, count = np.empty(0, np.uint64), np.empty(0), 0
    for batch in batches_where(dataset, condition, columns=[], with_row_id=True, scan_in_order=True):
        count += batch.num_rows
        ids, lot = np.append(ids, batch["_rowid"].to_numpy()), np.append(lot, lots.random(batch.num_rows))
        if len(ids) > limit:
            kept = np.argpartition(lot, limit)[:limit]
            ids, lot = ids[kept], lot[kept]
    ids.sort()
    slices = [ids[start : start + _TAKE] for start in range(0, max(1, len(ids)), _TAKE)]
    conditions = [f"_rowid IN ({', '.join(map(str, some)) or '0'})" for some in slices]
    return pa.concat_tables([dataset.to_table(columns=columns, filter=one) for one in conditions]), count


def _by_pca(vectors_ND: np.ndarray) -> np.ndarray:
    """float64 (N, 2): along the two directions of most variance, the larger first; all 0 for a single item."""
    spread_ND = np.asarray(vectors_ND - vectors_ND.mean(axis=0), np.float64)
    _, directions_DD = np.linalg.eigh(spread_ND.T @ spread_ND)
    place_N2: np.ndarray = spread_ND @ directions_DD[:, :-3:-1]
    return place_N2 * np.where(np.abs(place_N2.min(axis=0)) > place_N2.max(axis=0), -1, 1)  # the same way round every time


def _by_umap(vectors_ND: np.ndarray, seed: int) -> np.ndarray:
    """float32 (N, 2)."""
    neighbours = min(15, len(vectors_ND) - 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress")  # in notebooks, of a progress bar that is not shown
        umap = importlib.import_module("umap")
    reducer = umap.UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1)
    return reducer.fit_transform(vectors_ND)  # type: ignore[no-any-return]


def _is_label(values: pd.Series[Any]) -> bool:
    kinds = {type(value) for value in values.dropna()}
    return kinds <= {str, int, bool} and 2 <= values.nunique() <= MAX_COLOURS


def _coded(values: pd.Series[Any]) -> dict[str, list[Any]]:
    """The different values in order, and of each row which it has; of too many the rarest are "other", null is "none"."""
    texts = values.map(str, na_action="ignore").fillna("none")
    common = texts.value_counts().index[: MAX_COLOURS - 1] if texts.nunique() > MAX_COLOURS else texts.unique()
    known = texts.where(texts.isin(common), "other")
    names = sorted(known.unique())
    return {"values": names, "codes": known.map({name: code for code, name in enumerate(names)}).tolist()}


def _colour(code: int, count: int) -> tuple[float, float, float]:
    """Of the value `code` of `count`: matplotlib's ten, or hues all around, each lighter or darker than its neighbours."""
    if count <= len(_TEN):
        return _TEN[code]
    return colorsys.hls_to_rgb(code * 0.2247 % 1, (0.62, 0.34, 0.54, 0.24, 0.44)[code % 5], 0.7)


def _coloured(coded: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """With a colour for each value, as browsers write it."""
    count = len(coded["values"])
    return {**coded, "colours": [to_hex(_colour(code, count)) for code in range(count)]}


def _thumbnail(preview: bytes | None) -> str:
    """The preview, smaller, as a data URI; "" without one."""
    if not preview:
        return ""
    with Image.open(io.BytesIO(preview)) as picture:
        small = picture.convert("RGB")
    small.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=60)
    return data_uri(buffer.getvalue(), "image/jpeg")
