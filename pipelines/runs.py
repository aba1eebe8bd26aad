"""What was done to a table, run by run: `<table>__runs`. In: reports. Out: a Lance table with a row a run, newest last."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import lance
import pyarrow as pa

from pipelines.log import name_run
from pipelines.storage import lance_options
from pipelines.table import open_table, table_uri

RUN_COLUMNS = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("job", pa.string(), nullable=False),
        pa.field("started_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("exit_code", pa.int32(), nullable=False),
        pa.field("failures", pa.list_(pa.string()), nullable=False),
        pa.field("report", pa.string(), nullable=False),  # the whole of it, JSON
    ]
)


_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # what Ray tells the entrypoint of a submitted job about itself, as JSON


def new_run_id() -> str:
    """The name of the run that begins, in its log, too: under `ray job submit` the submission id, else one nobody has."""
    submitted: str | None = json.loads(os.environ.get(_JOB_CONFIG, "{}")).get("metadata", {}).get("job_submission_id")
    run_id = submitted or uuid.uuid4().hex
    name_run(run_id)
    return run_id


def append_run(db: str, table: str, started_at: datetime, report: str, exit_code: int) -> None:
    """Add one run's report.

    Args:
        db: the database.
        table: whose run it was.
        started_at: with a time zone.
        report: one line of JSON with `run_id`, `job` and `seconds`, and perhaps `failures`.
        exit_code: of the job.
    """
    values = json.loads(report)
    row: dict[str, Any] = {name: values[name] for name in ("run_id", "job", "seconds")}
    row |= {"started_at": started_at, "exit_code": exit_code, "failures": values.get("failures", []), "report": report}
    uri = table_uri(db, f"{table}__runs")
    mode = "create" if open_table(uri) is None else "append"  # appends of several writers never conflict
    rows = pa.Table.from_pylist([row], schema=RUN_COLUMNS)
    lance.write_dataset(rows, uri, mode=mode, data_storage_version="2.2", storage_options=lance_options(uri))


def read_runs(db: str, table: str) -> Sequence[dict[str, Any]]:
    """All rows, oldest first; none where nothing was ever run."""
    dataset = open_table(table_uri(db, f"{table}__runs"))
    return [] if dataset is None else sorted(dataset.to_table().to_pylist(), key=lambda row: row["started_at"])
