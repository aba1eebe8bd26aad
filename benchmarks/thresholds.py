"""Do results reach their goals? In: benchmarks/thresholds.yaml, a result. Out: what misses, as sentences.

The file has, by name of a result, a list of goals: where in the JSON the value is (keys and indices; "*" is each), `at_least`
or `at_most`, the unit, why; `in_ci`, the limit for a small run on a busy machine, where the slow tests make one; `not_reached`
says why a goal is missed, and is believed only as long as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_suffix(".yaml")


def thresholds() -> dict[str, list[dict[str, Any]]]:
    """All of them, by the name of the result's file."""
    found: dict[str, list[dict[str, Any]]] = yaml.safe_load(FILE.read_text())
    return found


def missed(name: str, document: Any, in_ci: bool = False) -> list[str]:
    """The thresholds that a result misses; one whose value is not there is missed too, and one that is not, against its word.

    Args:
        name: of the result's file.
        document: what it says.
        in_ci: it is of a small run on a busy machine: only what has a limit for that counts, and by that limit.
    """
    found = []
    for goal in thresholds()[name]:
        if in_ci and "in_ci" not in goal:
            continue
        where = f"{name}: {' / '.join(map(str, goal['at']))}"
        short = list(_short(document, goal, goal["in_ci"] if in_ci else None))
        if "not_reached" in goal and not in_ci:
            short = [] if short else ["is reached now: take `not_reached` out of thresholds.yaml"]
        found += [f"{where} {what}" for what in short]
    return found


def _short(document: Any, goal: Mapping[str, Any], in_ci: float | None) -> Iterator[str]:
    """What is wrong with the values of one goal."""
    least = "at_least" in goal
    limit = goal["at_least" if least else "at_most"] if in_ci is None else in_ci
    values = list(_values(document, goal["at"]))
    if not values:
        yield "is not there"
    for place, value in values:
        if not (value >= limit if least else value <= limit):  # so that NaN is short, too
            yield f"is {value}{f' ({place})' if place else ''}, not at {'least' if least else 'most'} {limit} {goal['unit']}"


def _values(part: Any, path: Sequence[Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that a path leads to, and what its stars stand for."""
    if not path:
        yield place, part
    elif path[0] == "*":
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            yield from _values(value, path[1:], f"{place} {key}".strip())
    elif (path[0] in part) if isinstance(part, dict) else (isinstance(part, list) and path[0] < len(part)):
        yield from _values(part[path[0]], path[1:], place)
