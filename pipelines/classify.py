"""Items named by words, and the names kept. In: a table, labels. Out: two columns of it, filled where they are empty.

A fragment's rows are read, classified and written back in one commit; vectors and media are not rewritten. Killed anywhere,
what is committed stays, and the next run fills the rest: rows of new and of changed sources are empty.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa

from encoders.algebra import label_vectors
from encoders.space import Space, load_space
from pipelines.filters import conjunction, explained, is_in
from pipelines.identity import canonical_uri
from pipelines.lease import Lease, held
from pipelines.ledger import Ledger
from pipelines.runs import append_run, new_run_id
from pipelines.table import RESERVED_COLUMNS, SEARCH_COLUMNS, VECTOR, check_space, existing_table, table_uri, vectors_of
from pipelines.zero_shot import best_labels

BATCH_ROWS = 8192
COMMIT_ROWS = 1 << 20  # rows whose names are held until they are committed; a fragment's rows are committed together
_KEY = "bindery.classified."
_PROBABILITY = "_probability"


@dataclass(frozen=True, kw_only=True)
class ClassifySettings:
    """What to classify, and as what; jobs/classify.py documents each for the command line."""

    db: str
    labels: Sequence[str]
    table: str = "media"
    column: str = "label"
    template: str = "a photo of a {}"
    modality: str | None = None
    where: str | None = None
    space: str | None = None
    wait: float = 600.0
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.column in (*RESERVED_COLUMNS, *SEARCH_COLUMNS) or not self.column.isidentifier() or self.column.startswith("_"):
            raise ValueError(
                f"column {self.column!r} cannot be filled: it is the table's own, or no plain name; choose another --column"
            )

    @property
    def columns(self) -> tuple[str, str]:
        """Of the label, and of its probability."""
        return self.column, self.column + _PROBABILITY


@dataclass
class ClassifyReport:
    """What was written; `classified` counts rows by label."""

    run_id: str
    table: str
    columns: Sequence[str]
    classified: Counter[str] = field(default_factory=Counter)
    missing: int = 0  # rows that were to be classified: all of them in a dry run
    dry_run: bool = False
    seconds: float = 0.0
    exit_code: ClassVar[int] = 0
    failures: ClassVar[Sequence[str]] = ()

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({"job": "classify", **vars(self), "rows_written": self.classified.total()})


def classify(settings: ClassifySettings) -> ClassifyReport:
    """Write the best label and its probability into two columns of the table, where they are empty.

    Raises:
        ValueError: no such table, or the labels, the columns or the condition cannot be used; nothing was started.
        OSError: the table is still being written after the wait, or the store is away; run the same command again.
    """
    began, started_at = time.monotonic(), datetime.now(UTC)
    db = canonical_uri(settings.db)
    uri = table_uri(db, settings.table)
    dataset = existing_table(db, settings.table)
    space = _space_of(dataset, settings, uri)
    _check_columns(dataset, settings, uri)
    text_LD = label_vectors(space, settings.labels, settings.template)
    report = ClassifyReport(new_run_id(), uri, settings.columns, dry_run=settings.dry_run)
    report.missing = _missing(dataset, settings)
    if report.missing and not settings.dry_run:
        with held(Lease(db, settings.table, report.run_id), settings.wait) as lease:
            ledger = Ledger(uri, lease, report.run_id)
            _make_columns(ledger, settings)
            _fill(ledger, settings, space, text_LD, report)
            report.seconds = round(time.monotonic() - began, 3)
            append_run(db, settings.table, started_at, report.to_json(), report.exit_code)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def refuse_filled(dataset: Any, columns: Sequence[str], uri: str) -> None:
    """Refuse a corpus that would write what this job has written.

    Raises:
        ValueError: by the column's name.
    """
    ours = [key.decode().removeprefix(_KEY) for key in dataset.schema.metadata or {} if key.startswith(_KEY.encode())]
    for name in columns:
        if name.removesuffix(_PROBABILITY) in ours:
            raise ValueError(f"column {name!r} of {uri} is filled by `bindery classify`; give the manifest's another name")


def _space_of(dataset: Any, settings: ClassifySettings, uri: str) -> Space:
    told = (dataset.schema.metadata or {}).get(b"bindery.space_uri", b"demo").decode()
    space = load_space(settings.space or told)
    check_space(dataset, space, uri)
    if settings.modality is not None and settings.modality not in space.modalities:
        raise ValueError(f"modality {settings.modality!r}: this space has {', '.join(space.modalities)}")
    return space


def _check_columns(dataset: Any, settings: ClassifySettings, uri: str) -> None:
    """Refuse columns that another program, a manifest or other labels have filled."""
    told = (dataset.schema.metadata or {}).get(f"{_KEY}{settings.column}".encode(), b"").decode()
    there = [name for name in settings.columns if name in dataset.schema.names]
    if there and told != _terms(settings):
        how = f"with {told}" if told else "by something else than classify"
        raise ValueError(f"{uri} has a column {there[0]!r} already, filled {how}; choose another --column")


def _terms(settings: ClassifySettings) -> str:
    return json.dumps({"labels": list(settings.labels), "template": settings.template}, ensure_ascii=False)


def _make_columns(ledger: Ledger, settings: ClassifySettings) -> None:
    """First what the columns mean, then the columns: in the other order a kill would leave columns that nobody knows."""
    dataset: Any = ledger.dataset
    _check_columns(dataset, settings, ledger.uri)
    label, probability = settings.columns
    if label not in dataset.schema.names or probability not in dataset.schema.names:
        ledger.check_lease()
        dataset.update_schema_metadata({f"{_KEY}{label}": _terms(settings)})
        ledger.refresh()
        ledger.prepare(pa.schema([pa.field(label, pa.string()), pa.field(probability, pa.float32())]))


def _condition(dataset: Any, settings: ClassifySettings) -> str | None:
    ours = [is_in("modality", [settings.modality])] if settings.modality is not None else []
    if settings.column in dataset.schema.names:
        ours.append(f"{settings.column} IS NULL")
    return conjunction(settings.where, *ours)


def _missing(dataset: Any, settings: ClassifySettings) -> int:
    with explained(settings.where, dataset.schema.names):
        condition = _condition(dataset, settings)
        return int(dataset.scanner(columns=["item_id"], filter=condition, use_scalar_index=False).count_rows())


def _fill(ledger: Ledger, settings: ClassifySettings, space: Space, text_LD: Any, report: ClassifyReport) -> None:
    values: dict[int, pa.Table] = {}

    def commit() -> None:
        ledger.fill(values)
        for rows in values.values():
            report.classified.update(rows[settings.column].to_pylist())
        values.clear()

    for fragment_id, rows in _classified(ledger.dataset, settings, space, text_LD):
        values[fragment_id] = rows
        if sum(map(len, values.values())) >= COMMIT_ROWS:
            commit()
    if values:
        commit()


def _classified(dataset: Any, settings: ClassifySettings, space: Space, text_LD: Any) -> Iterator[tuple[int, pa.Table]]:
    """The rows to be written of each fragment: item_id, label, probability."""
    label, probability = settings.columns
    condition = _condition(dataset, settings)
    for fragment in dataset.get_fragments():
        found = [pd.DataFrame({"item_id": [], label: [], probability: []}, dtype=object)]
        columns = ["item_id", "modality", VECTOR]
        for batch in fragment.to_batches(columns=columns, filter=condition, batch_size=BATCH_ROWS, use_scalar_index=False):
            if batch.num_rows:
                best = best_labels(space, batch["modality"].to_pylist(), vectors_of(batch), settings.labels, text_LD)
                ids = {"item_id": batch["item_id"].to_pylist(), label: best["label"], probability: best["probability"]}
                found.append(pd.DataFrame(ids))
        if len(found) > 1:
            schema = pa.schema([("item_id", pa.string()), (label, pa.string()), (probability, pa.float32())])
            yield fragment.fragment_id, pa.Table.from_pandas(pd.concat(found[1:]), schema=schema, preserve_index=False)
