"""SQL filters over the table. In: a user's `where` and conditions of our own. Out: one filter that cannot mean anything else.

LanceDB takes a filter as a string and ignores what follows the first complete expression, so a `where` such as `true) OR (true`
would slip past conditions that are merely put beside it in parentheses. Here a `where` must close what it opens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`""")
_LANCES_OWN = re.compile(r"\.? Valid fields are|, /\S+\.rs:")  # it lists its inner columns, too, and places in its source
_FORBIDDEN = {
    r"'": "a ' that is not closed",
    r'"': 'a " that is not closed',
    r"`": "a ` that is not closed",
    r"--|/\*": "a comment",
    r";": "a semicolon",
    r"[$?]|(?<!:):(?!:)": "a placeholder",
    r"\b(?i:[nber]|u&)\0": "a string with a prefix",
}


def quoted(value: str) -> str:
    """The value as an SQL string literal: `o'clock` -> `'o''clock'`."""
    return "'" + value.replace("'", "''") + "'"


def is_in(column: str, values: Sequence[str]) -> str:
    """The condition that a column of ours holds one of the values."""
    return f"{column} IN ({', '.join(map(quoted, values))})"


def conjunction(where: str | None, *ours: str) -> str | None:
    """The user's filter AND our own conditions; None where there are none.

    Raises:
        ValueError: `where` is not one closed expression.
    """
    parts = list(ours)
    if where is not None:
        _check_closed(where)
        parts.append(f"({where})")
    return " AND ".join(parts) or None


@contextmanager
def explained(where: str | None, columns: Sequence[str]) -> Iterator[None]:
    """Lance's complaint about a filter, made an error that says what could be written instead.

    Raises:
        ValueError: where Lance has one, or fails, and there is a filter to blame.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if where is None:
            raise
        why = _LANCES_OWN.split(str(error))[0].removeprefix("Invalid user input: ").rstrip(" .")
        raise ValueError(f"where={where!r} cannot be used: {why}; the columns are {', '.join(columns)}") from error


def _check_closed(where: str) -> None:
    bare = _QUOTED.sub("\0", where)
    found = [name for pattern, name in _FORBIDDEN.items() if re.search(pattern, bare)]
    depth = lowest = 0
    for sign in bare:
        depth += (sign == "(") - (sign == ")")
        lowest = min(lowest, depth)
    if depth or lowest:
        found.append("parentheses that don't match")
    if not bare.strip():
        found.append("nothing")
    if found:
        raise ValueError(f"where={where!r} has {' and '.join(found)}; write one SQL condition, such as duration_s < 5")
