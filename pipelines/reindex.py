"""The scheduled job: several corpora into one table, and out of it what they no longer have. In: settings. Out: a report.

Each corpus is embedded as `embed` does it. What the table has of a corpus and its listings did not name is then deleted, whole
sources in one commit, unless that is suspiciously much. One lease holds for all of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipelines.compaction import Tidied
from pipelines.corpus import CorpusError
from pipelines.damage import batches_where
from pipelines.embed import (
    EmbedSettings,
    Prepared,
    audit,
    embed_corpus,
    plan_only,
    prepare,
    run_errors,
)
from pipelines.forecast import Machine
from pipelines.holdings import of_corpus
from pipelines.known import Seen, id_words
from pipelines.lease import Lease
from pipelines.ledger import Ledger
from pipelines.log import say
from pipelines.plan import gone
from pipelines.progress import EmbedProgress
from pipelines.report import Audit, EmbedReport
from pipelines.runs import append_run, new_run_id
from pipelines.table import open_table
from pipelines.upkeep import optimize


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """One corpus of a reindex run; as in `embed`, and with that run's `segment` unless it has its own."""

    corpus: str
    modality: str | None = None
    segment: str | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class ReindexSettings:
    """What a table should hold; jobs/reindex.py documents each for the command line."""

    db: str
    corpora: Sequence[CorpusSettings]
    table: str = "media"
    space: str = "demo"
    segment: str = "whole"
    max_delete_fraction: float = 0.2
    retry_rejects: bool = False
    item_timeout: float = EmbedSettings.item_timeout
    max_reject_rate: float = EmbedSettings.max_reject_rate
    only_writer: bool = False
    allow_hosts: Sequence[str] = ()
    dry_run: bool = False
    prices: Sequence[Machine] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.max_delete_fraction <= 1:
            raise ValueError(f"max_delete_fraction {self.max_delete_fraction} is no share; it must be between 0 and 1")
        if not self.corpora:
            raise ValueError("no corpora: name at least one, `corpora: [{corpus: s3://bucket/media}]` in the --config file")

    def each(self) -> list[EmbedSettings]:
        """The embed run of each corpus."""
        shared = {name: getattr(self, name) for name in ("db", "table", "space", "retry_rejects", "item_timeout")}
        shared |= {name: getattr(self, name) for name in ("max_reject_rate", "only_writer", "allow_hosts", "dry_run", "prices")}
        return [EmbedSettings(**{**shared, **vars(one), "segment": one.segment or self.segment}) for one in self.corpora]


@dataclass
class ReindexReport:
    """The report of a reindex run: an embed report a corpus, and what was deleted."""

    run_id: str
    table: str
    corpora: list[EmbedReport] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # corpus -> why nothing of it was deleted
    unread: dict[str, str] = field(default_factory=dict)  # corpus -> what was wrong with it, found when others were done
    dry_run: bool = False
    seconds: float = 0.0
    audit: Audit | None = None
    optimized: dict[str, Tidied] = field(default_factory=dict)  # by table; nothing where nothing was committed

    @property
    def failures(self) -> list[str]:
        """The gates that failed and the laws that do not hold, of every corpus; empty when all is well."""
        read = [report for report in self.corpora if report.corpus not in self.unread]
        found = [f"{report.corpus}: {failure}" for report in read for failure in report.failures]
        found += [f"{corpus}: {why}; nothing was deleted in this run, of any corpus" for corpus, why in self.unread.items()]
        bad_audit = self.audit is not None and not (self.audit.unique_ids and self.audit.rows_as_expected)
        refused = [f"{corpus}: {why}" for corpus, why in self.refused.items()]
        return [*found, *refused, *(["the audit of the table failed"] if bad_audit else [])]

    @property
    def exit_code(self) -> int:
        """0 done; 1 done but a gate failed."""
        return int(bool(self.failures))

    def to_json(self) -> str:
        """One line of JSON."""
        own = {"run_id": self.run_id, "table": self.table, "dry_run": self.dry_run, "seconds": self.seconds}
        each = [json.loads(report.to_json()) for report in self.corpora]
        totals = {name: sum(report[name] for report in each) for name in ("embedded", "rejected", "relabelled", "deleted")}
        end = {"optimized": {k: vars(t) for k, t in self.optimized.items()}, "audit": self.audit and vars(self.audit)}
        return json.dumps({"job": "reindex", **own, **totals, **end, "failures": self.failures, "corpora": each})


def reindex(settings: ReindexSettings) -> ReindexReport:
    """Make the table hold what the corpora hold: embed what is new or changed, relabel, delete what is gone.

    Raises:
        ValueError: the arguments or one of the corpora cannot be used; nothing was started.
        OSError: the infrastructure stopped the run; run the same command again.
    """
    began, started_at = time.monotonic(), datetime.now(UTC)
    each = [prepare(one) for one in settings.each()]
    first = each[0]
    report = ReindexReport(new_run_id(), first.uri, dry_run=settings.dry_run)
    report.corpora = [prepared.report(report.run_id) for prepared in each]
    if settings.dry_run:
        _plan_only(each, report, settings)
    else:
        with Lease(first.db, settings.table, report.run_id, only_writer=settings.only_writer) as lease, run_errors():
            ledger = Ledger(first.uri, lease, report.run_id)
            rows_before = ledger.rows()
            _run(each, ledger, report, settings)
            if ledger.commits:
                report.optimized = optimize(ledger)
                report.audit = audit(ledger, rows_before + sum(r.tally.items_written for r in report.corpora))
            report.seconds = round(time.monotonic() - began, 3)
            append_run(first.db, settings.table, started_at, report.to_json(), report.exit_code)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def _run(each: Sequence[Prepared], ledger: Ledger, report: ReindexReport, settings: ReindexSettings) -> None:
    """Embed every corpus, then delete: what has moved is at its new place before it leaves the old one.

    A corpus that turns out to be unusable while it is listed does not keep the others from being embedded. Nothing is deleted
    then: what is gone elsewhere may have moved there.
    """
    before: Any = ledger.dataset  # stays at its version
    seen: dict[str, Seen] = {}
    last: dict[str, EmbedReport] = {}  # of each corpus
    for prepared, one in zip(each, report.corpora, strict=True):
        began = time.monotonic()
        try:
            with EmbedProgress(one.tally, prepared.settings.table) as progress:
                embed_corpus(prepared, ledger, one, progress, seen.setdefault(prepared.corpus.id, Seen()))
        except CorpusError as error:
            report.unread[prepared.corpus.id] = str(error)
        one.seconds = round(time.monotonic() - began, 3)
        last[prepared.corpus.id] = one
    if report.unread:
        return
    rejects, modalities = each[0].rejects(report.run_id), each[0].recipes
    for corpus, one in last.items():
        vanished = _gone(before, corpus, modalities, seen.values(), one, report, settings.max_delete_fraction)
        if vanished:
            ledger.commit([], vanished)
        if corpus not in report.refused:
            ledger.check_lease()
            rejects.clear(list(gone(rejects.of_corpus(of_corpus(corpus)), modalities, seen.values())))


def _plan_only(each: Sequence[Prepared], report: ReindexReport, settings: ReindexSettings) -> None:
    seen: dict[str, Seen] = {}
    last: dict[str, EmbedReport] = {}
    dataset = open_table(each[0].uri)
    for prepared, one in zip(each, report.corpora, strict=True):
        plan_only(prepared, dataset, one, seen.setdefault(prepared.corpus.id, Seen()))
        last[prepared.corpus.id] = one
    for corpus, one in last.items():
        if vanished := _gone(dataset, corpus, each[0].recipes, seen.values(), one, report, settings.max_delete_fraction):
            say(f"{corpus}: would delete what is gone, sources: {len(vanished):,}", stage="plan", deleted=len(vanished))


def _gone(
    before: Any | None,
    corpus: str,
    modalities: Collection[str],
    listings: Iterable[Seen],
    one: EmbedReport,
    report: ReindexReport,
    most: float,
) -> list[str]:
    """The sources to delete, of those the table had before the run, counted; none where that looks like a mistake."""
    if before is None:
        return []
    mine, columns = of_corpus(corpus), ["source_id", "uri", "modality"]
    vanished = list(dict.fromkeys(gone(batches_where(before, mine, columns=columns), modalities, listings)))
    if not vanished:
        return []
    words = [id_words(b["source_id"])[0] for b in batches_where(before, mine, columns=["source_id"]) if b.num_rows]
    held = len(np.unique(np.concatenate(words)))
    unreadable = sum(r.tally.unreadable for r in report.corpora if r.corpus == corpus)
    if unreadable:
        report.refused[corpus] = (
            f"{len(vanished):,} of {held:,} sources are not listed, but {unreadable:,} rows of the manifest cannot be read and "
            "may name them: none was deleted. Mend the manifest (the rejects name its rows) and run it again"
        )
    elif len(vanished) > most * held:
        report.refused[corpus] = (
            f"{len(vanished):,} of {held:,} sources are gone, above --max-delete-fraction {most}: none was deleted. If they "
            "are meant to go, run it again with --max-delete-fraction 1"
        )
    else:
        one.tally.deleted = len(vanished)
        return vanished
    return []
