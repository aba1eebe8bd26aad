"""What a search found. In: rows with their similarity. Out: DataFrames, an Arrow table, a table in text, cards in HTML."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa
from botocore.exceptions import BotoCoreError

from encoders.media.types import URI
from pipelines.reach import PUBLIC
from pipelines.table import RESERVED_COLUMNS, SEARCH_COLUMNS

if TYPE_CHECKING:
    import polars

MAX_CARDS = 100  # more hits than this are counted below the cards
MAX_PLAYER_BYTES = 2 * 1024**2  # a sound or video larger than this is not put into the page
MAX_PAGE_BYTES = 12 * 1024**2  # of all players of one set of hits together
_PREVIEWS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}
# What browsers play, and by which type: of AIFF, AVI and the like they would show a dead player.
_PLAYABLE = {
    **{kind: kind for kind in ("audio/wav", "audio/mpeg", "audio/ogg", "audio/flac", "audio/mp4", "audio/aac", "audio/webm")},
    **{kind: kind for kind in ("video/mp4", "video/webm", "video/ogg", "video/x-matroska")},
    "audio/x-wav": "audio/wav",
    "audio/x-flac": "audio/flac",
    "video/quicktime": "video/mp4",  # they refuse the name, but not what mostly is in it
}
_READERS = 8  # object stores answer in tens of milliseconds
# How a preview is to be read (encoders/media/).
_LEGENDS = {
    "audio": "the waveform",
    "depth": "near is light, far is dark, grey was not measured",
    "thermal": "hot is light, cold is dark",
    "imu": "above the acceleration, below the rotation: x red, y green, z blue",
}
# Moved away, not allowed, no way there (which boto says by an error of its own), no such protocol here.
_UNREADABLE = (OSError, BotoCoreError, ValueError, ImportError)
# Characters of each column of a terminal's table.
_WIDEST = {"#": 9, "similarity": 9, "score": 9, "modality": 12, "name": 28, "what": 40, "labels": 120}


@dataclass(frozen=True)
class Card:
    """One hit, ready to be shown; empty strings for what there is not."""

    similarity: float
    score: str  # what ordered the hits, if not the similarity
    modality: str
    name: str
    uri: str
    link: str  # the uri where a browser can follow it
    facts: str
    text: str
    preview: str  # a data URI
    legend: str  # of the preview
    player: str  # "audio" or "video"
    media: str  # a data URI
    labels: tuple[tuple[str, str], ...]  # the table's own columns


@dataclass(frozen=True)
class Hits:
    """Items found, best first.

    Attributes:
        rows: `similarity` (the cosine, in [-1, 1]), `score` where a search made one, then the table's columns.
        query: what was asked, in words.
    """

    rows: pa.Table
    query: str

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each hit as {column: value}."""
        yield from self.rows.to_pylist()

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        return self.rows

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a DataFrame."""
        frame: pd.DataFrame = self.rows.to_pandas()
        return frame

    def to_polars(self) -> polars.DataFrame:
        """The rows as a Polars DataFrame; needs `pip install 'bindery[notebook]'`."""
        import polars

        frame = polars.from_arrow(self.rows)
        assert isinstance(frame, polars.DataFrame), "a table has columns"
        return frame

    def cards(self) -> list[Card]:
        """The first MAX_CARDS hits ready to be shown; reads sounds and videos that are small enough to play."""
        rows = list(islice(self, MAX_CARDS))
        with ThreadPoolExecutor(_READERS) as readers:
            return [_card(row, media) for row, media in zip(rows, readers.map(_media, rows, _played(rows)), strict=True)]

    def __repr__(self) -> str:
        heading = f"{len(self)} {'hit' if len(self) == 1 else 'hits'} for {_plain(self.query)}"
        if not len(self):
            return heading
        lines = [tuple(_WIDEST)]
        for number, row in enumerate(self, 1):
            labels = " ".join(f"{name}={value}" for name, value in _labels(row))
            what = "; ".join(part for part in (str(row.get("text") or ""), _facts(row)) if part)
            likeness = (f"{row['similarity']:.3f}", _score(row))
            cells = (str(number), *likeness, str(row.get("modality", "")), _name(row), what, labels)
            lines.append(tuple(_cut(cell, widest) for cell, widest in zip(cells, _WIDEST.values(), strict=True)))
        if "score" not in self.rows.column_names:
            lines = [(*line[:2], *line[3:]) for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        fitted = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        return "\n".join([heading, *fitted])

    def _repr_html_(self) -> str:
        """Cards with pictures and players, for notebooks; needs nothing from the network."""
        template = templates(Path(__file__).parent).get_template("hits.html.jinja")
        return template.render(query=self.query, cards=self.cards(), count=len(self))


@cache
def templates(*folders: Path) -> jinja2.Environment:
    """Templates of these folders, found by file name; every value is escaped."""
    return jinja2.Environment(loader=jinja2.FileSystemLoader(folders), autoescape=True, undefined=jinja2.StrictUndefined)


def describe_query(given: Mapping[str, Any], weights: Mapping[str, float]) -> str:
    """The query in words: `image crane.jpg + 0.7 text "waves"`."""
    words = []
    for name, one in given.items():
        weight = weights.get(name, 1.0)
        words.append(("" if weight == 1 else f"{weight:g} ") + f"{name} {_called(one)}".rstrip())
    return " + ".join(words)


def data_uri(data: bytes, mime: str) -> str:
    """The bytes as a URI that holds them."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def preview_uri(preview: bytes | None) -> str:
    """A preview as a data URI; "" if it is not a JPEG, PNG or WebP."""
    mime = next((mime for magic, mime in _PREVIEWS.items() if (preview or b"").startswith(magic)), "")
    return data_uri(preview, mime) if preview and mime else ""


def _called(one: Any) -> str:
    if isinstance(one, str):
        return f'"{one}"'
    if isinstance(one, Path | URI):
        return one.name if isinstance(one, Path) else one.uri.rpartition("/")[2]
    if isinstance(one, bytes):
        return f"of {len(one):,} bytes"
    return f"of shape {one.shape}" if isinstance(one, np.ndarray) else ""


def _card(row: Mapping[str, Any], media: bytes) -> Card:
    uri, modality = str(row.get("uri") or ""), str(row.get("modality") or "")
    mime = _PLAYABLE.get(str(row.get("mime")), "")
    return Card(
        similarity=row["similarity"],
        score=_score(row),
        modality=modality,
        name=_name(row),
        uri=uri,
        link=uri if uri.startswith(("http://", "https://")) else "",
        facts=_facts(row),
        text=str(row.get("text") or ""),
        preview=preview_uri(row.get("preview")),
        legend=_LEGENDS.get(modality, ""),
        player=("audio" if modality == "audio" else mime.partition("/")[0]) if media else "",  # a film's soundtrack is a sound
        media=data_uri(media, mime) + _stretch(row) if media else "",
        labels=tuple(_labels(row)),
    )


def _played(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Which of the hits get a player: small sounds and videos, best first, as long as the page does not grow too large."""
    left, played = MAX_PAGE_BYTES, []
    for row in rows:
        size = row.get("size_bytes") or 0
        remote = str(row.get("uri")).startswith(("http://", "https://"))
        fits = row.get("mime") in _PLAYABLE and not remote and 0 < size <= min(left, MAX_PLAYER_BYTES)
        left -= size * fits
        played.append(fits)
    return played


def _media(row: Mapping[str, Any], played: bool) -> bytes:
    """The bytes of a sound or video that is to be played; b"" if they cannot be read, or the file has changed since."""
    if not played:
        return b""
    try:
        files = PUBLIC.store(str(row["uri"]))  # who wrote the table's URIs need not be who looks at them
        path = files._strip_protocol(str(row["uri"]))
        data: bytes = files.cat_file(path, start=0, end=row["size_bytes"] + 1)
    except _UNREADABLE:
        return b""
    return data if len(data) == row["size_bytes"] else b""


def _score(row: Mapping[str, Any]) -> str:
    return f"{row['score']:.2f}" if row.get("score") is not None else ""


def _stretch(row: Mapping[str, Any]) -> str:
    """The part of its source that a segment is, as the fragment by which players find it: `#t=5.0,10.0`."""
    start_s, end_s = row.get("start_s"), row.get("end_s")
    return "" if start_s is None or end_s is None else f"#t={start_s},{end_s}"


def _labels(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The manifest's own columns, with a value short enough to read."""
    for name, value in row.items():
        if name not in (*RESERVED_COLUMNS, *SEARCH_COLUMNS) and isinstance(value, str | int | float | bool):
            yield name, str(value)


def _facts(row: Mapping[str, Any]) -> str:
    start_s, end_s = row.get("start_s"), row.get("end_s")
    facts = [f"{start_s:.1f} to {end_s:.1f} s"] if start_s is not None and end_s is not None else []
    if not facts and row.get("duration_s") is not None:
        facts.append(f"{row['duration_s']:.1f} s")
    if row.get("width") and row.get("height"):
        facts.append(f"{row['width']} x {row['height']}")
    return ", ".join(facts)


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("uri") or row.get("item_id") or "").rstrip("/").rpartition("/")[2]


def _plain(text: str) -> str:
    """Without control characters, which could steer the reader's terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _cut(text: str, widest: int) -> str:
    plain = _plain(text)
    return plain if len(plain) <= widest else plain[: widest - 1] + "…"
