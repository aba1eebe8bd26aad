"""The main job: embed what a table does not hold yet. In: a corpus, a space, a table. Out: items in LanceDB, each exactly once.

uri -> {bytes} -> preprocess -> {small arrays} -> embed -> {vector} -> staged Lance fragment -> ONE commit
"""

from __future__ import annotations

import queue
import re
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from encoders.space import Space, load_space
from pipelines.cluster import Resources, start_ray
from pipelines.corpus import Corpus, open_corpus
from pipelines.identity import canonical_uri, recipe
from pipelines.known import Known, id_words, state_hash
from pipelines.lease import Lease
from pipelines.ledger import Ledger
from pipelines.plan import WHOLE, Planner
from pipelines.progress import EmbedProgress
from pipelines.rejects import Rejects
from pipelines.report import Audit, EmbedReport, Tally
from pipelines.stages import Decode, DecodeThenEmbed, Embed, Job
from pipelines.table import RESERVED_COLUMNS, check_space, item_schema, open_table, table_uri
from pipelines.writer import Writer

CPU_BATCH, GPU_BATCH = 32, 256
BLOCK_SOURCES = 128  # of one task at most: what a lost worker costs, and how even the end is
BLOCK_BYTES = 32 * 1024**2  # of inline media in one task at most
WAITING_BYTES = 64 * 1024**2  # of sources in the driver before they go to Ray's store
COMPACT_FRAGMENTS = 8  # from this many small ones on, the end of a run compacts
SMALL_FRAGMENT_ROWS = 100_000


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """What to embed, with what, into what; jobs/embed.py documents each for the command line."""

    corpus: str
    db: str
    table: str = "media"
    space: str = "demo"
    modality: str | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    limit: int | None = None
    retry_rejects: bool = False
    max_reject_rate: float = 0.05
    dry_run: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.table) or "__" in self.table:
            raise ValueError(f"table {self.table!r} is no name: letters, digits, '-', '_' and '.', and no '__', which is ours")
        if not 0 <= self.max_reject_rate <= 1:
            raise ValueError(f"max_reject_rate {self.max_reject_rate} is no share; it must be between 0 and 1")


class Todo:
    """The work of one modality: blocks of sources; in Ray's store (which spills to disk) as soon as there are many."""

    def __init__(self) -> None:
        self._waiting: list[pa.Table] = []
        self._parts: list[Any] = []
        self.rows = self._bytes = 0

    def add(self, sources: pa.Table) -> None:
        """Take some sources."""
        self.rows += sources.num_rows
        self._bytes += pc.sum(sources["size_bytes"]).as_py() or 0
        self._waiting.append(sources)
        waiting = sum(t.num_rows for t in self._waiting)
        if waiting >= 64 * BLOCK_SOURCES or sum(t.nbytes for t in self._waiting) >= WAITING_BYTES:
            start_ray()
            self._store(BLOCK_SOURCES)

    def datasets(self, actors: int) -> list[Any]:
        """All of it as Ray Datasets; a small job is cut finer, so that every actor has four blocks."""
        self._store(min(BLOCK_SOURCES, max(1, -(-self.rows // (4 * actors)))))
        return self._parts

    @property
    def mean_bytes(self) -> float:
        """Mean size of a source."""
        return self._bytes / self.rows

    def _store(self, rows: int) -> None:
        if self._waiting:
            sources = pa.concat_tables(self._waiting).combine_chunks()
            rows = max(1, min(rows, BLOCK_BYTES * sources.num_rows // max(1, sources.nbytes)))
            self._parts.append(ray.data.from_blocks([sources.slice(k, rows) for k in range(0, sources.num_rows, rows)]))
        self._waiting = []


def embed(settings: EmbedSettings) -> EmbedReport:
    """Embed every source of the corpus that the table does not hold in this version by this recipe.

    Each source ends in the table or among the rejects, exactly once, whatever is killed on the way; run it again to go on.

    Raises:
        ValueError: the arguments or the corpus cannot be used; nothing was started.
        OSError: the infrastructure stopped the run; run the same command again.
    """
    began = time.monotonic()
    space = load_space(settings.space)
    corpus = open_corpus(
        settings.corpus,
        modality=settings.modality,
        include=settings.include,
        exclude=settings.exclude,
        limit=settings.limit,
        reserved=RESERVED_COLUMNS,
        modalities=space.modalities,
    )
    db = canonical_uri(settings.db)
    uri, rejects_uri = table_uri(db, settings.table), table_uri(db, f"{settings.table}__rejects")
    existing = open_table(uri)
    if existing is not None:
        check_space(existing, space, uri)
    run_id = uuid.uuid4().hex
    tally = Tally()
    report = EmbedReport(
        run_id, corpus.id, uri, space.name, space.fingerprint, space.license, tally, settings.max_reject_rate, settings.dry_run
    )
    rejects = Rejects(rejects_uri, run_id)
    if settings.dry_run:
        for _ in Planner(corpus, space, _stored(existing), rejects.known(settings.retry_rejects), tally).batches():
            pass
    else:
        with Lease(db, settings.table, run_id) as lease, EmbedProgress(tally) as progress:
            _run(settings, space, corpus, Ledger(uri, lease, run_id), rejects, report, progress)
    report.seconds = round(time.monotonic() - began, 3)
    return report


@contextmanager
def _ray_errors() -> Iterator[None]:
    """Tell what the infrastructure did (try again) from what our code did wrong on a worker (a bug)."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OSError):
            raise OSError(f"a worker could not go on: {error.cause}; mend it and run the same command again") from error
        raise RuntimeError(f"a worker failed: {error}") from error  # never as the ValueError that it may be
    except (ray.exceptions.RayError, ray.data.exceptions.ExecutionTimeoutError) as error:
        raise OSError(f"Ray lost a worker or a node for good: {error}; run the same command again") from error
    except ValueError as error:  # the input was accepted: from here on it is a bug
        raise RuntimeError(f"cannot go on: {error}") from error


def _run(
    settings: EmbedSettings,
    space: Space,
    corpus: Corpus,
    ledger: Ledger,
    rejects: Rejects,
    report: EmbedReport,
    progress: EmbedProgress,
) -> None:
    """Plan, then embed modality by modality; what was committed stays, whatever happens."""
    tally = report.tally
    rows_before = ledger.rows()
    writer = Writer(ledger, rejects, corpus.id, tally)
    planner = Planner(corpus, space, _stored(ledger.dataset), rejects.known(settings.retry_rejects), tally)
    progress.say(f"listing {corpus.id}")
    todo: dict[str, Todo] = {}
    for work in planner.batches():
        writer.reject(work.rejected, work.stale_rejects)
        for modality, sources in work.todo.items():
            todo.setdefault(modality, Todo()).add(sources)
    progress.say(
        f"{tally.listed:,} sources listed: {tally.unchanged:,} unchanged, {sum(t.rows for t in todo.values()):,} to embed, "
        f"{tally.skipped.total():,} skipped, {tally.duplicate:,} duplicate"
    )
    if todo:
        ledger.prepare(item_schema(space, corpus.columns))
    with _ray_errors():
        try:
            if todo:
                start_ray()
                progress.begin()
                _embed_all(space, todo, writer, report, progress)
            writer.finish()
        except (KeyboardInterrupt, ray.exceptions.RayError):  # a stop or a lost worker: keep what is embedded
            writer.save()
            raise
    report.commits = ledger.commits
    if ledger.commits:
        ledger.compact(COMPACT_FRAGMENTS, SMALL_FRAGMENT_ROWS)
        report.audit = _audit(ledger.dataset, rows_before + tally.items_written - ledger.rows_removed)


def _embed_all(space: Space, todo: dict[str, Todo], writer: Writer, report: EmbedReport, progress: EmbedProgress) -> None:
    """Blocks of sources in, references to blocks of rows out, handed to the writer; largest sources first.

    With GPUs a Dataset for each modality, one after the other: CPU actors decode, GPU actors embed. With CPUs alone one Dataset
    for all: one pool of actors does it all, and seven modalities start it once (docs/decisions/0003-one-pool-on-cpus.md).
    """
    resources = Resources.of_cluster()
    writer.start(resources.cpus)
    largest_first = sorted(todo, key=lambda m: todo[m].mean_bytes, reverse=True)
    done = 0
    for group in [[m] for m in largest_first] if resources.gpus else [largest_first]:
        for entry in _entries(_embedded(space, {m: todo.pop(m) for m in group}, report, resources)):
            if entry is not None:
                done += entry.metadata.num_rows
                writer.add(entry.ref, entry.metadata.size_bytes)
            writer.tick()
            progress.update(done)


def _embedded(space: Space, group: dict[str, Todo], report: EmbedReport, resources: Resources) -> Any:
    """The Dataset of embedded rows of some modalities, not yet executed."""
    recipes = {m: recipe(e.fingerprint, WHOLE) for m, e in space.encoders.items()}
    batch = GPU_BATCH if resources.gpus else CPU_BATCH
    job = Job(space.uri, recipes, report.corpus, report.run_id, batch)
    parts = [part for work in group.values() for part in work.datasets(resources.gpus or resources.cpus)]
    dataset = parts[0].union(*parts[1:]) if len(parts) > 1 else parts[0]
    actors = min(resources.cpus, sum(part.num_blocks() for part in parts))
    if resources.gpus:
        dataset = _stage(dataset, Decode, job, actors, num_cpus=1)
        return _stage(dataset, Embed, job, resources.gpus, num_gpus=1, batch_size=batch)
    return _stage(dataset, DecodeThenEmbed, job, actors, num_cpus=1)


def _stage(dataset: Any, stage: type, job: Job, actors: int, batch_size: int | None = None, **resources: float) -> Any:
    """Add a pool of actors of full size from the start: pools that ramp up one by one starve what follows."""
    return dataset.map_batches(
        stage,
        fn_constructor_args=(job,),
        batch_format="pyarrow",
        batch_size=batch_size,
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(size=actors),
        **resources,
    )


def _entries(dataset: Any) -> Iterator[Any]:
    """Block entries (reference and metadata) as they come, and None once a second, so that commits stay on time."""
    found: queue.Queue[Any] = queue.Queue(maxsize=8)

    def pump() -> None:
        try:
            for bundle in dataset.iter_internal_ref_bundles():
                for entry in bundle.blocks:
                    found.put(entry)
            found.put(StopIteration())
        except BaseException as error:  # whatever ended the Dataset ends the loop that waits for it, too
            found.put(error)
            raise

    threading.Thread(target=pump, name="dataset", daemon=True).start()
    while True:
        try:
            entry = found.get(timeout=1.0)
        except queue.Empty:
            yield None
            continue
        if isinstance(entry, StopIteration):
            return
        if isinstance(entry, BaseException):
            raise entry
        yield entry


def _stored(dataset: Any | None) -> Known:
    """What the table holds: sources with the hash of their version and recipe."""
    if dataset is None:
        return Known([])
    batches = dataset.to_batches(columns=["source_id", "version", "recipe"])
    return Known((id_words(b["source_id"])[0], state_hash(b["version"], b["recipe"])) for b in batches if b.num_rows)


def _audit(dataset: Any, expected_rows: int) -> Audit:
    """Look at the table itself: is every id there once, and do the counts agree with the report?"""
    rows = dataset.count_rows()
    words = [np.column_stack(id_words(b["item_id"])) for b in dataset.to_batches(columns=["item_id"]) if b.num_rows]
    ids = np.concatenate(words) if words else np.empty((0, 2), np.uint64)
    ids = ids[np.lexsort((ids[:, 1], ids[:, 0]))]
    unique = not bool((ids[1:] == ids[:-1]).all(axis=1).any())
    return Audit(rows, unique, rows == expected_rows)
