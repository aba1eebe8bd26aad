"""Embed a corpus into a table. In: media anywhere. Out: vectors in LanceDB, each exactly once, and a report.

python -m jobs.embed s3://bucket/media --db s3://bucket/index
python -m jobs.embed s3://bucket/media --db s3://bucket/index --dry-run --report plan.json --config prices.yaml
python -m jobs.embed s3://bucket/media --db s3://bucket/index --plan plan.json
ray job submit --working-dir . -- python -m jobs.embed s3://bucket/media --db s3://bucket/index
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.config import run_job
from pipelines.embed import EmbedSettings, embed


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(EmbedSettings):
    """Embed every source of a corpus that the table does not hold yet; kill it anywhere and run it again.

    Args:
        corpus: a folder or prefix (local, s3://, gs://), a manifest (.parquet, .csv, .jsonl, .lance), tar shards, or a list of
            http(s) URLs (.txt).
        db: where the LanceDB database is, a folder or URI.
        table: its table.
        space: a shipped space's name, or the directory or URI of a saved one.
        modality: take every source as this; else it is found by manifest, path, bytes and name.
        segment: "whole" (one item a source), seconds for windows of video, audio and IMU ("10", or "10/5": length/hop),
            "scenes" of videos, "context" for texts in parts that fit the tower; or by modality: "video=scenes,audio=10/5".
        include: only sources whose path matches one of these globs.
        exclude: no sources whose path matches one of these globs.
        limit: take no more than this many of the sources that the globs let through.
        retry_rejects: try again what was rejected before, though its bytes have not changed.
        item_timeout: seconds without a result after which a source is given up, rejected.
        max_reject_rate: exit 1 if a larger share of the listed sources is rejected.
        only_writer: take a store that ignores conditional writes; nothing else may write to the table meanwhile.
        allow_hosts: the only hosts that http(s) URLs of a corpus may name besides its own (names, addresses, globs), private
            ones too; without it all hosts with public addresses.
        dry_run: only plan: what would be done and, measured on a sample, how long that takes, what it costs, what limits it.
        plan: the --report of a dry run; the report then compares it with what this run took.
        prices: a list of {name, cpus, gpus, usd_an_hour, tower_speedup}, best in a --config file: machines that a dry run looks
            at instead of assumed ones. tower_speedup: of one GPU over the device of the sample.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """argv -> exit code."""
    return run_job(EmbedConfig, embed, argv, positional=("corpus",))


if __name__ == "__main__":
    sys.exit(main())
