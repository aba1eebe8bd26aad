"""From what a user asks with to vectors. In: words, media, item ids, vectors, weights. Out: one unit vector a query.

Q queries, D dimension. With u_p the unit vector of part p of a query, w_p its weight, and m_p the mean vector of a
sample of the table's items of its modality:

    q = normalise(sum over p of w_p u_p)                      plain
    q = normalise(sum over p of w_p normalise(u_p - m_p))     centred
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from encoders.algebra import fuse, units
from encoders.space import Space
from pipelines.background import Background
from pipelines.damage import rows_where
from pipelines.filters import is_in
from pipelines.hits import describe_query
from pipelines.table import VECTOR, uri_of, vectors_of

Query: TypeAlias = str | Mapping[str, Any]  # words, or what `Index.search` takes as a query: {"image": Path("crane.jpg")}
_OTHER = ("item_id", "vector")


@dataclass(frozen=True)
class Asked:
    """One query, understood.

    Attributes:
        vector: (D,), norm 1.
        words: the query as people would say it.
        text: its text, if it has one.
        modality: of its vector; None of a sum, of a bare vector, and where a mean is taken off.
    """

    vector: np.ndarray
    words: str
    text: str | None
    modality: str | None = None


@dataclass(frozen=True)
class _Part:
    given: Any
    vector: np.ndarray
    modality: str | None  # None of a bare vector


def understand(queries: Sequence[Query], space: Space, dataset: Any, background: Background | None) -> list[Asked]:
    """Embed queries, all those of one modality in one batch.

    Args:
        queries: each a text, or {argument of `Index.search`: value}, weights among them.
        space: of the table.
        dataset: the table, for items by id.
        background: whose means are taken off; None takes vectors as they are.

    Raises:
        MediaError: a medium of a query cannot be used.
        ValueError: no query, an unknown id, a bad vector or weight.
        TypeError: an argument that is no modality of the space, or a text that is none.
    """
    written: list[Mapping[str, Any]] = [{"text": one} if isinstance(one, str) else one for one in queries]
    for one in written:
        if not isinstance(one, Mapping):
            raise TypeError(f"a query is text, or {{name: what}} as in {{'image': Path('crane.jpg')}}, not {one!r:.60}")
    given = [{name: one for name, one in query.items() if one is not None and name != "weights"} for query in written]
    for one in given:
        _check(one, space)
    parts = _embedded(given, space, dataset)
    return [_asked(one, query.get("weights") or {}, background) for one, query in zip(parts, written, strict=True)]


def _check(given: Mapping[str, Any], space: Space) -> None:
    text = given.get("text", "")
    if not isinstance(text, str):
        kind = type(text).__name__
        raise TypeError(f"the first argument is text, not a {kind}: name the modality, as in search(image={text!r:.60})")
    unknown = sorted(set(given) - set(space.modalities) - set(_OTHER))
    if unknown:
        known = ", ".join([*space.modalities, *_OTHER])
        raise TypeError(f"search has no argument {unknown[0]!r}; this table can be asked by {known}")
    if not given:
        raise ValueError(f"nothing to search for: give {', '.join(space.modalities)}, item_id or vector")


def _embedded(given: Sequence[Mapping[str, Any]], space: Space, dataset: Any) -> list[dict[str, _Part]]:
    """Each query's parts, in the order in which they were given."""
    found: dict[tuple[int, str], _Part] = {}
    for name in sorted({name for one in given for name in one}):
        asking = [number for number, one in enumerate(given) if name in one]
        values = [given[number][name] for number in asking]
        if name == "item_id":
            parts = _items([str(value) for value in values], dataset)
        elif name == "vector":
            parts = [_Part(value, _checked(value, space), None) for value in values]
        else:
            vectors = space.embed(name, values)
            parts = [_Part(value, vector, name) for value, vector in zip(values, vectors, strict=True)]
        found |= {(number, name): part for number, part in zip(asking, parts, strict=True)}
    return [{name: found[number, name] for name in one} for number, one in enumerate(given)]


def _items(ids: Sequence[str], dataset: Any) -> list[_Part]:
    rows = rows_where(dataset, is_in("item_id", sorted(set(ids))), columns=["item_id", "modality", VECTOR])
    known = dict(
        zip(rows["item_id"].to_pylist(), zip(rows["modality"].to_pylist(), vectors_of(rows), strict=True), strict=True)
    )
    for item in ids:
        if item not in known:
            raise ValueError(f"{uri_of(dataset)} has no item {item!r}; ids are in the column item_id of any search")
    return [_Part(item, known[item][1], known[item][0]) for item in ids]


def _checked(vector: Any, space: Space) -> np.ndarray:
    query = np.asarray(vector, np.float64)
    if query.shape != (space.dim,):
        raise ValueError(f"the vector has shape {query.shape}, those of space {space.name!r} have ({space.dim},)")
    return units(query, "the vector")


def _asked(parts: Mapping[str, _Part], weights: Mapping[str, float], background: Background | None) -> Asked:
    stray = sorted(set(weights) - set(parts))
    if stray:
        raise ValueError(f"weights names {stray[0]!r}, but the query is made of {', '.join(parts)}")
    vectors = [part.vector - _mean(part, background) for part in parts.values()]
    vector = fuse(vectors, "mean", [weights.get(name, 1.0) for name in parts])
    text = parts["text"].given if "text" in parts else None
    modality = next(iter(parts.values())).modality if len(parts) == 1 and background is None else None
    return Asked(vector, describe_query({name: part.given for name, part in parts.items()}, weights), text, modality)


def _mean(part: _Part, background: Background | None) -> np.ndarray | float:
    """What is taken off; nothing of a bare vector, or of a modality that the table does not hold."""
    means = background.means if background is not None else {}
    return means.get(part.modality or "", 0.0)
