"""The main job: embed what a table does not hold yet. In: a corpus, a space, a table. Out: items in LanceDB, each exactly once.

uri -> {bytes} -> preprocess -> {small arrays} -> embed -> {vector} -> staged Lance fragment -> ONE commit
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import ray

from encoders.errors import SpaceError
from encoders.space import Space, load_space
from pipelines.classify import refuse_filled
from pipelines.cluster import Resources, check_workers, start_ray
from pipelines.corpus import Corpus, CorpusError, open_corpus
from pipelines.decoder import ITEM_TIMEOUT_S, LONGEST_ITEM_S
from pipelines.fact import compare, read_plan
from pipelines.forecast import Machine
from pipelines.holdings import read_holdings
from pipelines.identity import canonical_uri, recipe
from pipelines.known import Seen, id_words
from pipelines.lease import Lease
from pipelines.ledger import Ledger
from pipelines.log import say
from pipelines.plan import Planner
from pipelines.pools import embed_all
from pipelines.progress import EmbedProgress
from pipelines.rejects import Rejects
from pipelines.report import Audit, EmbedReport, Tally
from pipelines.runs import append_run, new_run_id
from pipelines.segments import Cut, parse_cuts
from pipelines.stages import Job
from pipelines.storage import INFRASTRUCTURE_ERRORS
from pipelines.table import RESERVED_COLUMNS, check_columns, check_space, item_schema, open_table, table_uri
from pipelines.todo import Todo
from pipelines.tombstones import Tombstones
from pipelines.trial import foresee
from pipelines.vector_index import keep_up
from pipelines.writer import Writer

COMPACT_FRAGMENTS = 8  # from this many small ones on, the end of a run compacts
SMALL_FRAGMENT_ROWS = 100_000
AUDIT_ROWS = 1 << 16  # at a time


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """What to embed, with what, into what; jobs/embed.py documents each for the command line."""

    corpus: str
    db: str
    table: str = "media"
    space: str = "demo"
    modality: str | None = None
    segment: str = "whole"
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    limit: int | None = None
    retry_rejects: bool = False
    item_timeout: float = ITEM_TIMEOUT_S
    max_reject_rate: float = 0.05
    only_writer: bool = False
    allow_hosts: Sequence[str] = ()
    dry_run: bool = False
    plan: str | None = None
    prices: Sequence[Machine] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.table) or "__" in self.table:
            raise ValueError(f"table {self.table!r} is no name: letters, digits, '-', '_' and '.', and no '__', which is ours")
        if not 0 <= self.max_reject_rate <= 1:
            raise ValueError(f"max_reject_rate {self.max_reject_rate} is no share; it must be between 0 and 1")
        if not 1 <= self.item_timeout <= LONGEST_ITEM_S:
            raise ValueError(
                f"item_timeout {self.item_timeout} s is no time for an item; give 1 second to a day ({LONGEST_ITEM_S} s)"
            )
        if self.plan and self.dry_run:
            raise ValueError(
                f"plan {self.plan!r} is for the run that is compared with it; leave out one of --plan and --dry-run"
            )


@dataclass(frozen=True)
class Prepared:
    """An embed run that can start: all that its arguments name is there and fits."""

    settings: EmbedSettings
    space: Space
    corpus: Corpus
    cuts: Mapping[str, Cut]  # by modality
    db: str
    plan: Mapping[str, Any] | None = None  # what a dry run said of it

    @property
    def uri(self) -> str:
        """Of the table."""
        return table_uri(self.db, self.settings.table)

    @property
    def tombstones(self) -> Tombstones:
        """Of the table."""
        return Tombstones(table_uri(self.db, f"{self.settings.table}__deleted"))

    def rejects(self, run_id: str) -> Rejects:
        """Of the table."""
        return Rejects(table_uri(self.db, f"{self.settings.table}__rejects"), run_id)

    @property
    def recipes(self) -> dict[str, str]:
        """How each modality is embedded."""
        return {m: recipe(e.fingerprint, self.cuts[m].mark) for m, e in self.space.encoders.items()}

    def job(self, run_id: str) -> Job:
        """What the workers need to know."""
        return Job(
            space=self.space.uri,
            encoders={m: e.fingerprint for m, e in self.space.encoders.items()},
            recipes=self.recipes,
            cuts={m: cut.name for m, cut in self.cuts.items()},
            corpus=self.corpus.id,
            run_id=run_id,
            item_timeout_s=self.settings.item_timeout,
            reach=self.corpus.reach,
        )

    def report(self, run_id: str) -> EmbedReport:
        """The report, nothing done yet."""
        space, settings = self.space, self.settings
        names = (space.name, space.fingerprint, space.license)
        return EmbedReport(run_id, self.corpus.id, self.uri, *names, Tally(), settings.max_reject_rate, settings.dry_run)


def prepare(settings: EmbedSettings) -> Prepared:
    """Look at all that the settings name, and start nothing.

    Raises:
        ValueError: the arguments or the corpus cannot be used.
        OSError: the store does not answer.
    """
    space = load_space(settings.space)
    corpus = open_corpus(
        settings.corpus,
        modality=settings.modality,
        include=settings.include,
        exclude=settings.exclude,
        limit=settings.limit,
        reserved=RESERVED_COLUMNS,
        modalities=space.modalities,
        allow_hosts=settings.allow_hosts,
    )
    plan = read_plan(settings.plan, corpus.id, space.fingerprint) if settings.plan else None
    cuts = parse_cuts(settings.segment, space.modalities)
    prepared = Prepared(settings, space, corpus, cuts, canonical_uri(settings.db), plan)
    existing = open_table(prepared.uri)
    if existing is not None:
        check_space(existing, space, prepared.uri)
        check_columns(existing, corpus.columns, prepared.uri)
        refuse_filled(existing, corpus.columns.names, prepared.uri)
    return prepared


def embed(settings: EmbedSettings) -> EmbedReport:
    """Embed every source of the corpus that the table does not hold in this version by this recipe.

    Each source ends in the table or among the rejects, exactly once, whatever is killed on the way; run it again to go on.

    Raises:
        ValueError: the arguments or the corpus cannot be used; nothing was started.
        OSError: the infrastructure stopped the run; run the same command again.
    """
    began, started_at = time.monotonic(), datetime.now(UTC)
    prepared = prepare(settings)
    report = prepared.report(new_run_id())
    if settings.dry_run:
        plan_only(prepared, open_table(prepared.uri), report, Seen())
    else:
        with (
            Lease(prepared.db, settings.table, report.run_id, only_writer=settings.only_writer) as lease,
            EmbedProgress(report.tally, settings.table) as progress,
            run_errors(),
        ):
            ledger = Ledger(prepared.uri, lease, report.run_id)
            rows_before = ledger.rows()
            embed_corpus(prepared, ledger, report, progress, Seen())
            if ledger.commits:
                ledger.compact(COMPACT_FRAGMENTS, SMALL_FRAGMENT_ROWS)
                keep_up(prepared.uri, ledger.check_lease)
                ledger.refresh()
                report.audit = audit(ledger, rows_before + report.tally.items_written)
            report.seconds = round(time.monotonic() - began, 3)
            if prepared.plan is not None:
                report.plan_vs_fact = compare(prepared.plan, report.tally, report.seconds, Resources.at_hand())
            append_run(prepared.db, settings.table, started_at, report.to_json(), report.exit_code)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def embed_corpus(prepared: Prepared, ledger: Ledger, report: EmbedReport, progress: EmbedProgress, seen: Seen) -> None:
    """Plan, then embed modality by modality; what was committed stays, whatever happens.

    Args:
        prepared: the run.
        ledger: of its table.
        report: filled in.
        progress: told.
        seen: the sources that the corpus has named; grows.
    """
    tally, corpus, commits = report.tally, prepared.corpus, ledger.commits
    writer = Writer(ledger, prepared.rejects(report.run_id), corpus.id, tally)
    progress.say(f"listing {corpus.id}", stage="list", corpus=corpus.id, table=ledger.uri)
    if ledger.dataset is not None and corpus.columns.names:
        ledger.prepare(item_schema(prepared.space, corpus.columns))
    planner = planner_of(prepared, ledger.dataset, report, seen)
    todo: dict[str, Todo] = {}
    for work in planner.batches():
        writer.reject(work.rejected, work.stale_rejects)
        if work.relabelled is not None:
            writer.relabel(work.relabelled)
        for modality, sources in work.todo.items():
            todo.setdefault(modality, Todo()).add(sources)
    writer.relabel_all()
    to_embed = sum(one.rows for one in todo.values())
    progress.say(tally.planned_words(to_embed), stage="plan")
    if todo:
        start_ray()
        check_workers(prepared.space.encoders[modality] for modality in todo)
        ledger.prepare(item_schema(prepared.space, corpus.columns))
    try:
        if todo:
            progress.begin(ledger)
            report.resources = asdict(embed_all(prepared.job(report.run_id), todo, writer, progress))
        writer.finish()
        if report.resources is not None:  # `todo` is empty by now
            progress.update(writer.sources)
    except (KeyboardInterrupt, ray.exceptions.RayError):  # a stop or a lost worker: keep what is embedded
        writer.save()
        raise
    report.commits = ledger.commits - commits


def plan_only(prepared: Prepared, dataset: Any | None, report: EmbedReport, seen: Seen) -> None:
    """A dry run of a corpus: plan, try a sample, and say what the run would do and take, and whether its gate would fail.

    Args:
        prepared: the run.
        dataset: its table; None where there is none.
        report: filled in.
        seen: the sources that the corpus has named; grows.
    """
    began, tally = time.monotonic(), report.tally
    report.plan = foresee(planner_of(prepared, dataset, report, seen), prepared.job(report.run_id), prepared.settings.prices)
    to_embed = sum(cost.sources for cost in report.plan.costs.values())
    say(tally.planned_words(to_embed), stage="plan")
    report.plan.show()
    rejects = tally.listed - tally.unchanged - to_embed + sum(cost.rejects for cost in report.plan.costs.values())
    if rejects > report.max_reject_rate * tally.listed:
        say(
            f"some {rejects:,.0f} of {tally.listed:,} sources would be rejected, above --max-reject-rate "
            f"{report.max_reject_rate}: the run would do the rest and end with 1",
            logging.WARNING,
            stage="plan",
        )
    report.seconds = round(time.monotonic() - began, 3)


def planner_of(prepared: Prepared, dataset: Any | None, report: EmbedReport, seen: Seen) -> Planner:
    """The plan of a run over a table, which may be None; `seen` grows with its listing."""
    rejects, corpus = prepared.rejects(report.run_id), prepared.corpus
    retry = prepared.settings.retry_rejects
    holdings = read_holdings(dataset, rejects, prepared.tombstones, corpus.id, corpus.columns.names, retry)
    return Planner(corpus, prepared.recipes, holdings, report.tally, seen)


@contextmanager
def run_errors() -> Iterator[None]:
    """Once a run has begun: tell what the infrastructure did (try again) from what our code did wrong (a bug)."""
    try:
        yield
    except (CorpusError, SpaceError):  # what is listed late may be wrong, too; or a worker lacks a package
        raise
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, INFRASTRUCTURE_ERRORS):
            raise OSError(f"a worker could not go on: {error.cause}; mend it and run the same command again") from error
        raise RuntimeError(f"a worker failed: {error}") from error  # never as the ValueError that it may be
    except (ray.exceptions.RayError, ray.data.exceptions.ExecutionTimeoutError) as error:
        raise OSError(f"Ray lost a worker or a node for good: {error}; run the same command again") from error
    except ValueError as error:  # the input was accepted: from here on it is a bug
        raise RuntimeError(f"cannot go on: {error}") from error


def audit(ledger: Ledger, expected_rows: int) -> Audit:
    """Look at the table itself: is every id there once, and do the counts agree with the report?

    Args:
        ledger: of the table.
        expected_rows: those before the run and those written; what the ledger removed is taken off.
    """
    dataset: Any = ledger.dataset
    rows, seen = dataset.count_rows(), Seen()
    batches = dataset.to_batches(columns=["item_id"], batch_size=AUDIT_ROWS)
    twice = sum(int(seen.add(*id_words(batch["item_id"])).sum()) for batch in batches if batch.num_rows)
    return Audit(rows, not twice, rows == expected_rows - ledger.rows_removed)
