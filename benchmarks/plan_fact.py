"""Does a run take what its dry run said? In: a folder. Out: benchmarks/results/plan_fact.json.

    .venv/bin/python -m benchmarks.plan_fact --folder DIR [--only NAME ...] [--check]

The corpora of the other benchmarks of speed, and the demo world: a dry run, then the run, as commands of their own. `seconds`
are those of the whole run; `work_s` leaves out what does not grow with the corpus (listing, start, end), whose share is large
in runs as short as these. --check: exit 1 if plan over fact is off by more than the goal. Files in DIR are used again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import workload
from benchmarks.synthetic import machine
from jobs.demo import SCENES

RESULT = Path(__file__).parent / "results" / "plan_fact.json"
GOAL = 0.15
CASES = {"instant": 3000, "ViT-B-32": 600, "audio": 200, "demo": 7 * SCENES}  # space: sources


def corpus_of(name: str, folder: Path) -> tuple[Path, str]:
    """The corpus and the space of a case."""
    if name == "demo":
        make = [sys.executable, "-m", "jobs.make_demo", "--scenes", str(SCENES), "--held-out", "--out", str(folder / "demo")]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        return folder / "demo", "demo"
    make_files = workload.sounds if name == "audio" else workload.jpegs
    return make_files(folder, CASES[name]), workload.space(folder, name)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """One case: what was planned, what came, the ratios."""
    corpus, space = corpus_of(name, folder)
    db, plan = folder / "db" / name, folder / f"plan-{name}.json"
    shutil.rmtree(db, ignore_errors=True)
    embed = [sys.executable, "-m", "jobs.embed", str(corpus), "--db", str(db), "--space", space]
    dry_s, planned = workload.timed([*embed, "--dry-run", "--report", str(plan)])
    assert not db.exists(), "a dry run writes nothing"
    _, report = workload.timed([*embed, "--plan", str(plan)])
    assert not report["failures"], report
    fact: dict[str, Any] = report["plan_vs_fact"]
    foreseen = planned["plan"]
    said = {key: foreseen[key] for key in ("cpus", "gpus", "device", "plan_s", "load_s", "start_s", "bottleneck")}
    return {"dry_run_s": round(dry_s, 1), **said, "bottleneck_in_fact": report["bottleneck"], **fact}


def main() -> int:
    """Measure, write the result, print it, judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    known = json.loads(RESULT.read_text())["runs"] if RESULT.exists() else {}
    runs = {**known, **{name: {**measure(name, asked.folder), **machine()} for name in asked.only}}
    document = {"what": "what a dry run said a run would take, over what it took", "goal": f"1 +- {GOAL}", "runs": runs}
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(runs))
    return int(asked.check and any(abs(runs[name]["seconds"]["ratio"] - 1) > GOAL for name in asked.only))


if __name__ == "__main__":
    sys.exit(main())
