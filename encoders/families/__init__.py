"""Space families: spaces that are made from a name and options rather than read from a directory. One file each.

A file here has `NAMES`, exact names ("imagebind-huge") or prefixes that end in a colon ("open_clip:"), and
`load(name, **options) -> Space`. It is found by its place. In: a name, perhaps with options as a query string. Out: its module.
"""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

from encoders.errors import SpaceError

Number = TypeVar("Number", int, float)
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def family_of(name: str) -> ModuleType | None:
    """The module of the family that a name (without options) belongs to; None if it belongs to none."""
    for found in pkgutil.iter_modules(__path__, f"{__name__}."):
        module = importlib.import_module(found.name)
        if any(name.startswith(known) if known.endswith(":") else name == known for known in module.NAMES):
            return module
    return None


def parse(name: str) -> tuple[str, dict[str, str]]:
    """`imagebind-huge?profile=reference` -> ("imagebind-huge", {"profile": "reference"})."""
    base, _, query = name.partition("?")
    return base, dict(parse_qsl(query, keep_blank_values=True))


def spelled(name: str, options: Mapping[str, Any]) -> str:
    """The name with its options as a query string, sorted, None and `download` left out: what loads the same space again.

    A list becomes words with commas, a mapping JSON, a bool `true` or `false`; `load` takes these spellings too.
    """
    words = {}
    for key, value in sorted(options.items()):
        if value is None or key == "download":
            continue
        if isinstance(value, list | tuple):
            words[key] = ",".join(value)
        else:
            words[key] = json.dumps(value, sort_keys=True) if isinstance(value, Mapping | bool) else str(value)
    return f"{name}?{urlencode(words, safe='/:,@')}" if words else name


def flag(value: bool | str) -> bool:
    """A yes or no that may stand in a name: true, 1 or yes; false, 0 or no.

    Raises:
        SpaceError: another word.
    """
    word = str(value).lower()
    if word not in _FLAGS:
        raise SpaceError(f"{value!r} is neither yes nor no; write true or false")
    return _FLAGS[word]


def number(option: str, value: Any, least: Number, kind: Callable[[Any], Number]) -> Number:
    """A number that may stand in a name, of at least `least`.

    Raises:
        SpaceError: it is none, or less.
    """
    try:
        found = kind(value)
    except (TypeError, ValueError) as error:
        raise SpaceError(f"{option}={value!r} is no {kind.__name__}; write {least} or more") from error
    if not least <= found < math.inf:
        raise SpaceError(f"{option}={value!r} cannot be; write {least} or more")
    return found


def chosen(modalities: str | Sequence[str] | None, known: Sequence[str], model: str) -> list[str]:
    """Those of `known` that are asked for, in its order, by a list or words with commas; None: all.

    Raises:
        SpaceError: one that the model has not.
    """
    words = modalities.split(",") if isinstance(modalities, str) else known if modalities is None else modalities
    asked = [word.strip() for word in words]
    if unknown := [word for word in asked if word not in known]:
        raise SpaceError(f"{model} has no modality {unknown[0]!r}; it has {', '.join(known)}")
    return [modality for modality in known if modality in asked]
