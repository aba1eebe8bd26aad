"""What a run does, for Prometheus. In: its tally, whenever it has moved. Out: counters that Ray exports, `ray_bindery_*_total`.

Ray serves them on the metrics port of the driver's node, and forgets them soon after the driver has ended: what a run did in
the end stands in `<table>__runs`. infra/monitoring has a dashboard and alerts made of them.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from pipelines.report import Tally

COUNTERS = {
    "planned_sources": (("modality",), "Sources to embed."),
    "embedded_sources": (("modality",), "Sources embedded, staged or committed."),
    "rejected_sources": (("error_type",), "Sources rejected in this run."),
    "embedded_bytes": ((), "Bytes of embedded sources."),
    "items_written": ((), "Items committed."),
    "commits": ((), "Commits."),
    "stage_seconds": (("stage",), "Seconds of all workers: reading, decoding, towers, towers idle, the driver's commits."),
}


class JobMetrics:
    """The counters of one run; made when Ray runs.

    Args:
        table: tag of all of them.
    """

    def __init__(self, table: str) -> None:
        self._counters = {
            name: Counter(f"bindery_{name}", text, tag_keys=("table", *tags)) for name, (tags, text) in COUNTERS.items()
        }
        self._running = Gauge("bindery_running", "1 while a run holds the table's lease and embeds.", tag_keys=("table",))
        self._table = {"table": table}
        self._told: dict[tuple[str, str], float] = {}

    def update(self, tally: Tally) -> None:
        """Tell what has been added since the last time."""
        self._running.set(1, tags=self._table)  # each time: Ray forgets a gauge once it has exported it
        for modality, counts in tally.by_modality.items():
            self._tell("planned_sources", counts["planned"], modality)
            self._tell("embedded_sources", counts["embedded"], modality)
        for error_type, count in tally.rejects.items():
            self._tell("rejected_sources", count, error_type)
        for stage, seconds in tally.seconds.items():
            self._tell("stage_seconds", seconds, stage)
        self._tell("embedded_bytes", tally.bytes_embedded)
        self._tell("items_written", tally.items_written)
        self._tell("commits", tally.commits)

    def end(self) -> None:
        """The run is over."""
        self._running.set(0, tags=self._table)

    def _tell(self, name: str, value: float, tag: str = "") -> None:
        added = value - self._told.get((name, tag), 0)
        if added > 0:
            tags = dict(zip(COUNTERS[name][0], (tag,), strict=False))
            self._counters[name].inc(added, tags={**self._table, **tags})
            self._told[name, tag] = value
