"""Progress for people, on stderr. In: rows as they come. Out: a live bar on a terminal, lines in a log, nothing in CI."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 30.0


class EmbedProgress:
    """Items, bytes, rate, ETA and rejects, per modality; a context manager."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._live = self._console.is_terminal
        self._lines = not self._live and not os.environ.get("CI")
        self._bar = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} sources  {task.fields[mb]:,.1f} MB  {task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rejects]:,} rejected"),
            console=self._console,
            disable=not self._live,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._printed = time.monotonic()

    def __enter__(self) -> EmbedProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """One line, where someone may read it."""
        if self._live or self._lines:
            self._console.print(text, highlight=False)

    def begin(self, modality: str, total: int) -> None:
        """A modality starts."""
        self._began[modality] = time.monotonic()
        self._tasks[modality] = self._bar.add_task(modality, total=total, mb=0.0, rate="", rejects=0)

    def update(self, modality: str, done: int, size_bytes: int, rejects: int) -> None:
        """So many of its sources are through, of so many bytes; so many of all were rejected."""
        took_s = time.monotonic() - self._began[modality]
        rate = f"{done / took_s:,.1f}/s" if took_s > 0 else ""
        task = self._tasks[modality]
        self._bar.update(task, completed=done, mb=size_bytes / 1e6, rate=rate, rejects=rejects)
        if self._lines and time.monotonic() - self._printed > LINE_EVERY_S:
            self._printed = time.monotonic()
            total = self._bar.tasks[task].total or 0
            left_s = (total - done) * took_s / done if done else 0.0
            rest = f"{rate}, ETA {left_s:,.0f} s, {rejects:,} rejected"
            self.say(f"{modality}: {done:,}/{total:,.0f} sources, {size_bytes / 1e6:,.1f} MB, {rest}")
