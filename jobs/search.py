"""Search a table from a shell. In: words, files, an item's id. Out: the nearest items, as a table and as JSON.

python -m jobs.search "dog barking" --db s3://bucket/index --modality audio
python -m jobs.search waves --image crane.jpg --db demo/index
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pipelines
from encoders.errors import MediaError
from encoders.media.types import URI
from jobs.config import DryRun, JsonReport, planned, run_job

_FILES = ("image", "video", "audio", "depth", "thermal", "imu")


@dataclass(frozen=True, kw_only=True)
class SearchConfig(DryRun):
    """Find the items nearest to words, files and items; several at once are added up.

    Args:
        text: words to search for.
        db: where the LanceDB database is, a folder or URI.
        table: its table.
        image: a picture to search by, a file or URI.
        video: a video to search by.
        audio: a sound to search by.
        depth: a depth map to search by.
        thermal: a thermal picture to search by.
        imu: a motion trace to search by.
        media: a file of another modality of the space to search by, as MODALITY=FILE, e.g. touch=a.touch.
        item_id: an item of the table to search by.
        modality: only find these, comma-separated, e.g. audio,video.
        where: an SQL condition on the table's columns, e.g. "duration_s < 5".
        k: how many items at most.
    """

    db: str
    text: str | None = None
    table: str = "media"
    image: str | None = None
    video: str | None = None
    audio: str | None = None
    depth: str | None = None
    thermal: str | None = None
    imu: str | None = None
    media: Sequence[str] = ()
    item_id: str | None = None
    modality: str | None = None
    where: str | None = None
    k: int = 10


def search(config: SearchConfig) -> JsonReport:
    """Print the hits for people; the report holds them for programs."""
    index = pipelines.open_index(config.db, config.table)  # imported now: `--help` needs no torch
    files: dict[str, Any] = {name: _file(path) for name in _FILES if (path := getattr(config, name)) is not None}
    files |= dict(map(_named, config.media))
    modality = config.modality.split(",") if config.modality is not None else None
    query = {"text": config.text, "item_id": config.item_id, **files}
    try:
        if config.dry_run:
            from pipelines.search_plan import plan_search  # now, for the same reason

            return planned("search", asdict(plan_search(index, query, modality, config.where, config.k)))
        hits = index.search(**query, modality=modality, where=config.where, k=config.k)
    except MediaError as error:
        raise ValueError(f"{', '.join(map(str, files.values())) or 'words'}: {error}") from error
    except TypeError as error:  # a file of a modality that the table's space has no encoder for
        raise ValueError(str(error)) from error
    print(hits)
    kept = [name for name in ("item_id", "uri", "modality", "start_s", "end_s", "text") if name in index.columns]
    found = hits.to_arrow().select(["similarity", "score", *kept]).to_pylist()
    return JsonReport({"query": hits.query, "db": config.db, "table": config.table, "hits": found})


def _named(word: str) -> tuple[str, Path | URI]:
    modality, _, name = word.partition("=")
    if not modality.isidentifier() or not name:
        raise ValueError(f"--media {word!r}: write MODALITY=FILE")
    return modality, _file(name)


def _file(name: str) -> Path | URI:
    if "://" in name:
        return URI(name)
    if not Path(name).is_file():
        raise ValueError(f"there is no file {name!r} to search by; words go in front, without a flag")
    return Path(name)


def main(argv: Sequence[str] | None = None) -> int:
    """argv -> exit code."""
    return run_job(SearchConfig, search, argv, positional=("text",))


if __name__ == "__main__":
    sys.exit(main())
