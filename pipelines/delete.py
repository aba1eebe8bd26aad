"""Removing items for good. In: ids, URIs, a corpus or a condition. Out: a table without these sources, and their tombstones.

A source's rows go together: a segment alone would leave a source that counts as embedded and is not. The order, under the
writer's lease: tombstones, then one fenced commit, then the rejects. A crash in between leaves rows that the next `delete`
removes, whatever it is asked for; no crash brings a deleted source back.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.compaction import LEAST_MEMORY_MB
from pipelines.damage import batches_where
from pipelines.filters import conjunction, explained, is_in, quoted
from pipelines.identity import canonical_uri, item_id, source_id
from pipelines.lease import Lease, held
from pipelines.ledger import Ledger, any_of, in_slices
from pipelines.purge import Proof, Purged, prove, purge, refuse_pinned, vector_bytes
from pipelines.rejects import Rejects
from pipelines.runs import new_run_id
from pipelines.table import VECTOR, existing_table, open_table, table_uri
from pipelines.tombstones import TOMBSTONE_COLUMNS, Tombstones

PROVED_SOURCES = 10_000  # of so many the bytes are searched for; the hashes of all are compared
EXAMPLES = 5
_SOURCE = ("source_id", "uri", "modality", "corpus")
_NO_SOURCES = pa.schema([TOMBSTONE_COLUMNS.field(name) for name in _SOURCE]).empty_table()


@dataclass(frozen=True, kw_only=True)
class DeleteSettings:
    """What to delete from which table; jobs/delete.py documents each for the command line."""

    db: str
    table: str = "media"
    id: Sequence[str] = ()
    uri: Sequence[str] = ()
    corpus: str | None = None
    where: str | None = None
    reason: str | None = None
    purge: bool = False
    drop_tags: bool = False
    undelete: bool = False
    wait: float = 600.0
    dry_run: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("id", "uri", "corpus", "where") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"say what to delete by one of --id, --uri, --corpus and --where, not by {' and '.join(given) or 'none'}"
            )
        for one in self.id:
            if not re.fullmatch("[0-9a-f]{32}", one):
                raise ValueError(f"id {one!r} is none: 32 hex digits, as in the columns item_id and source_id")
        if self.undelete and self.purge:
            raise ValueError("--undelete takes a deletion back; it cannot go with --purge")

    def condition(self, by_id: Sequence[str]) -> str:
        """The SQL condition on a table's columns.

        Args:
            by_id: the columns that `id` is compared with.

        Raises:
            ValueError: `where` is not one closed expression, or a URI is none.
        """
        if self.id:
            return " OR ".join(is_in(column, self.id) for column in by_id)
        if self.uri:
            return " OR ".join(_is_below(uri) for uri in self.uri)
        if self.corpus:
            return is_in("corpus", sorted({self.corpus, canonical_uri(self.corpus)}))
        return conjunction(self.where) or ""


def _is_below(uri: str) -> str:
    """One URI is meant exactly; with a slash at its end, all that lie below it."""
    canonical = canonical_uri(uri)
    if uri.endswith("/"):
        return f"starts_with(uri, {quoted(canonical.rstrip('/') + '/')})"
    return f"uri = {quoted(canonical)}"


@dataclass
class DeleteReport:
    """What a delete job did. `items` are rows; `rejects` are sources that had none."""

    run_id: str
    table: str
    dry_run: bool
    undelete: bool
    sources: int = 0
    items: int = 0
    rejects: int = 0
    examples: list[str] = field(default_factory=list)  # URIs, of a dry run only: a purged one is not for logs
    purged: dict[str, Purged] = field(default_factory=dict)
    proof: Proof | None = None
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 done; 1 done but rows are left, or the purge is not proved."""
        return int(bool(self.failures))

    def to_json(self) -> str:
        """One line of JSON."""
        values = {
            **vars(self),
            "purged": {k: vars(p) for k, p in self.purged.items()},
            "proof": self.proof and vars(self.proof),
        }
        return json.dumps(values)


def delete(settings: DeleteSettings) -> DeleteReport:
    """Delete sources, or take that back.

    Raises:
        ValueError: nothing, or nothing clear, is said to be deleted; no such table; tags keep what is to be purged.
        OSError: another writer holds the table after the wait, or the store is away; run the same command again.
    """
    began = time.monotonic()
    db = canonical_uri(settings.db)
    uri = table_uri(db, settings.table)
    dataset = existing_table(db, settings.table)
    tombstones = Tombstones(table_uri(db, f"{settings.table}__deleted"))
    rejects_uri = table_uri(db, f"{settings.table}__rejects")
    report = DeleteReport(new_run_id(), uri, settings.dry_run, settings.undelete)
    if not settings.undelete:
        condition = settings.condition(("item_id", "source_id"))
        with explained(settings.where, dataset.schema.names):
            dataset.scanner(columns=["source_id"], filter=condition).explain_plan()
    if settings.dry_run:
        chosen = _lifted(settings, tombstones) if settings.undelete else _chosen(settings, dataset, rejects_uri, report)
        report.sources = chosen.num_rows
        report.examples = [uri for uri in chosen["uri"].slice(0, EXAMPLES).to_pylist() if uri is not None]
    else:
        with held(Lease(db, settings.table, report.run_id), settings.wait) as lease:
            ledger = Ledger(uri, lease, report.run_id)
            if settings.undelete:
                ids = _lifted(settings, tombstones)["source_id"].to_pylist()
                report.sources = len(ids)
                tombstones.lift(ids)
            else:
                _delete(settings, ledger, rejects_uri, tombstones, report)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def _delete(settings: DeleteSettings, ledger: Ledger, rejects_uri: str, tombstones: Tombstones, report: DeleteReport) -> None:
    if settings.purge:
        for uri in _existing(ledger.uri, rejects_uri, tombstones.uri):
            refuse_pinned(uri, settings.drop_tags)
    chosen = _chosen(settings, ledger.dataset, rejects_uri, report)
    report.sources = chosen.num_rows
    strings = _strings(ledger.dataset, chosen) if settings.purge else set()
    ledger.check_lease()
    if chosen.num_rows:
        tombstones.add(chosen, report.run_id, settings.reason)
    dead = tombstones.find("true")  # with those of a run that died before its commit
    ids = dead["source_id"].to_pylist()
    before = ledger.rows()
    if _rows_left(ledger.dataset, dead):
        ledger.commit([], ids)
    report.items = ledger.rows_removed
    ledger.check_lease()
    Rejects(rejects_uri, report.run_id).clear(ids)
    if ledger.rows() != before - report.items or _rows_left(ledger.dataset, dead):
        report.failures.append("rows of deleted sources are left: a program that takes no lease has written meanwhile")
    if settings.purge:
        _purge(ledger, rejects_uri, tombstones, strings, report)


def _purge(ledger: Ledger, rejects_uri: str, tombstones: Tombstones, strings: set[bytes], report: DeleteReport) -> None:
    """Purge all that was ever deleted. Tombstones keep their URIs until it is proved: a rerun searches for these."""
    dead = tombstones.find("true")
    for row in dead.filter(pc.is_valid(dead["uri"])).slice(0, PROVED_SOURCES).to_pylist():
        strings |= {row["uri"].encode(), item_id(row["uri"], row["modality"]).encode()}
    report.proof = Proof()
    ids = dead["source_id"].combine_chunks()
    for uri in _existing(ledger.uri, rejects_uri):
        report.purged[_name(uri)] = purge(uri, LEAST_MEMORY_MB, ledger.check_lease)
        prove(uri, ids, strings, report.proof)
    if dead.num_rows and not report.proof.failures:
        ledger.check_lease()
        tombstones.forget_uris()
        report.purged[_name(tombstones.uri)] = purge(tombstones.uri, LEAST_MEMORY_MB, ledger.check_lease)
        prove(tombstones.uri, ids.slice(0, 0), strings, report.proof)
    ledger.refresh()
    report.failures += report.proof.failures


def _existing(*uris: str) -> list[str]:
    return [uri for uri in uris if open_table(uri) is not None]  # not filter(): an empty dataset is false


def _name(uri: str) -> str:
    return uri.rpartition("/")[2].removesuffix(".lance")


def _chosen(settings: DeleteSettings, dataset: Any, rejects_uri: str, report: DeleteReport) -> pa.Table:
    """The sources to delete, each once; those that were rejected are found by id, URI and corpus."""
    items = _sources(dataset, settings.condition(("item_id", "source_id")))
    rejects = open_table(rejects_uri)
    rejected = _NO_SOURCES if rejects is None or settings.where else _sources(rejects, settings.condition(("source_id",)))
    rejected = rejected.filter(pc.invert(pc.is_in(rejected["source_id"], value_set=items["source_id"].combine_chunks())))
    report.rejects = rejected.num_rows
    if settings.dry_run:
        report.items = _rows_left(dataset, items)
    return pa.concat_tables([items, rejected])


def _lifted(settings: DeleteSettings, tombstones: Tombstones) -> pa.Table:
    """The tombstones to lift; a URI is found by its hash too, as a purge leaves nothing else."""
    condition = settings.condition(("source_id",))
    if settings.uri:
        modalities = pc.unique(tombstones.find("true")["modality"]).to_pylist()
        hashes = [source_id(canonical_uri(uri), modality) for uri in settings.uri for modality in modalities]
        condition += f" OR {any_of(hashes)}" if hashes else ""
    return tombstones.find(condition)


def _sources(dataset: Any, condition: str) -> pa.Table:
    """The sources of the rows that a condition chooses, each once."""
    seen: set[str] = set()
    parts = [_NO_SOURCES]
    for batch in batches_where(dataset, condition, columns=list(_SOURCE)):
        first = []
        for number, one in enumerate(batch["source_id"].to_pylist()):
            if one not in seen:
                seen.add(one)
                first.append(number)
        parts.append(
            pa.Table.from_batches([batch]).take(pa.array(first, pa.int64())).select(list(_SOURCE)).cast(_NO_SOURCES.schema)
        )
    return pa.concat_tables(parts)


def _rows_left(dataset: Any, sources: pa.Table) -> int:
    wanted = sources["source_id"].combine_chunks()
    batches = dataset.to_batches(columns=["source_id"])
    return sum(pc.sum(pc.is_in(b["source_id"], value_set=wanted)).as_py() or 0 for b in batches)


def _strings(dataset: Any, sources: pa.Table) -> set[bytes]:
    """The item ids, URIs and vectors of sources, as bytes."""
    strings: set[bytes] = set()
    for ids in in_slices(sources["source_id"].slice(0, PROVED_SOURCES).to_pylist()):
        for batch in batches_where(dataset, any_of(ids), columns=["item_id", "uri", VECTOR]):
            strings |= {text.encode() for column in ("item_id", "uri") for text in batch[column].to_pylist()}
            strings |= set(vector_bytes(batch[VECTOR]))
    return strings
