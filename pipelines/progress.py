"""Progress, for people and Prometheus. In: rows as they come. Out: a bar or lines on stderr (none in CI); counters."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipelines.bottleneck import verdict
from pipelines.job_metrics import JobMetrics
from pipelines.report import Tally

LINE_EVERY_S = 30.0


class EmbedProgress:
    """Sources, bytes, rate, ETA and rejects, in all and per modality; a context manager.

    The line of all counts what is embedded; those of the modalities follow as it is staged for a commit.
    """

    def __init__(self, tally: Tally, table: str) -> None:
        self._tally = tally
        self._table = table
        self._metrics: JobMetrics | None = None
        self._console = Console(file=sys.stderr)
        quiet = bool(os.environ.get("CI"))
        self._live = self._console.is_terminal and not quiet
        self._lines = not self._console.is_terminal and not quiet
        self._bar = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} sources  {task.fields[note]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._tasks: dict[str, TaskID] = {}
        self._total = 0
        self._began = self._printed = time.monotonic()

    def __enter__(self) -> EmbedProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        if self._metrics is not None:
            self._metrics.update(self._tally)
            self._metrics.end()

    def say(self, text: str) -> None:
        """One line, where someone may read it."""
        if self._live or self._lines:
            self._console.print(text, highlight=False)

    def begin(self) -> None:
        """The plan is complete: the tally knows how much there is to do."""
        planned = {modality: counts["planned"] for modality, counts in sorted(self._tally.by_modality.items())}
        self._metrics = JobMetrics(self._table)
        self._began = self._printed = time.monotonic()
        self._total = sum(planned.values())
        for name, total in {"all": self._total, **planned}.items():
            self._tasks[name] = self._bar.add_task(name, total=total, note="")

    def update(self, done: int) -> None:
        """So many sources are through the towers."""
        if self._metrics is not None:
            self._metrics.update(self._tally)
        took_s = max(time.monotonic() - self._began, 1e-3)
        rejects = self._tally.rejected - self._tally.rejected_before
        note = f"{self._tally.bytes_embedded / 1e6:,.1f} MB  {done / took_s:,.1f}/s  {rejects:,} rejected"
        self._bar.update(self._tasks["all"], completed=done, note=note)
        for modality, counts in self._tally.by_modality.items():
            if modality in self._tasks:
                through = counts["embedded"] + counts["rejected"]
                self._bar.update(self._tasks[modality], completed=through, note=f"{counts['rejected']:,} rejected")
        if self._lines and time.monotonic() - self._printed > LINE_EVERY_S:
            self._printed = time.monotonic()
            left = f"ETA {(self._total - done) * took_s / done:,.0f} s" if done else "starting the workers"
            parts = ", ".join(f"{m} {c['embedded']:,}/{c['planned']:,}" for m, c in sorted(self._tally.by_modality.items()))
            limit = verdict(self._tally.seconds)
            self.say(f"{done:,}/{self._total:,} sources, {note}, {left} ({parts}){f'; {limit}' if limit else ''}")
