"""Make a table follow its corpora, on a schedule. In: a config file. Out: the table up to date, and a report.

python -m jobs.reindex --config nightly.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.config import run_job
from pipelines.reindex import ReindexSettings, reindex


@dataclass(frozen=True, kw_only=True)
class ReindexConfig(ReindexSettings):
    """Embed what is new or changed in several corpora, take over changed labels, and delete what they no longer have.

    Args:
        db: where the LanceDB database is, a folder or URI.
        corpora: a list of {corpus, modality, segment, include, exclude}, each as `embed` takes them; best in the --config file.
            What the table has of one of these corpora and no entry lists is deleted, soundtracks of listed videos included.
        table: its table.
        space: a shipped space's name, or the directory or URI of a saved one.
        segment: how sources are cut into items where a corpus does not say its own, as in `embed`.
        max_delete_fraction: if a larger share of a corpus' sources is gone, delete none of it and exit 1.
        retry_rejects: try again what was rejected before, though its bytes have not changed.
        item_timeout: seconds without a result after which a source is given up.
        max_reject_rate: exit 1 if a larger share of a corpus' listed sources is rejected.
        only_writer: take a store that ignores conditional writes; nothing else may write to the table meanwhile.
        allow_hosts: the only hosts that http(s) URLs of a corpus may name besides its own (names, addresses, globs), private
            ones too; without it all hosts with public addresses.
        dry_run: only plan: what would be done, and what that takes, a corpus at a time, as in `embed`.
        prices: machines that a dry run looks at, as in `embed`.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """argv -> exit code."""
    return run_job(ReindexConfig, reindex, argv)


if __name__ == "__main__":
    sys.exit(main())
