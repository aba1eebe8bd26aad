"""Would a job take these words? In: a command as a page or a manifest shows it. Out: why not, or nothing. Nothing is run."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Sequence
from dataclasses import fields
from typing import Any
from unittest import mock

from jobs.__main__ import verbs
from jobs.config import _parser


def refusal(words: Sequence[str]) -> str | None:
    """Why `python -m jobs.VERB ...` or `bindery VERB ...` would end with exit code 2 before it looks at anything."""
    if list(words[:2]) == ["python", "-m"] and words[2].startswith("jobs."):
        verb, arguments = words[2].removeprefix("jobs."), list(words[3:])
    elif words[0] == "bindery":
        verb, arguments = words[1], list(words[2:])
    else:
        return f"{words[0]!r} runs no job"
    if verb not in verbs():
        return f"no verb {verb!r}"
    said: list[str] = []

    def parse_only(config_class: type[Any], _job: Any, argv: Sequence[str], positional: Sequence[str] = ()) -> int:
        said.extend(_problems(config_class, argv, positional))
        return 0

    module = importlib.import_module(f"jobs.{verb}")
    with mock.patch.object(module, "run_job", parse_only):  # a seam, not a stand-in: the real parser, and then nothing
        module.main(arguments)
    return said[0] if said else None


def _problems(config_class: type[Any], argv: Sequence[str], positional: Sequence[str]) -> list[str]:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            found = _parser(config_class, positional).parse_args(list(argv))
        config_class(**{field.name: found[field.name] for field in fields(config_class)})
    except SystemExit:
        return [errors.getvalue().strip()]
    except ValueError as error:
        return [str(error)]
    return []
