"""Plan against fact. In: the report of a dry run, and what the run then took. Out: both, and their ratio."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipelines.cluster import Resources
from pipelines.log import say
from pipelines.report import Tally
from pipelines.storage import filesystem


def read_plan(uri: str, corpus: str, space: str) -> dict[str, Any]:
    """The plan in the report of a dry run.

    Args:
        uri: of the report.
        corpus: the run's, by its id.
        space: the run's, by its fingerprint.

    Raises:
        ValueError: there is no such report, or it is of another corpus or space.
    """
    again = f"make one with the same arguments and --dry-run --report {uri}"
    fs, path = filesystem(uri)
    try:
        report = json.loads(fs.cat_file(path))
        plan = report["plan"]
        needed = [plan["seconds"], plan["work_s"], *(one["by_clock_s"]["tower"] for one in plan["modalities"].values())]
        if not all(isinstance(value, int | float) for value in needed):
            raise TypeError("something else than numbers")
    except FileNotFoundError:
        raise ValueError(f"plan {uri!r} does not exist; {again}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"plan {uri!r} is no report of `bindery embed --dry-run` ({error!r:.100}); {again}") from None
    for what, planned, asked in (("corpus", report.get("corpus"), corpus), ("space", report.get("space_fingerprint"), space)):
        if planned != asked:
            raise ValueError(f"plan {uri!r} is of {what} {planned!r}, this run's is {asked!r}; {again}")
    return dict(plan)


def compare(plan: Mapping[str, Any], tally: Tally, seconds: float, resources: Resources) -> dict[str, Any]:
    """What was predicted and what came, and the one over the other; said in a line, too.

    `work_s` are the seconds between the first batch of an actor and its last, on average over the actors: the rest is listing,
    the start, and the end. Seconds a source are by the clock of the stage.

    Args:
        plan: as `read_plan` gives it.
        tally: of the run.
        seconds: of the run, by the clock.
        resources: that it ran on.
    """
    sources = {modality: int(one.get("sources", 0)) for modality, one in tally.measured.items()}
    actors = max(1, min(resources.gpus or resources.cpus, sum(sources.values())))
    work_s = sum(one["_tower_s"] + one["_idle_s"] for one in tally.measured.values()) / actors
    found: dict[str, Any] = {
        "seconds": _both(plan["seconds"], seconds),
        "work_s": _both(plan["work_s"], work_s),
        "with_towers": plan["with_towers"],
        "modalities": {},
    }
    for modality in sorted({*plan["modalities"], *sources}):
        planned, count = plan["modalities"].get(modality, {}), sources.get(modality, 0)
        found["modalities"][modality] = {"sources": _both(planned.get("sources", 0), count)}
        for stage in ("decode", "tower"):
            took_s = tally.measured[modality][f"_{stage}_s"] / count if count else 0.0
            found["modalities"][modality][f"{stage}_s"] = _both(planned.get("by_clock_s", {}).get(stage, 0.0), took_s)
    ratio = found["seconds"]["ratio"]
    say(f"planned {plan['seconds']:,.1f} s, took {seconds:,.1f} s: plan / fact {ratio}", stage="end", plan_vs_fact=ratio)
    return found


def _both(planned: float, actual: float) -> dict[str, float | None]:
    return {
        "planned": planned,
        "actual": float(f"{actual:.5g}"),
        "ratio": float(f"{planned / actual:.3g}") if actual else None,
    }
