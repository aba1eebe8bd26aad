"""What a search found. In: rows with their similarity. Out: a DataFrame, an Arrow table, a table in text, cards in HTML."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa
from botocore.exceptions import BotoCoreError

from encoders.media.types import URI
from pipelines.storage import filesystem
from pipelines.table import RESERVED_COLUMNS

MAX_PLAYER_BYTES = 2 * 1024**2  # a sound or video larger than this is not put into the page
MAX_PAGE_BYTES = 12 * 1024**2  # of all players of one set of hits together
_PREVIEWS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}
_PLAYABLE = re.compile(r"(audio|video)/[a-z0-9.+-]+")
# Moved away, not allowed, no way there (which boto says by an error of its own), no such protocol here.
_UNREADABLE = (OSError, BotoCoreError, ValueError, ImportError)
_WIDEST = {"#": 9, "similarity": 9, "modality": 12, "name": 28, "what": 40, "labels": 120}  # characters, in a terminal's table


@dataclass(frozen=True)
class Card:
    """One hit, ready to be shown; empty strings for what there is not."""

    similarity: float
    modality: str
    name: str
    uri: str
    link: str  # the uri where a browser can follow it
    facts: str
    text: str
    preview: str  # a data URI
    player: str  # "audio" or "video"
    media: str  # a data URI
    labels: tuple[tuple[str, str], ...]  # the table's own columns


@dataclass(frozen=True)
class Hits:
    """Items found, best first.

    Attributes:
        rows: `similarity` (the cosine, in [-1, 1]), then the table's columns.
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

    def cards(self) -> list[Card]:
        """The hits ready to be shown; reads sounds and videos that are small enough to play."""
        budget, cards = MAX_PAGE_BYTES, []
        for row in self:
            media = _media(row, min(budget, MAX_PLAYER_BYTES))
            budget -= len(media)
            cards.append(_card(row, media))
        return cards

    def __repr__(self) -> str:
        heading = f"{len(self)} hits for {_plain(self.query)}"
        if not len(self):
            return heading
        lines = [tuple(_WIDEST)]
        for number, row in enumerate(self, 1):
            labels = " ".join(f"{name}={value}" for name, value in _labels(row))
            what = "; ".join(part for part in (str(row.get("text") or ""), _facts(row)) if part)
            cells = (str(number), f"{row['similarity']:.3f}", str(row.get("modality", "")), _name(row), what, labels)
            lines.append(tuple(_cut(cell, widest) for cell, widest in zip(cells, _WIDEST.values(), strict=True)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        fitted = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        return "\n".join([heading, *fitted])

    def _repr_html_(self) -> str:
        """Cards with pictures and players, for notebooks; needs nothing from the network."""
        return templates(Path(__file__).parent).get_template("hits.html.jinja").render(query=self.query, cards=self.cards())


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
    uri = str(row.get("uri") or "")
    mime = str(row.get("mime") or "")
    return Card(
        similarity=row["similarity"],
        modality=str(row.get("modality") or ""),
        name=_name(row),
        uri=uri,
        link=uri if uri.startswith(("http://", "https://")) else "",
        facts=_facts(row),
        text=str(row.get("text") or ""),
        preview=preview_uri(row.get("preview")),
        player=mime.partition("/")[0] if media else "",
        media=data_uri(media, mime) if media else "",
        labels=tuple(_labels(row)),
    )


def _media(row: Mapping[str, Any], limit: int) -> bytes:
    """The bytes of a sound or video that can be played from the page; b"" if large, remote over http, or not readable."""
    uri, mime, size = str(row.get("uri") or ""), str(row.get("mime") or ""), row.get("size_bytes")
    if not _PLAYABLE.fullmatch(mime) or size is None or not 0 < size <= limit or uri.startswith(("http://", "https://")):
        return b""
    try:
        files, path = filesystem(uri)
        data: bytes = files.cat_file(path, start=0, end=limit + 1)
    except _UNREADABLE:
        return b""
    return data if len(data) <= limit else b""


def _labels(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The manifest's own columns, with a value short enough to read."""
    for name, value in row.items():
        if name not in RESERVED_COLUMNS and name != "similarity" and isinstance(value, str | int | float | bool):
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
