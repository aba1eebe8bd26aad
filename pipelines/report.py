"""What a run did, in numbers that must add up. In: counts from plan, stages and commits. Out: one line of JSON.

Laws, in sources: found == listed + skipped + duplicate; listed == unchanged + embedded + rejected.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.bottleneck import STAGES, verdict
from pipelines.forecast import Forecast
from pipelines.rejects import Rejected

FIRST_REJECTS = 5


@dataclass
class Tally:
    """Sources by what became of them. `rejected` includes those rejected before and not tried again.

    `deleted` and `relabelled` stand apart: deleted sources are not listed, relabelled ones are among the unchanged.
    """

    found: int = 0
    listed: int = 0  # that could be media of this space, each once
    skipped: Counter[str] = field(default_factory=Counter)  # by extension or reason
    duplicate: int = 0
    unchanged: int = 0
    embedded: int = 0
    rejected: int = 0
    rejected_before: int = 0
    rejects: Counter[str] = field(default_factory=Counter)  # of this run, by error type
    first_rejects: list[str] = field(default_factory=list)  # of this run, FIRST_REJECTS at most: URI and why; for people only
    unexpected: Counter[str] = field(default_factory=Counter)  # those of `rejects` that look like a bug of ours
    unreadable: int = 0  # rows of a manifest that cannot be read as sources; among the rejected
    planned: Counter[str] = field(default_factory=Counter)  # to embed, by reason: new, changed, stale
    relabelled: int = 0
    deleted: int = 0
    items_written: int = 0
    bytes_embedded: int = 0
    commits: int = 0  # of items
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # of all workers, by stage; of commits
    by_modality: dict[str, Counter[str]] = field(default_factory=dict)  # planned, embedded, rejected, bytes
    measured: dict[str, defaultdict[str, float]] = field(default_factory=dict)  # by modality, see pipelines/writer.py

    def of(self, modality: str) -> Counter[str]:
        """The counts of one modality."""
        return self.by_modality.setdefault(modality, Counter())

    def add(self, modality: str, measured: Mapping[str, float]) -> None:
        """Count what is embedded and staged, of one modality."""
        total = self.measured.setdefault(modality, defaultdict(float))
        for name, value in measured.items():
            total[name] += value
        self.of(modality)["embedded"] += int(measured.get("sources", 0))
        self.bytes_embedded += int(measured.get("size_bytes", 0))
        for stage in STAGES:
            self.seconds[stage] += measured[f"_{stage}_s"]

    def add_rejects(self, rejected: Sequence[Rejected]) -> None:
        """Count what is rejected and committed."""
        self.rejected += len(rejected)
        self.rejects.update(one.error_type for one in rejected)
        more = max(0, FIRST_REJECTS - len(self.first_rejects))
        self.first_rejects += [f"{one.uri}: {one.message[:200]}" for one in rejected[:more]]
        self.unexpected.update(one.error_type for one in rejected if not one.expected)
        for one in rejected:
            self.of(one.modality or "unknown")["rejected"] += 1

    def planned_words(self, to_embed: int) -> str:
        """The plan in a line for people."""
        rejected = self.listed - self.unchanged - to_embed  # before, or while planning
        none = "; nothing that was found is for this run: look at --include, --exclude and --modality"
        return (
            f"{self.listed:,} sources listed: {self.unchanged:,} unchanged, {to_embed:,} to embed, {self.skipped.total():,} "
            f"skipped, {self.duplicate:,} duplicate"
            + (f", {rejected:,} rejected" if rejected else "")
            + (none if self.skipped and not self.listed else "")
        )

    def broken_laws(self) -> list[str]:
        """The laws that do not hold, as text."""
        kept = self.found - self.skipped.total() - self.duplicate
        through = self.unchanged + self.embedded + self.rejected
        first = [] if self.listed == kept else [f"listed {self.listed} != found - skipped - duplicate {kept}"]
        return first + (
            [] if self.listed == through else [f"listed {self.listed} != unchanged + embedded + rejected {through}"]
        )


@dataclass(frozen=True)
class Audit:
    """What the table says after the last commit."""

    rows: int
    unique_ids: bool
    rows_as_expected: bool


@dataclass
class EmbedReport:
    """The report of an embed run."""

    run_id: str
    corpus: str
    table: str
    space: str
    space_fingerprint: str
    license: str
    tally: Tally
    max_reject_rate: float
    dry_run: bool = False
    commits: int = 0
    seconds: float = 0.0
    resources: Mapping[str, int] | None = None  # CPUs and GPUs that it was on in the end; None if there was nothing to embed
    audit: Audit | None = None
    plan: Forecast | None = None  # of a dry run
    plan_vs_fact: Mapping[str, Any] | None = None  # of a run that was given its plan

    @property
    def failures(self) -> list[str]:
        """The gates that failed and the laws that do not hold; empty when all is well."""
        tally, found = self.tally, []
        if tally.listed and tally.rejected / tally.listed > self.max_reject_rate:
            found.append(
                f"{tally.rejected} of {tally.listed} sources rejected, above --max-reject-rate {self.max_reject_rate}"
                + (f", {tally.rejected_before} of them by earlier runs" if tally.rejected_before else "")
                + f"; the table {self.table.removesuffix('.lance').rpartition('/')[2]}__rejects names them"
            )
        found += [
            f"unexpected {kind} in {count} of {tally.listed} sources: likely a bug, see the rejects table"
            for kind, count in tally.unexpected.items()
            if count > 0.01 * tally.listed
        ]
        if not self.dry_run:
            found += tally.broken_laws()
        if self.audit and not (self.audit.unique_ids and self.audit.rows_as_expected):
            found.append("the audit of the table failed")
        return found

    @property
    def exit_code(self) -> int:
        """0 done; 1 done but a gate failed."""
        return int(bool(self.failures))

    def to_json(self) -> str:
        """One line of JSON."""
        tally = dict(vars(self.tally))  # not asdict: it takes a Counter apart
        counts = dict(tally)
        counts["skipped_by_kind"], counts["skipped"] = counts["skipped"], self.tally.skipped.total()
        own = {k: v for k, v in vars(self).items() if k not in ("tally", "max_reject_rate", "audit")}
        own["audit"] = self.audit and vars(self.audit)
        own["plan"] = self.plan and self.plan.to_json()
        counts["seconds_by_stage"] = {name: round(took_s, 3) for name, took_s in counts.pop("seconds").items()}
        del counts["commits"], counts["measured"]  # `own` counts all commits; the latter is for Prometheus
        del counts["first_rejects"]  # reports are kept in the runs table, and a purge leaves no URI in any
        limit = verdict(self.tally.seconds)
        return json.dumps({"job": "embed", **own, **counts, "bottleneck": limit, "failures": self.failures})
