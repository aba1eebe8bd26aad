"""How much of the machine goes into the towers? In: names of towers. Out: benchmarks/results/efficiency.json.

    .venv/bin/python -m benchmarks.efficiency ViT-B-32 ViT-B-16 audio --folder DIR [--check]

Sources a second of `jobs.embed` from files to committed rows, over those of the bare forward loop of the same tower on the same
cores at the same batch size, a process a core, one before and one after; and over such a loop as our actors run it, by oneDNN
and keeping freed memory: what is missing there is decoding, on the same cores, and whatever else a run does. The start and the
end of a run, which do not grow with the corpus, are those of the same command over as many sources as a batch holds; the share
with them in it is told too. --check: exit 1 below the thresholds. Files in DIR are used again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks import workload
from benchmarks.synthetic import machine
from benchmarks.thresholds import missed

RESULT = Path(__file__).parent / "results" / "efficiency.json"
BARE_S = 15.0
COUNTS = {"ViT-B-32": 2000, "ViT-B-16": 600, "audio": 300}  # one to three minutes each on two cores


def measure(name: str, folder: Path) -> dict[str, Any]:
    """One tower: rates, and their ratio."""
    make, modality = (workload.sounds, "audio") if name == "audio" else (workload.jpegs, "image")
    space = workload.space(folder, name)
    corpora = {count: make(folder, count) for count in (workload.BATCH, COUNTS[name])}
    shutil.rmtree(folder / "db", ignore_errors=True)
    before = workload.bare_rate(space, modality, BARE_S)
    walls, stages = {}, {}
    for count, corpus in corpora.items():
        walls[count], report = workload.embed_s(corpus, folder / "db" / str(count), space)
        stages = report["seconds_by_stage"]
        assert report["embedded"] == count, report
    after = workload.bare_rate(space, modality, BARE_S)
    as_ours = workload.bare_rate(space, modality, BARE_S, as_ours=True)
    few, many = sorted(walls)
    rate = (many - few) / (walls[many] - walls[few])
    bare = (before + after) / 2
    return {
        "sources": many,
        "bare_per_s": round(bare, 2),
        "bare_before_and_after": [round(before, 2), round(after, 2)],
        "bare_as_ours_per_s": round(as_ours, 2),
        "per_s": round(rate, 2),
        "start_and_end_s": round(walls[few], 1),
        "efficiency": round(rate / bare, 3),
        "efficiency_as_ours": round(rate / as_ours, 3),
        "efficiency_with_start_and_end": round(many / walls[many] / bare, 3),
        "seconds_by_stage": stages,
    }


def main() -> int:
    """Measure, write the result, print it, judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("towers", nargs="+", choices=list(COUNTS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    known = json.loads(RESULT.read_text())["runs"] if RESULT.exists() else {}
    runs = {**known, **{name: {**measure(name, asked.folder), **machine()} for name in asked.towers}}
    document = {"what": "files to committed rows, over the bare forward loop on the same cores", "runs": runs}
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(runs))
    return int(asked.check and bool(missed(RESULT.name, document)))


if __name__ == "__main__":
    sys.exit(main())
