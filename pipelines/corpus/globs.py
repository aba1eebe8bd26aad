"""Globs: which paths are wanted, and braces. In: patterns. Out: yes or no for a path, or several patterns.

`*` and `?` stay within one component, `**` crosses them, `[abc]` and `{jpg,png}` are alternatives. A pattern without a slash
is matched against the file's name, wherever it is; one with a slash against the whole path relative to the corpus's root.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from fsspec.utils import glob_translate

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
MAX_EXPANSIONS = 1_000_000


def expand_braces(pattern: str) -> list[str]:
    """`a-{000..002}.{tar,idx}` -> all six; numbers keep the width they are written with.

    Raises:
        ValueError: more than MAX_EXPANSIONS.
    """
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    span = _RANGE.fullmatch(match[1])
    if span is None:
        choices: Sequence[str] = match[1].split(",")
    else:
        first, last, width = int(span[1]), int(span[2]), len(span[1])
        if last - first >= MAX_EXPANSIONS:
            raise ValueError(f"{pattern!r} stands for more than {MAX_EXPANSIONS:,} paths; write fewer choices")
        choices = [f"{number:0{width}}" for number in range(first, last + 1)]
    expanded: list[str] = []
    for choice in choices:
        expanded += expand_braces(f"{pattern[: match.start()]}{choice}{pattern[match.end() :]}")
        if len(expanded) > MAX_EXPANSIONS:
            raise ValueError(f"{pattern!r} stands for more than {MAX_EXPANSIONS:,} paths; write fewer choices")
    return expanded


@dataclass(frozen=True)
class Filter:
    """Which paths are wanted: those that match an `include`, if there is any, and no `exclude`."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def wants(self, path: str) -> bool:
        """Whether a file is wanted; `path` is relative to the corpus's root."""
        if self._included is not None and not self._included.match(path):
            return False
        return self._excluded is None or not self._excluded.match(path)

    def enters(self, folder: str) -> bool:
        """Whether a folder may hold wanted files: not if an exclude ends in `/**` and matches it up to there."""
        return self._closed is None or not self._closed.match(folder)

    @cached_property
    def _included(self) -> re.Pattern[str] | None:
        return _any_of(self.include)

    @cached_property
    def _excluded(self) -> re.Pattern[str] | None:
        return _any_of(self.exclude)

    @cached_property
    def _closed(self) -> re.Pattern[str] | None:
        return _any_of([f"./{p.removesuffix('/**')}" for p in self.exclude if p.endswith("/**") and p != "/**"])


def _any_of(patterns: Sequence[str]) -> re.Pattern[str] | None:
    """One regular expression for all of them; None for none."""
    expanded = [_anchored(choice) for pattern in patterns for choice in expand_braces(pattern)]
    return re.compile("|".join(map(glob_translate, expanded))) if expanded else None


def _anchored(pattern: str) -> str:
    if pattern.startswith("./"):
        return pattern[2:]
    return pattern.removeprefix("/") if "/" in pattern else f"**/{pattern}"
