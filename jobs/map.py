"""Draw a table as a map: near means alike. In: a table. Out: a page to look around in, or a picture.

python -m jobs.map --db demo/index --out map.html
python -m jobs.map --db s3://bucket/index --modality image,audio --labels species --out map.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jobs.config import DryRun, JsonReport, planned, run_job
from pipelines.index import open_index
from pipelines.storage import filesystem
from pipelines.table_map import map_items, map_table


@dataclass(frozen=True, kw_only=True)
class MapConfig(DryRun):
    """Draw the items of a table in two dimensions.

    Args:
        db: where the LanceDB database is, a folder or URI.
        out: where the map goes, a path or URI that ends with .html (a page) or .png (a picture).
        table: its table.
        labels: the table's columns to colour by, comma-separated; by default its own ones of few different values.
        modality: only these, comma-separated, e.g. audio,video.
        where: an SQL condition on the table's columns, e.g. "duration_s < 5".
        limit: how many items at most; of more, so many are drawn by lot.
        method: umap or pca; by default umap, if it is installed and there are enough items.
        seed: of the lot and of UMAP.
    """

    db: str
    out: str
    table: str = "media"
    labels: str | None = None
    modality: str | None = None
    where: str | None = None
    limit: int = 5000
    method: Literal["umap", "pca"] | None = None
    seed: int = 0


def draw(config: MapConfig) -> JsonReport:
    """Write the map.

    Raises:
        ValueError: nothing to map, bad arguments, or `out` is neither a page nor a picture.
    """
    if not config.out.endswith((".html", ".png")):
        raise ValueError(f"--out {config.out}: a map is a page or a picture, so its name ends with .html or .png")
    index = open_index(config.db, config.table)
    asked: dict[str, Any] = {
        "labels": config.labels.split(",") if config.labels else None,
        "modality": config.modality.split(",") if config.modality else None,
        **{name: getattr(config, name) for name in ("where", "limit", "method", "seed")},
    }
    if config.dry_run:
        items = map_items(index, **asked)
        drawn = {"items": len(items.rows), "of": items.count, "method": items.method, "labels": list(items.labels)}
        return planned("map", {"out": config.out, **drawn, "vector_bytes": 4 * index.space.dim * len(items.rows)})
    found = map_table(index, **asked)
    content = found.page().encode() if config.out.endswith(".html") else found.picture()
    files, path = filesystem(config.out)
    files.pipe_file(path, content)
    report = {"out": config.out, "items": len(found.points), "of": found.count, "method": found.method}
    return JsonReport({**report, "labels": list(found.labels), "bytes": len(content)})


def main(argv: Sequence[str] | None = None) -> int:
    """argv -> exit code."""
    return run_job(MapConfig, draw, argv)


if __name__ == "__main__":
    sys.exit(main())
