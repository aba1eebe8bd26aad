"""What jobs say while they run. In: messages, and what they are about. Out: lines on stderr, for people or, if asked, as JSON.

A line of JSON has `time` (UTC), `level`, `message`, the `run_id` once a run has begun, and what else is at hand: `stage`,
counts, and of a source its `uri`, `source_id`, `modality` and `version`. Passwords and signatures are cut out of either kind.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from pipelines.identity import without_signatures

LogFormat = Literal["text", "json"]


class _Text(logging.Formatter):
    """The message, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        mark = "error: " if record.levelno >= logging.ERROR else ""
        return mark + without_signatures(super().format(record))


class _Json(logging.Formatter):
    """One object."""

    def __init__(self) -> None:
        super().__init__()
        self.run_id = ""  # of what this process does now

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= {"run_id": self.run_id} if self.run_id else {}
        line |= getattr(record, "about", {})
        line |= {"traceback": self.formatException(record.exc_info)} if record.exc_info else {}
        return json.dumps({k: without_signatures(v) if isinstance(v, str) else v for k, v in line.items()})


class _Stderr(logging.Handler):
    """Writes where stderr is now: above a progress bar, or into a test."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


_TEXT, _JSON, _STDERR = _Text(), _Json(), _Stderr()
_STDERR.setFormatter(_TEXT)
_LOG, _WARNINGS = logging.getLogger("bindery"), logging.getLogger("py.warnings")
_LOG.addHandler(_STDERR)
_LOG.setLevel(logging.INFO)
_LOG.propagate = False  # Ray and others set up the root logger


def say(message: str, level: int = logging.INFO, *, traceback: bool = False, **about: Any) -> None:
    """One line.

    Args:
        message: for people.
        level: of `logging`.
        traceback: add that of the exception which is being handled.
        about: more fields of a line of JSON.
    """
    _LOG.log(level, message, exc_info=traceback, extra={"about": about})


def note(message: str, level: int = logging.INFO, **about: Any) -> None:
    """As `say`, of what happens too often for people to read: in a log of JSON only."""
    if in_json():
        say(message, level, **about)


def in_json() -> bool:
    """Whether lines are JSON now."""
    return _STDERR.formatter is _JSON


def name_run(run_id: str) -> None:
    """From now on lines belong to this run."""
    _JSON.run_id = run_id


@contextmanager
def log_lines(form: LogFormat) -> Iterator[None]:
    """Within it lines have this form; as JSON, Python's warnings, too."""
    if form == "text":
        yield
        return
    _STDERR.setFormatter(_JSON)
    _WARNINGS.addHandler(_STDERR)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        _WARNINGS.removeHandler(_STDERR)
        _STDERR.setFormatter(_TEXT)
        _JSON.run_id = ""
