"""From embedded blocks to commits. In: references to blocks of rows. Out: staged Lance fragments, committed every so often.

A source's rows are staged together: blocks with a part of a longer source wait for its other parts (pipelines/parts.py).

The driver holds references only: workers write the fragments, coalesced to 64 MB or one commit interval, and hand back their
metadata; the one committer commits it. What a retried task staged twice is committed once, by the copy that came back.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data  # not ray alone: a Stager imports when it starts what its first block of a Dataset would
from lance.fragment import FragmentMetadata, write_fragments

from pipelines.bottleneck import MEASURES
from pipelines.heap import give_freed_memory_back
from pipelines.labels import relabelled_rows
from pipelines.ledger import Ledger
from pipelines.log import note
from pipelines.parts import Arrival, Parts, Taken, arrivals, torn, without
from pipelines.rejects import Rejected, Rejects, note_rejects
from pipelines.report import Tally
from pipelines.storage import lance_options

COMMIT_INTERVAL_S = 30.0
COMMIT_ITEMS = 100_000
FRAGMENT_BYTES = 64 * 1024**2
REJECTS_AT_ONCE = 10_000
RELABEL_SOURCES = 200_000  # whose labels the driver holds until it commits them
RELABEL_ROWS = 16_384  # with vectors and all, that it holds while it writes them anew
SAVE_S = 20.0  # what a scheduler's grace period leaves for a clean stop
CPUS_PER_STAGER = 16
GIVEN_BACK_BYTES = 64 * 1024  # pages and columns of a fragment are larger
STAGING_TASKS = 4  # at most at once: back-pressure on the blocks waiting to be written
_SOURCE_COLUMNS = ("source_id", "modality", "size_bytes", "_was_rejected", "_last", "_part")
_NAMES = ("source_id", "uri", "modality", "version")
_TORN = "a task was run again and came out differently, so that not every segment is there once; the next run tries it again"


@dataclass(frozen=True)
class Staged:
    """What one staging task has written, and what the driver must do when it commits it."""

    fragments: list[str]  # Lance fragment metadata as JSON
    measured: Mapping[str, Mapping[str, float]]  # by modality: sources, items, bytes, rows and MEASURES
    replaced: list[str]  # source ids whose older rows go
    cleared: list[str]  # source ids whose rejects go
    rejected: list[Rejected]


def stage(uri: str, schema: pa.Schema, *blocks: pa.Table) -> Staged:
    """Write the good rows of some blocks as fragments of a table, without committing them.

    The blocks hold whole sources: one of whose segments any was rejected, or is not there once, is rejected.
    """
    rows = pa.concat_tables(blocks)
    bad = rows.filter(pc.is_valid(rows["_reject_stage"]))
    good = without(rows, bad["source_id"].combine_chunks())
    incomplete = torn(good)
    remains = good.select(_NAMES).filter(pc.is_in(good["source_id"], incomplete)).to_pylist()
    good = without(good, incomplete)
    sources = good.select(_SOURCE_COLUMNS)  # not the vectors, which need not be copied for this
    sources = sources.filter(pc.and_(sources["_last"], pc.equal(sources["_part"], 0)))  # one row each, were it of several parts
    rejected = {row["source_id"]: Rejected.of_row(row) for row in bad.to_pylist()}
    rejected |= {row["source_id"]: Rejected(**row, stage="read", error_type="TornSource", message=_TORN) for row in remains}
    unread = pa.array([i for i, reject in rejected.items() if reject.stage == "read"], pa.string())  # their old rows stay
    replaced = rows["source_id"].filter(pc.and_(rows["_replaces"], pc.invert(pc.is_in(rows["source_id"], unread))))
    return Staged(
        fragments=[json.dumps(f.to_json()) for f in write_items(uri, schema, _with_counts(good))],
        measured=_measured(rows, good, sources),
        replaced=pc.unique(replaced).to_pylist(),
        cleared=sources.filter(sources["_was_rejected"])["source_id"].to_pylist(),
        rejected=list(rejected.values()),
    )


def _measured(rows: pa.Table, good: pa.Table, sources: pa.Table) -> dict[str, dict[str, float]]:
    """Sums by modality: of all rows that went through a tower, of those that became items, of the sources that are embedded."""
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    columns = {"rows": (rows, MEASURES), "items": (good, ()), "sources": (sources, ("size_bytes",))}
    for name, (table, summed) in columns.items():
        sums = table.group_by("modality").aggregate([([], "count_all"), *((column, "sum") for column in summed)])
        for row in sums.to_pylist():
            found[row["modality"]][name] = row["count_all"]
            found[row["modality"]].update({column: row[f"{column}_sum"] or 0 for column in summed})
    return dict(found)


def write_items(uri: str, schema: pa.Schema, rows: pa.Table) -> list[FragmentMetadata]:
    """Rows as fragments of a table, not committed; columns that they lack are null."""
    columns = [rows[f.name] if f.name in rows.column_names else pa.nulls(rows.num_rows, f.type) for f in schema]
    items = pa.table(columns, names=schema.names).cast(schema)
    if not items.num_rows:
        return []
    return write_fragments(
        items, uri, schema=schema, mode="append", data_storage_version="2.2", storage_options=lance_options(uri)
    )


def _with_counts(rows: pa.Table) -> pa.Table:
    """The rows with `segment_count`, of their source."""
    counts = pc.value_counts(rows["source_id"])
    place = pc.index_in(rows["source_id"], counts.field("values"))
    return rows.append_column("segment_count", counts.field("counts").take(place).cast(pa.int32()))


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Stager:
    """An actor that writes fragments; it starts with the pipeline: no commit waits for imports or for Lance's threads."""

    def __init__(self) -> None:
        give_freed_memory_back(GIVEN_BACK_BYTES)
        write_fragments(pa.table({"row": [0]}), "memory://warm", mode="create")  # starts Lance's threads

    def stage(self, uri: str, schema: pa.Schema, late: Sequence[Sequence[str]], *blocks: pa.Table) -> Staged:
        """`stage`, in this process, without the rows of sources that come `late`, which are told for each block."""
        pairs = zip(blocks, late, strict=True)
        return stage(uri, schema, *(without(block, pa.array(ids, pa.string())) for block, ids in pairs))

    def look(self, block: pa.Table) -> list[Arrival]:
        """`arrivals`, in this process."""
        return arrivals(block)


@dataclass
class _Pending:
    """What is staged but not committed, and what the plan has rejected."""

    staged: list[Staged] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    @property
    def sources(self) -> int:
        """How many would be committed."""
        return sum(int(one.get("sources", 0)) for s in self.staged for one in s.measured.values())


class Writer:
    """The driver's end of the pipeline: stages blocks through workers and commits them; the tally counts what is committed."""

    def __init__(self, ledger: Ledger, rejects: Rejects, corpus: str, tally: Tally) -> None:
        self.ledger = ledger
        self._rejects = rejects
        self._corpus = corpus
        self._tally = tally
        self._blocks: list[Taken] = []
        self._bytes = 0
        self._since = time.monotonic()
        self._staging: list[Any] = []
        self._stagers: Iterator[Any] = iter(())
        self._labels: list[pa.Table] = []
        self._parts: Parts | None = None
        self._whole = 0  # rows that are a source each, taken so far
        self._pending = _Pending()

    def start(self, cpus: int, in_parts: bool) -> None:
        """Bring up the actors that write: one for every so many CPUs that embed.

        Args:
            cpus: of the cluster.
            in_parts: sources may come in several parts, so that blocks have to be looked into.
        """
        self._stagers = itertools.cycle([Stager.remote() for _ in range(max(1, cpus // CPUS_PER_STAGER))])  # type: ignore[attr-defined]
        self._parts = Parts() if in_parts else None

    def add(self, block: Any, size_bytes: int, rows: int) -> None:
        """Take a reference to a block of rows."""
        if self._parts is None:
            self._hold([Taken(block, size_bytes)])
            self._whole += rows
        else:
            self._parts.look(next(self._stagers).look.remote(block), block, size_bytes)

    def tick(self) -> None:
        """Stage and commit what is due; called often."""
        self._take_complete(wait=False)
        if self._bytes >= FRAGMENT_BYTES or time.monotonic() - self._since >= COMMIT_INTERVAL_S:
            self._stage_blocks()
        self._collect(wait=len(self._staging) > STAGING_TASKS)
        if self._pending.sources >= COMMIT_ITEMS or time.monotonic() - self._pending.since >= COMMIT_INTERVAL_S:
            self.commit()

    @property
    def sources(self) -> int:
        """How many are taken and complete, as far as workers have looked."""
        return self._whole if self._parts is None else self._parts.sources

    def reject(self, rejected: Sequence[Rejected], stale: Sequence[str]) -> None:
        """Take rejects and stale rejects that the plan found; they are written with the next commit, or when there are many."""
        self._pending.rejected += rejected
        self._pending.cleared += stale
        if len(self._pending.rejected) >= REJECTS_AT_ONCE:
            self.commit()

    def relabel(self, labels: pa.Table) -> None:
        """Take new labels of sources; `relabel_all` writes them, or it is done now if there are many.

        Args:
            labels: `source_id`, then the columns that change.
        """
        self._labels.append(labels)
        if sum(some.num_rows for some in self._labels) >= RELABEL_SOURCES:
            self.relabel_all()

    def relabel_all(self) -> None:
        """Write rows anew with the labels that were taken, vectors and all, and commit them in place of the old ones."""
        taken, self._labels = self._labels, []
        if not taken:
            return
        labels, dataset = pa.concat_tables(taken), self.ledger.dataset
        assert dataset is not None, "only rows of a table are relabelled"
        fragments: list[FragmentMetadata] = []
        sources: list[pa.Array] = []
        for rows in relabelled_rows(dataset, labels, self._corpus, RELABEL_ROWS):
            fragments += write_items(self.ledger.uri, dataset.schema, rows)
            sources.append(pc.unique(rows["source_id"]))
        written = pc.unique(pa.chunked_array(sources, pa.string())).to_pylist()  # what is written anew, nothing else
        if written:
            self.ledger.commit(fragments, written)
        self._tally.items_written += sum(f.physical_rows for f in fragments)
        self._tally.relabelled += len(written)

    def take(self, staged: Staged) -> None:
        """Take what is staged; the next commit commits it."""
        self._pending.staged.append(staged)  # in one step: a signal may come between any two
        for modality, measured in staged.measured.items():
            self._tally.add(modality, measured)

    def finish(self) -> None:
        """Stage and commit all that is left."""
        self._take_complete(wait=True)
        if self._parts is not None:
            self._hold(self._parts.rest())
        self._stage_blocks()
        while self._staging:
            self._collect(wait=True)
        self.commit()

    def save(self) -> None:
        """A clean stop: stage what is embedded, commit what is staged soon, give up the rest."""
        self._stage_blocks()
        deadline = time.monotonic() + SAVE_S
        while self._staging and time.monotonic() < deadline:
            ray.wait(self._staging, num_returns=len(self._staging), timeout=1.0)
            self._collect(wait=False)
        self.commit()

    def commit(self) -> None:
        """Commit what was taken. Items first: they are the truth; a crash before the rejects leaves a stale or missing one."""
        pending, self._pending = self._pending, _Pending()
        fragments = [FragmentMetadata.from_json(f) for s in pending.staged for f in s.fragments]
        replaced = [i for s in pending.staged for i in s.replaced]
        rejected = [*pending.rejected, *(r for s in pending.staged for r in s.rejected)]
        began = time.perf_counter()
        if fragments or replaced:
            self.ledger.commit(fragments, replaced)
            self._tally.commits += 1
        self.ledger.check_lease()
        self._rejects.write(rejected, self._corpus)
        self._rejects.clear([*pending.cleared, *(i for s in pending.staged for i in s.cleared)])
        self._tally.embedded += pending.sources
        self._tally.items_written += sum(f.physical_rows for f in fragments)
        self._tally.seconds["commit"] += (took_s := time.perf_counter() - began)
        self._tally.add_rejects(rejected)
        if pending.sources:
            note(f"committed {pending.sources:,} sources", stage="commit", sources=pending.sources, seconds=round(took_s, 3))
        note_rejects(rejected)

    def _take_complete(self, wait: bool) -> None:
        """Take the blocks all of whose sources are complete now; all those of one source at the same moment."""
        if self._parts is not None:
            self._hold(self._parts.complete(wait))

    def _hold(self, blocks: Sequence[Taken]) -> None:
        self._bytes += sum(one.size_bytes for one in blocks)
        self._blocks += blocks  # in one step: a stop in between would save half a source

    def _stage_blocks(self) -> None:
        blocks, self._blocks = self._blocks, []  # before they are staged: `save` after a stop must not stage them again
        self._bytes, self._since = 0, time.monotonic()
        if blocks:
            assert self.ledger.dataset is not None, "the ledger was not prepared"
            late, refs = [one.late for one in blocks], [one.block for one in blocks]
            self._staging.append(next(self._stagers).stage.remote(self.ledger.uri, self.ledger.dataset.schema, late, *refs))

    def _collect(self, wait: bool) -> None:
        if not self._staging:
            return
        done, self._staging = ray.wait(self._staging, num_returns=len(self._staging), timeout=0)
        if wait and not done:
            done, self._staging = ray.wait(self._staging, num_returns=1)
        for staged in ray.get(done):
            self.take(staged)
