"""Keeping a table fast and small. In: a ledger. Out: larger fragments, fresh indices, no stale versions and no orphans.

Each step is one commit or one removal of what nothing refers to, so a kill between any two leaves the table whole; the next run
goes on. A compaction by a writer that was paused past its lease is refused, as whoever takes over touches every fragment
(docs/decisions/0009-taking-over-touches-every-fragment.md).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from lance.optimize import Compaction

from pipelines.compaction import LEAST_MEMORY_MB, MEMORY_MB, Tidied, compact, compaction_options
from pipelines.identity import canonical_uri
from pipelines.lease import Lease, held
from pipelines.ledger import Ledger
from pipelines.runs import new_run_id
from pipelines.storage import filesystem
from pipelines.table import existing_table, open_table, table_uri
from pipelines.vector_index import keep_indices, missing_indices, refresh, stale_indices

BESIDE = ("rejects", "deleted", "runs")  # `<table>__rejects` and so on are kept up with their table
_ORPHANS_LIE_IN = ("data", "_deletions", "_indices", "_transactions")


@dataclass(frozen=True)
class Keep:
    """What upkeep must leave alone, and how much memory it may take.

    Attributes:
        versions: a version stays for so long after a newer one has replaced it; tagged ones stay anyway.
        orphans: files that no version refers to stay for so long after they were written: their writer may be at work.
        memory_mb: bound of what compaction takes, beside the program itself with its libraries.
    """

    versions: timedelta = timedelta(days=7)
    orphans: timedelta = timedelta(days=1)
    memory_mb: int = MEMORY_MB


@dataclass(frozen=True, kw_only=True)
class UpkeepSettings:
    """Which table to keep up, and what to leave alone; jobs/optimize.py documents each for the command line."""

    db: str
    table: str = "media"
    target_recall: float | None = None
    keep_versions_for: str = "7d"
    keep_orphans_for: str = "1d"
    memory: int = MEMORY_MB
    wait: float = 600.0
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.memory < LEAST_MEMORY_MB:
            raise ValueError(f"memory {self.memory} MiB is too little; give at least {LEAST_MEMORY_MB}")
        if self.target_recall is not None and not 0 < self.target_recall <= 1:
            raise ValueError(f"target_recall {self.target_recall} is no recall; give a share above 0, such as 0.95")
        self.keep()

    def keep(self) -> Keep:
        """What these settings leave alone."""
        return Keep(duration(self.keep_versions_for), duration(self.keep_orphans_for), self.memory)


@dataclass
class UpkeepReport:
    """What upkeep did, by table; rows must be as many as before."""

    run_id: str
    table: str
    rows: int
    tables: dict[str, Tidied]
    failures: list[str]
    dry_run: bool
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 done; 1 done but rows are missing, or the index finds too little."""
        return int(bool(self.failures))

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({**vars(self), "tables": {k: vars(t) for k, t in self.tables.items()}})


def duration(text: str) -> timedelta:
    """`7d`, `12h`, `30m` or `45s`.

    Raises:
        ValueError: it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([dhms])", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration; write a number and d, h, m or s, such as 7d or 12h")
    return timedelta(seconds=float(match[1]) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[match[2]])


def upkeep(settings: UpkeepSettings) -> UpkeepReport:
    """`optimize` a table as its one writer; a running writer is waited for.

    Raises:
        ValueError: there is no such table, or the settings cannot be used; nothing was started.
        OSError: the table is still being written after the wait, or the store is away; run the same command again.
    """
    began = time.monotonic()
    db, keep, run_id = canonical_uri(settings.db), settings.keep(), new_run_id()
    uri = table_uri(db, settings.table)
    dataset = existing_table(db, settings.table)
    failures = []
    if settings.dry_run:
        rows = dataset.count_rows()
        tables = {name: _planned(beside, keep) for name, beside in _tables(uri).items()}
    else:
        with held(Lease(db, settings.table, run_id), settings.wait) as lease:
            ledger = Ledger(uri, lease, run_id)
            before = ledger.rows()
            tables = optimize(ledger, keep, settings.target_recall)
            rows = ledger.rows()
        search = tables[settings.table].search
        if search.get("index") and search["recall"] < search["target"]:
            failures.append(f"the vector index of {uri} has a recall of {search['recall']}, below {search['target']}")
        if rows != before:
            failures.append(f"{uri} had {before} rows and has {rows}: a program that takes no lease has written meanwhile")
    return UpkeepReport(run_id, uri, rows, tables, failures, settings.dry_run, round(time.monotonic() - began, 3))


def _planned(uri: str, keep: Keep) -> Tidied:
    """What `optimize` would do now; what compaction makes superfluous is not foreseen."""
    dataset: Any = open_table(uri)
    tasks = Compaction.plan(dataset, compaction_options(dataset, keep.memory_mb)).tasks
    old, tagged = stale_versions(dataset, time.time() - keep.versions.total_seconds())
    found = orphans(dataset, time.time() - keep.orphans.total_seconds())
    freed = dataset.explain_cleanup_old_versions(versions=old, error_if_tagged_old_versions=False).stats if old else None
    return Tidied(
        fragments_removed=sum(len(task.fragments) for task in tasks),
        fragments_added=len(tasks),
        indices_built=missing_indices(dataset),
        indices_refreshed=stale_indices(dataset),
        versions_removed=len(old),
        versions_tagged=tagged,
        orphans_removed=len(found),
        bytes_freed=sum(size for _, size in found) + (freed.bytes_removed if freed else 0),
    )


def optimize(ledger: Ledger, keep: Keep = Keep(), target_recall: float | None = None) -> dict[str, Tidied]:
    """Compact, build and refresh the indices, forget versions and orphans: of the ledger's table and of those beside it.

    Args:
        ledger: of the table.
        keep: what to leave alone.
        target_recall: at 10, that searches with the vector index are to reach; None for the one that was asked for last.

    Returns:
        What was done, by table.

    Raises:
        LeaseLostError: another writer has taken over; what was committed stays.
        OSError: the store, or a program that writes without the lease, came in the way again and again.
    """
    done = {}
    for name, uri in _tables(ledger.uri).items():
        done[name] = tidied = Tidied()
        compact(uri, keep.memory_mb, ledger.check_lease, tidied)
        if uri == ledger.uri:
            keep_indices(uri, ledger.check_lease, tidied, target_recall)
        else:
            refresh(uri, ledger.check_lease, tidied)
        ledger.check_lease()
        _forget_versions(uri, ledger.store_time() - keep.versions.total_seconds(), tidied)
        remove_orphans(uri, ledger.store_time() - keep.orphans.total_seconds(), ledger.check_lease, tidied)
    _remove_probes(ledger.uri, ledger.store_time() - keep.orphans.total_seconds())
    ledger.refresh()
    return done


def _forget_versions(uri: str, replaced_before: float, tidied: Tidied) -> None:
    dataset: Any = open_table(uri)
    old, tidied.versions_tagged = stale_versions(dataset, replaced_before)
    if old:
        stats = dataset.cleanup_old_versions(versions=old, error_if_tagged_old_versions=False)
        tidied.versions_removed += stats.old_versions
        tidied.bytes_freed += stats.bytes_removed


def stale_versions(dataset: Any, replaced_before: float) -> tuple[list[int], int]:
    """Versions that were replaced before a time of the store's, seconds since 1970, and how many more a tag keeps.

    A reader may have opened a version just before the next one came, however old it was by then.
    """
    tagged = {tag["version"] for tag in dataset.tags.list().values()}
    versions = pairwise(dataset.versions())  # their times are without a zone, and `timestamp` takes them as local, as they are
    old = [old["version"] for old, newer in versions if newer["timestamp"].timestamp() < replaced_before]
    return [version for version in old if version not in tagged], len(tagged.intersection(old))


def remove_orphans(uri: str, written_before: float, check: Callable[[], None], tidied: Tidied) -> None:
    """Remove files of killed runs: of the table's own folders, that no version refers to, written before a time of the store's.

    Nothing is removed from a table with branches: what they refer to is not listed with it.
    """
    found = orphans(open_table(uri), written_before)
    check()  # what was listed before is not of a writer that came after
    fs, root = filesystem(uri)
    for path, size in found:
        fs.rm_file(f"{root.rstrip('/')}/{path}")
        tidied.orphans_removed += 1
        tidied.bytes_freed += size


def orphans(dataset: Any, written_before: float) -> list[tuple[str, int]]:
    """Paths and sizes of such files, listed before what versions refer to, so that what is committed meanwhile is spared."""
    if dataset.branches.list():
        return []
    files = dataset.all_files().read_all().select(["path", "size_bytes", "last_modified"]).to_pylist()
    referred = {path for batch in dataset.tracked_files() for path in batch["path"].to_pylist()}
    return [
        (file["path"], file["size_bytes"])
        for file in files
        if file["path"].partition("/")[0] in _ORPHANS_LIE_IN
        and file["path"] not in referred
        and file["last_modified"].timestamp() < written_before
    ]


def _remove_probes(uri: str, written_before: float) -> None:
    """Remove what the lease's probes of killed runs have left."""
    db, _, name = uri.removesuffix(".lance").rpartition("/")
    fs, root = filesystem(f"{db}/_bindery/{name}")
    for entry in fs.ls(root, detail=True):
        if entry["name"].rpartition("/")[2].startswith("probe-"):
            when = fs.modified(entry["name"])
            if (when.timestamp() if isinstance(when, datetime) else when) < written_before:
                fs.rm_file(entry["name"])


def _tables(uri: str) -> dict[str, str]:
    """The table and those beside it that exist, by name."""
    stem = uri.removesuffix(".lance")
    uris = [uri, *(f"{stem}__{kind}.lance" for kind in BESIDE)]
    return {u.removesuffix(".lance").rpartition("/")[2]: u for u in uris if open_table(u) is not None}
