"""Keep a table fast and small. In: a table. Out: larger fragments, tuned indices, no stale versions and orphans, a report.

python -m jobs.optimize --db s3://bucket/index --keep-versions-for 7d
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.config import run_job
from pipelines.upkeep import UpkeepSettings, upkeep


@dataclass(frozen=True, kw_only=True)
class OptimizeConfig(UpkeepSettings):
    """Compact a table, build and tune its indices, clear old versions and orphans; kill it anywhere and run it again.

    Args:
        db: where the LanceDB database is, a folder or URI.
        table: its table; `<table>__rejects` and the others beside it are kept up with it.
        target_recall: what share of the ten nearest items a search with the vector index is to find, between any modalities;
            left out, what was asked for last, or 0.95.
        keep_versions_for: old versions stay so long after they were replaced, for readers at work; tagged ones stay anyway.
        keep_orphans_for: files that no version refers to stay so long after they were written.
        memory: bound of the memory that compaction takes, in MiB, beside the program itself.
        wait: how many seconds to wait for another writer to finish.
        dry_run: only say what would go.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """argv -> exit code."""
    return run_job(OptimizeConfig, upkeep, argv)


if __name__ == "__main__":
    sys.exit(main())
