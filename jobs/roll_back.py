"""Take a promotion back: the space that tables use becomes what it was before.

python -m jobs.roll_back SPACE [--revision N] [--db URI --table media]
In: a space directory that something was promoted into. Out: the former space, as a new revision; which rows are stale now.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from jobs.config import DryRun, JsonReport, planned, run_job
from jobs.verdict import tell_stale
from pipelines.promotion import roll_back


@dataclass(frozen=True, kw_only=True)
class RollBackConfig(DryRun):
    """Make a former revision of a space the one that tables use again.

    Args:
        space: the space directory or URI.
        revision: which, a number of its folder revisions/; by default the one before the last promotion.
        db: a LanceDB database whose stale rows are counted.
        table: its table.
    """

    space: str
    revision: int | None = None
    db: str = ""
    table: str = "media"


def run(config: RollBackConfig) -> JsonReport:
    """Roll back, and say what changed.

    Raises:
        ValueError: no such space or revision.
    """
    done = roll_back(config.space, config.revision, config.db, config.table, dry_run=config.dry_run)
    if config.dry_run:
        return planned("roll_back", asdict(done))
    tell_stale(done.replaced, done.stale_rows, config.db, config.table)
    return JsonReport(asdict(done))


def main(argv: Sequence[str] | None = None) -> int:
    """argv -> exit code."""
    return run_job(RollBackConfig, run, argv, positional=("space",))


if __name__ == "__main__":
    sys.exit(main())
