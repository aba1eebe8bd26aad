"""Name the items of a table by words alone. In: a table, labels. Out: a column with the best label, one with its probability.

python -m jobs.classify --db s3://bucket/index --labels dog cat bell --column animal
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.config import run_job
from pipelines.classify import ClassifySettings, classify


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(ClassifySettings):
    """Write the best label of each item, and its probability, where they are missing; kill it anywhere and run it again.

    Args:
        db: where the LanceDB database is, a folder or URI.
        labels: the classes, in words.
        table: its table.
        column: where the label goes; its probability goes to COLUMN_probability. Both are made if they are not there.
        template: the sentence around a label.
        modality: only items of this modality.
        where: only items that meet this SQL condition, e.g. "duration_s < 5".
        space: what labels are embedded with; left out, the space that the table's metadata names.
        wait: how many seconds to wait for another writer to finish.
        dry_run: only count what is missing.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """argv -> exit code."""
    return run_job(ClassifyConfig, classify, argv)


if __name__ == "__main__":
    sys.exit(main())
