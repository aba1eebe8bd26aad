"""Progress, for people and Prometheus. In: rows as they come. Out: a bar, or lines in the log (none in CI); metrics."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipelines.bottleneck import verdict
from pipelines.job_metrics import JobMetrics
from pipelines.ledger import Ledger
from pipelines.log import in_json, say
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
        console = Console(file=sys.stderr)
        self._quiet = bool(os.environ.get("CI")) and not in_json()
        self._live = console.is_terminal and not self._quiet and not in_json()
        self._bar = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} sources  {task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
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
            self._metrics.update(self._tally, running=False)

    def say(self, text: str, **about: Any) -> None:
        """One line, where someone may read it."""
        if not self._quiet:
            say(text, **about)

    def begin(self, ledger: Ledger) -> None:
        """The plan is complete: the tally knows how much there is to do, and the table is there."""
        planned = {modality: counts["planned"] for modality, counts in sorted(self._tally.by_modality.items())}
        self._metrics = JobMetrics(self._table, ledger)
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
        if not self._live and time.monotonic() - self._printed > LINE_EVERY_S:
            self._printed = time.monotonic()
            left = f"ETA {(self._total - done) * took_s / done:,.0f} s" if done else "starting the workers"
            parts = ", ".join(f"{m} {c['embedded']:,}/{c['planned']:,}" for m, c in sorted(self._tally.by_modality.items()))
            limit = verdict(self._tally.seconds)
            line = f"{done:,}/{self._total:,} sources, {note}, {left} ({parts}){f'; {limit}' if limit else ''}"
            self.say(line, stage="embed", done=done, planned=self._total, rejected=rejects, bottleneck=limit)
