"""How fast is what people would use instead? In: runs, a folder. Out: benchmarks/results/peers.json, ratios of one run.

    uv pip install --target PEERS --no-deps daft==0.7.26 daft-lance tqdm
    .venv/bin/python -m benchmarks.peers instant photographs ViT-B-32 --folder DIR --peers PEERS [--check]

The same pictures and the same tower through `jobs.embed`, and through the programs of peer_scripts.py: Ray Data as its guide
has it, Daft, a DataLoader. Wall time of each whole command, one after the other; a peer's over ours, so that above 1 we are
faster. Daft is no dependency, as it holds pyarrow back; hence a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import workload
from benchmarks.synthetic import machine
from benchmarks.thresholds import missed

RESULT = Path(__file__).parent / "results" / "peers.json"
PEERS = ("ray_data", "daft", "data_loader")


class Run(NamedTuple):
    """A tower, and what it embeds."""

    tower: str
    corpus: Callable[[Path, int], Path]
    pictures: int


RUNS = {
    "instant": Run("instant", workload.jpegs, 10_000),  # decode-bound, small pictures
    "photographs": Run("instant", workload.photographs, 10_000),  # decode-bound, what lies in a bucket of them
    "ViT-B-32": Run("ViT-B-32", workload.jpegs, 2000),  # model-bound
}


def measure(name: str, folder: Path, peers: Path) -> dict[str, Any]:
    """One run: seconds of each, and ratios to ours."""
    run = RUNS[name]
    space, corpus, out = workload.space(folder, run.tower), run.corpus(folder, run.pictures), folder / "out"
    walls: dict[str, float] = {}
    for who in ("bindery", *PEERS):
        shutil.rmtree(out, ignore_errors=True)
        if who == "bindery":
            seconds, report = workload.embed_s(corpus, out, space)
            rows = report["embedded"]
        else:
            command = [sys.executable, "-m", "benchmarks.peer_scripts", who, str(corpus), str(out / "x.lance"), space]
            path = f"{Path(__file__).parents[1]}:{peers}"
            seconds, report = workload.timed(command, {"PYTHONPATH": path, "DAFT_PROGRESS_BAR": "0"})
            rows = report["rows"]
        assert rows == run.pictures, (who, rows)
        walls[who] = round(seconds, 1)
        print(name, who, walls[who], file=sys.stderr)
    ratios = {who: round(walls[who] / walls["bindery"], 2) for who in PEERS}
    return {"pictures": run.pictures, "seconds": walls, "ratio": ratios, **machine()}


def main() -> int:
    """Measure, write the result, print it, judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", choices=list(RUNS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    known = json.loads(RESULT.read_text())["runs"] if RESULT.exists() else {}
    runs = {**known, **{name: measure(name, asked.folder, asked.peers.absolute()) for name in asked.runs}}
    document = {"what": "seconds of whole commands, files to Lance rows; ratio: theirs / ours", "runs": runs}
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(runs))
    return int(asked.check and bool(missed(RESULT.name, document)))


if __name__ == "__main__":
    sys.exit(main())
