"""What it takes to score a space, before it is done. In: a pairs manifest, or a table. Out: counts, measured seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from encoders.evaluation import refuse_unshared
from encoders.space import Space
from pipelines.cluster import Resources
from pipelines.fresh_rows import fresh_rows
from pipelines.held_out import BLOCK_ROWS, draw_things, pick_pairs
from pipelines.media_rates import Rate, in_all, try_media
from pipelines.pairs import Member, column_of

# Of Python, Ray and its actors, of scoring and the report: what `evaluate` of 1,064 things took beside the rest, on two cores.
START_S = 20.0


def plan_pairs(spaces: Sequence[Space], manifest: str, labels: Sequence[str], limit: int) -> dict[str, Any]:
    """The media that `embed_pairs` would embed by each space, a few of them tried.

    Raises:
        PairsError: as `embed_pairs`.
    """
    resources, base = Resources.at_hand(), manifest.rpartition("/")[0] or "."
    rates, parts, things = dict[str, Rate](), {"starting, and the report": START_S}, 0
    for space in spaces:
        picked = pick_pairs(space, manifest, labels, limit=limit)
        things = len(picked.rows)
        actors = min(resources.gpus or resources.cpus, -(-things // BLOCK_ROWS))
        for modality in picked.modalities:
            name = modality if space is spaces[0] else f"{modality} by {space.name}"
            member = Member(modality, space.encoders[modality], base)
            rate, _ = try_media(member, picked.table[column_of(modality)].to_pylist(), with_tower=True)
            rates[name] = rate
            parts[f"preparing {name}"] = rate.media * rate.prepare_s / actors
            parts[f"the tower of {name}"] = rate.media * (rate.tower_s or 0.0) / actors
    media = sum(rate.media for rate in rates.values())
    tried = {name: asdict(rate) for name, rate in rates.items()}
    return {"things": things, "media": media, "tried": tried, **in_all(parts, resources)}


def plan_items(
    db: str, table: str, space: Space, same: str, labels: Sequence[str], limit: int, focus: Sequence[str]
) -> dict[str, Any]:
    """The rows that `read_items` would take, of each thing one a modality; nothing is embedded but the names of classes.

    Raises:
        ValueError: as `read_items`, and where `evaluate` could compare nothing, with this focus.
    """
    there = fresh_rows(db, table, space, [same, *labels], f"`{same}` IS NOT NULL")
    thing, things = draw_things(there, same, limit)
    taken = {(m, one) for m, one in zip(there.rows["modality"].to_pylist(), thing.tolist(), strict=True) if one >= 0}
    rows = Counter(modality for modality, _ in taken)
    there_of = {m: {one for modality, one in taken if modality == m} for m in space.modalities if m in rows}
    refuse_unshared(there_of, focus)
    size = 4 * space.dim * rows.total()
    return {
        "table": there.uri,
        "things": things,
        "rows": dict(sorted(rows.items())),
        "stale": there.stale,
        "vector_bytes": size,
    }
