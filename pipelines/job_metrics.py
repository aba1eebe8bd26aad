"""What a run does, for Prometheus. In: its tally and its table, whenever they may have moved. Out: `ray_bindery_*`, by Ray.

Ray serves them on the metrics port of the driver's node, and forgets them soon after the driver has ended: what a run did in
the end stands in `<table>__runs`. infra/monitoring has a dashboard and alerts made of them.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from pipelines.bottleneck import STAGES
from pipelines.ledger import Ledger
from pipelines.nearest import unindexed_rows
from pipelines.report import Tally

COUNTERS = {
    "planned_sources": (("modality",), "Sources to embed."),
    "embedded_sources": (("modality",), "Sources embedded, staged or committed."),
    "embedded_items": (("modality",), "Their items."),
    "embedded_bytes": (("modality",), "Their bytes."),
    "rejected_sources": (("error_type",), "Sources rejected in this run."),
    "batch_rows": (("modality",), "Rows that went through the towers."),
    "batch_slots": (("modality",), "Rows that the batches they went in had room for; rows / slots is the batch fill."),
    "stage_seconds": (("stage", "modality"), "Seconds of all workers: read, decode, tower, idle towers; the driver's: commit."),
    "items_written": ((), "Items committed."),
    "commits": ((), "Commits."),
}
GAUGES = {
    "running": ((), "1 while a run holds the table's lease and embeds."),
    "queued_sources": (("stage",), "Sources that wait: to be embedded (embed); embedded and staged, for a commit (commit)."),
    "unindexed_rows": ((), "Rows that searches compare one by one, as no vector index holds them."),
    "lease_seconds_left": ((), "Until others may take the table, were the lease not renewed again; 0 when it is lost."),
}
_MEASURED = {"items": "embedded_items", "size_bytes": "embedded_bytes", "rows": "batch_rows", "_slots": "batch_slots"}


class JobMetrics:
    """The metrics of one run; made when Ray runs.

    Args:
        table: tag of all of them.
        ledger: of the table.
    """

    def __init__(self, table: str, ledger: Ledger) -> None:
        self._counters = {name: Counter(f"bindery_{name}", text, ("table", *tags)) for name, (tags, text) in COUNTERS.items()}
        self._gauges = {name: Gauge(f"bindery_{name}", text, ("table", *tags)) for name, (tags, text) in GAUGES.items()}
        self._table = {"table": table}
        self._ledger = ledger
        self._told: dict[tuple[str, ...], float] = {}
        self._unindexed: tuple[int, int] = (-1, 0)  # version of the table, rows

    def update(self, tally: Tally, running: bool = True) -> None:
        """Tell what counters have gained since the last time, and all gauges: Ray forgets a gauge once it has exported it."""
        for modality, counts in tally.by_modality.items():
            self._add("planned_sources", counts["planned"], modality)
            self._add("embedded_sources", counts["embedded"], modality)
        for modality, measured in tally.measured.items():
            for name, counter in _MEASURED.items():
                self._add(counter, measured[name], modality)
            for stage in STAGES:
                self._add("stage_seconds", measured[f"_{stage}_s"], stage, modality)
        self._add("stage_seconds", tally.seconds["commit"], "commit", "")
        for error_type, count in tally.rejects.items():
            self._add("rejected_sources", count, error_type)
        self._add("items_written", tally.items_written)
        self._add("commits", tally.commits)
        self._set("running", int(running))
        for stage, waiting in queued(tally).items():
            self._set("queued_sources", waiting, stage)
        self._set("unindexed_rows", self._unindexed_rows())
        self._set("lease_seconds_left", self._ledger.lease_left_s())

    def _unindexed_rows(self) -> int:
        dataset = self._ledger.dataset
        assert dataset is not None, "the ledger was not prepared"
        if dataset.version != self._unindexed[0]:
            self._unindexed = dataset.version, unindexed_rows(dataset)
        return self._unindexed[1]

    def _add(self, name: str, value: float, *tags: str) -> None:
        added = value - self._told.get((name, *tags), 0)
        if added > 0:
            self._counters[name].inc(added, self._tags(COUNTERS[name][0], tags))
            self._told[name, *tags] = value

    def _set(self, name: str, value: float, *tags: str) -> None:
        self._gauges[name].set(value, self._tags(GAUGES[name][0], tags))

    def _tags(self, names: tuple[str, ...], values: tuple[str, ...]) -> dict[str, str]:
        return {**self._table, **dict(zip(names, values, strict=True))}


def queued(tally: Tally) -> dict[str, int]:
    """How many sources of a run wait, by what for."""
    counts = tally.by_modality.values()
    left = sum(max(0, one["planned"] - one["embedded"] - one["rejected"]) for one in counts)
    return {"embed": left, "commit": sum(one["embedded"] for one in counts) - tally.embedded}
