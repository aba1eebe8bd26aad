"""Delete items for good. In: ids, URIs, a corpus or a condition. Out: a table without them, tombstones, and a report.

python -m jobs.delete --db s3://bucket/index --uri s3://bucket/media/private/ --reason "consent withdrawn" --purge
python -m jobs.delete --db s3://bucket/index --uri s3://bucket/media/private/a.jpg --undelete
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.config import run_job
from pipelines.delete import DeleteSettings, delete


@dataclass(frozen=True, kw_only=True)
class DeleteConfig(DeleteSettings):
    """Delete sources, with all their items, so that no later run brings them back; kill it anywhere and run it again.

    Args:
        db: where the LanceDB database is, a folder or URI.
        table: its table.
        id: the sources of these item ids or source ids.
        uri: the sources of these URIs; a slash at the end means all below it.
        corpus: all sources of this corpus.
        where: the sources of which an item meets this SQL condition, e.g. "duration_s < 5".
        reason: kept with the tombstones.
        purge: also make the bytes of all that was ever deleted unreachable in every old version, and prove it.
        drop_tags: with --purge, drop the tags that keep old versions.
        undelete: lift the tombstones instead, so that the next embed or reindex takes these sources again.
        wait: how many seconds to wait for another writer to finish.
        dry_run: only say what would go.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """argv -> exit code."""
    return run_job(DeleteConfig, delete, argv)


if __name__ == "__main__":
    sys.exit(main())
