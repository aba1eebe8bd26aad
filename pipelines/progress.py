"""Progress, for people and Prometheus. In: rows as they come. Out: a bar, or lines in the log (none in CI); metrics."""

from __future__ import annotations

import logging
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
        self._total = self._done = 0
        self._first: tuple[float, int] | None = None  # when the first were through, and how many
        self._began = self._printed = time.monotonic()

    def __enter__(self) -> EmbedProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._tasks:
            self._show()
        self._bar.stop()
        if self._metrics is not None:
            self._metrics.update(self._tally, running=False)
        if self._done:
            took = f"in {time.monotonic() - self._began:,.0f} s"
            self._say(f"{self._done:,}/{self._total:,} sources {took}, {self._note()}")
        self._tell_rejects()

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
        now_s = time.monotonic()
        if done and self._first is None:
            self._first = now_s, done
        self._done = done
        if self._metrics is not None:
            self._metrics.update(self._tally)
        self._show()
        if not self._live and now_s - self._printed > LINE_EVERY_S:
            self._printed = now_s
            per_s = self._per_s()
            left = f", ETA {(self._total - done) / per_s:,.0f} s" if per_s else "" if done else ", starting the workers"
            parts = ", ".join(f"{m} {c['embedded']:,}/{c['planned']:,}" for m, c in sorted(self._tally.by_modality.items()))
            self._say(f"{done:,}/{self._total:,} sources, {self._note()}{left} (staged: {parts})")

    def _show(self) -> None:
        """What the bars have to show."""
        self._bar.update(self._tasks["all"], completed=self._done, note=self._note())
        for modality, counts in self._tally.by_modality.items():
            if modality in self._tasks:
                through = counts["embedded"] + counts["rejected"]
                self._bar.update(self._tasks[modality], completed=through, note=f"{counts['rejected']:,} rejected")

    def _note(self) -> str:
        rate = f"{per_s:,.1f}/s  " if (per_s := self._per_s()) else ""
        return f"{self._tally.bytes_embedded / 1e6:,.1f} MB  {rate}{self._rejects():,} rejected"

    def _tell_rejects(self) -> None:
        """The first of this run, where there is no log of JSON, which has told them."""
        first, table = self._tally.first_rejects, f"{self._table}__rejects"
        for one in first if not in_json() else []:
            say(f"rejected: {one}", logging.WARNING)
        if first and self._rejects() > len(first) and not in_json():
            say(f"and {self._rejects() - len(first):,} more, which the table {table} names", logging.WARNING)

    def _rejects(self) -> int:
        """Of this run."""
        return self._tally.rejected - self._tally.rejected_before

    def _per_s(self) -> float:
        """Sources a second since the first were through; 0 if nothing has come since."""
        began_s, already = self._first or (0.0, 0)
        return (self._done - already) / max(time.monotonic() - began_s, 1e-3)

    def _say(self, line: str) -> None:
        """A line about the sources, with what holds the run back."""
        limit = verdict(self._tally.seconds)
        about = {"done": self._done, "planned": self._total, "rejected": self._rejects(), "bottleneck": limit}
        self.say(f"{line}{f'; {limit}' if limit else ''}", stage="embed", **about)
