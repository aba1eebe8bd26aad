"""What does a commit cost as a table grows? In: nothing. Out: benchmarks/results/commit_scale.json.

    .venv/bin/python -m benchmarks.commit_scale [FOLDER]

Stages synthetic rows and commits them with the program's own writer and ledger: first blocks of 512-d vectors, for the write
path; then tables of 1 and 10 million rows of short vectors (a commit never reads a vector), in few and in many fragments, into
which it appends, in which it replaces and from which it deletes 1,000 sources.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from lance.fragment import FragmentMetadata

from benchmarks.synthetic import MODALITY, block, machine, space_of, uris
from benchmarks.thresholds import missed
from encoders.space import Space
from pipelines.identity import source_id
from pipelines.lease import Lease
from pipelines.ledger import Ledger
from pipelines.table import item_schema, open_table
from pipelines.writer import stage

WIDE, NARROW = 512, 8  # dimensions
WRITE_ROWS, BLOCK_ROWS = 400_000, 25_000  # 800 MB of vectors, 50 MB a block
TABLES = ((1_000_000, 50_000), (1_000_000, 1_000), (10_000_000, 50_000))  # rows, rows of a fragment
SOURCES = 1_000
REPEATS = 3
RESULT = Path(__file__).parent / "results" / "commit_scale.json"


def fragments_of(uri: str, schema: pa.Schema, *blocks: pa.Table) -> list[FragmentMetadata]:
    """Stage blocks."""
    return [FragmentMetadata.from_json(text) for text in stage(uri, schema, *blocks).fragments]


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes, by the clock on the wall."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def write_path(space: Space, db: Path) -> dict[str, Any]:
    """Rows a second from blocks in memory to a committed table, one writer."""
    uri = str(db / "media.lance")
    with Lease(str(db), "media", "synthetic") as lease:
        ledger = Ledger(uri, lease, "synthetic")
        ledger.prepare(schema := item_schema(space, pa.schema([])))
        took_s, cpu_s = [], []
        for first in range(0, WRITE_ROWS, 2 * BLOCK_ROWS):
            blocks = [block(space, k, BLOCK_ROWS) for k in (first, first + BLOCK_ROWS)]  # not part of what is measured

            def write(blocks: Sequence[pa.Table] = blocks) -> None:
                ledger.commit(fragments_of(uri, schema, *blocks), [])

            began = time.process_time()
            took_s.append(seconds(write))
            cpu_s.append(time.process_time() - began)
    stored = sum(f.stat().st_size for f in (db / "media.lance" / "data").iterdir())
    return {
        "rows": WRITE_ROWS,
        "dimensions": WIDE,
        "rows_per_second": round(WRITE_ROWS / sum(took_s)),
        "rows_per_cpu_second": round(WRITE_ROWS / sum(cpu_s)),
        "best_rows_per_second": round(2 * BLOCK_ROWS / min(took_s)),
        "bytes_a_row": round(stored / WRITE_ROWS),
    }


def commits(space: Space, db: Path, rows: int, fragment_rows: int) -> dict[str, Any]:
    """A table of so many rows; median seconds of commits into it, and what opening it costs."""
    uri = str(db / "media.lance")
    with Lease(str(db), "media", "synthetic") as lease:
        ledger = Ledger(uri, lease, "synthetic")
        ledger.prepare(schema := item_schema(space, pa.schema([])))
        for first in range(0, rows, 1_000_000):
            staged = []
            for k in range(first, min(rows, first + 1_000_000), fragment_rows):
                staged += fragments_of(uri, schema, block(space, k, fragment_rows))
            ledger.commit(staged, [])
        dataset: Any = ledger.dataset
        found: dict[str, Any] = {"rows": rows, "fragments": len(dataset.get_fragments()), **opened(uri)}
        found |= timed(space, ledger, rows)
        found["after"] = opened(uri)
        began = time.perf_counter()
        dataset = ledger.dataset
        dataset.create_scalar_index("source_id", "BTREE")
        found["index_seconds"] = round(time.perf_counter() - began, 2)
        ledger.dataset = open_table(uri)
        found["with_index_on_source_id"] = timed(space, ledger, 2 * rows)
    return found


def timed(space: Space, ledger: Ledger, first: int) -> dict[str, float]:
    """Median seconds of commits that append, replace and delete; new items count from `first`."""
    rng = random.Random(first)
    took: dict[str, list[float]] = {"append_1000_rows": [], "replace_1000_sources": [], "delete_1000_sources": []}
    for repeat in range(REPEATS):
        new = block(space, first + repeat * SOURCES, SOURCES)
        for name in took:
            old = [] if name.startswith("append") else _some_sources(rng, min(first, 1_000_000))
            staged = [] if name.startswith("delete") else fragments_of(ledger.uri, item_schema(space, pa.schema([])), new)
            before = ledger.rows()
            began = time.perf_counter()
            ledger.commit(staged, old)
            took[name].append(time.perf_counter() - began)
            assert ledger.rows() <= before + SOURCES
    return {f"{name}_seconds": round(statistics.median(each), 3) for name, each in took.items()}


def _some_sources(rng: random.Random, below: int) -> list[str]:
    return [source_id(uris(k, 1)[0], MODALITY) for k in rng.sample(range(below), SOURCES)]


def opened(uri: str) -> dict[str, float]:
    """The size of the newest manifest, and how long it takes to open the table and to count its rows."""
    newest = min((Path(uri) / "_versions").glob("*.manifest"))  # V2: names count down
    return {
        "manifest_bytes": newest.stat().st_size,
        "open_seconds": round(statistics.median(seconds(lambda: open_table(uri)) for _ in range(5)), 4),
        "count_seconds": round(seconds(lambda: open_table(uri).count_rows()), 4),  # type: ignore[union-attr]
    }


def main() -> None:
    """Measure, write the result, print it."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as temporary:
        folder = Path(temporary)
        wide, narrow = space_of(folder / "wide", WIDE), space_of(folder / "narrow", NARROW)
        written = write_path(wide, folder / "wide-db")
        tables = []
        for rows, fragment_rows in TABLES:
            tables.append(commits(narrow, folder / f"db-{rows}-{fragment_rows}", rows, fragment_rows))
            print(json.dumps(tables[-1]), file=sys.stderr, flush=True)
    result = {
        "what": "writing and committing synthetic rows to a local disk, by the size of the table",
        **machine(),
        "write_path": written,
        "tables": tables,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    sys.exit(bool(missed(RESULT.name, result)))


if __name__ == "__main__":
    main()
