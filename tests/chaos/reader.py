"""A reader who never stops reading. In: a table's URI, the sources that may vanish. Out: every law that a version broke."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection
from typing import Any

import lance
import lancedb
import pyarrow as pa

from pipelines.storage import lance_options

COLUMNS = ["item_id", "source_id", "version", "segment_count"]
NOT_THERE = ("not found", "was not found", "no such file")


class Reader:
    """Reads the newest version over and over, with pylance and lancedb in turn, in a thread of its own; a context manager.

    Laws, of each version it sees: no item twice; all rows of a source of one version, and as many as they say; no source gone
    that was there, but those in `may_vanish`.
    """

    def __init__(self, db: str, may_vanish: Collection[str] = (), options: dict[str, str] | None = None) -> None:
        self._db = db
        self._options = lance_options(db) if options is None else options
        self._may_vanish = frozenset(may_vanish)
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self.reads = 0
        self.errors: Counter[str] = Counter()  # reads that failed: all right only where the store was made to fail
        self.broken: set[str] = set()

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=120)

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            try:
                rows = self._read()
            except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
                if not any(words in str(error).lower() for words in NOT_THERE):
                    self.errors[f"{type(error).__name__}: {str(error)[:200]}"] += 1
                    time.sleep(0.5)
                continue
            self.reads += 1
            self.broken |= self._laws_broken_by(rows)

    def _read(self) -> pa.Table:
        if self.reads % 2:
            table = lancedb.connect(self._db, storage_options=self._options or None).open_table("media")
            return table.search().select(COLUMNS).limit(1_000_000).to_arrow()
        return lance.dataset(f"{self._db}/media.lance", storage_options=self._options).to_table(columns=COLUMNS)

    def _laws_broken_by(self, rows: pa.Table) -> set[str]:
        broken = set()
        items = Counter(rows["item_id"].to_pylist())
        if items and max(items.values()) > 1:
            broken.add(f"{sum(n > 1 for n in items.values())} items twice")
        sources: dict[str, list[dict[str, Any]]] = {}
        for row in rows.to_pylist():
            sources.setdefault(row["source_id"], []).append(row)
        for its in sources.values():
            if len({row["version"] for row in its}) > 1:
                broken.add("a source in two versions")
            if {row["segment_count"] for row in its} != {len(its)}:
                broken.add("a part of a source")
        gone = self._seen - sources.keys() - self._may_vanish
        if gone:
            broken.add(f"{len(gone)} sources vanished")
        self._seen |= sources.keys()
        return broken
