"""How long until work is done? In: nothing. Out: benchmarks/results/start.json.

    .venv/bin/python -m benchmarks.start [--check]

`jobs.embed` over 512 small pictures, from the command to the first embedded batch, by part: imports; the listing and the plan;
Ray's start; the pool of actors with its towers and decoding children; the first batch; then the first commit, and the end.
Once cold, when the operating system holds no page of the program's files, and once more. And `python -X importtime` of
`jobs.search`, whose user waits for an answer. --check: exit 1 beyond the thresholds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import lance

from benchmarks.embed_memory import small
from benchmarks.synthetic import machine
from benchmarks.thresholds import missed

RESULT = Path(__file__).parent / "results" / "start.json"
PICTURES = 512
REPEATS = 3  # of the imports
EMBED = """
import functools, json, sys, time
marks = {}
import jobs.embed
marks["imports"] = time.time()
import ray, pipelines.embed
from pipelines.ledger import Ledger

def marked(function, before=None, after=None):
    @functools.wraps(function)
    def call(*arguments):
        if before:
            marks.setdefault(before, time.time())
        result = function(*arguments)
        marks.setdefault(after, time.time())
        return result
    return call

pipelines.embed.start_ray = marked(pipelines.embed.start_ray, "plan", "ray")
Ledger.commit = marked(Ledger.commit, after="first commit")
code = jobs.embed.main(sys.argv[1:])
marks["end"] = time.time()
actors = [event for event in ray.timeline() if "MapWorker" in event["cat"]]
marks["pool"] = max(e["ts"] + e["dur"] for e in actors if e["cat"].endswith("__init__")) / 1e6
print(json.dumps({"marks": marks, "actors": len({e["tid"] for e in actors})}))
sys.exit(code)
"""
PARTS = ("imports", "plan", "ray", "pool", "first batch", "first commit", "end")


def forget() -> None:
    """Let the operating system drop its pages of the program and its libraries, as far as nobody else uses them."""
    for folder in (Path(sys.prefix), Path(__file__).parents[1]):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def embed(corpus: Path, db: Path) -> dict[str, Any]:
    """One run; seconds of each part, one after the other."""
    began = time.time()
    command = [sys.executable, "-c", EMBED, str(corpus), "--db", str(db)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "CI": "1"})
    report, found = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    assert report["embedded"] == PICTURES, report
    made = lance.dataset(str(db / "media.lance")).to_table(columns=["embedded_at"])["embedded_at"].to_pylist()
    marks = {**found["marks"], "first batch": min(made).timestamp()}
    times = [began, *(marks[part] for part in PARTS)]
    seconds = {part: round(end - start, 2) for part, start, end in zip(PARTS, times, times[1:], strict=False)}
    return {
        "seconds": seconds,
        "to_first_batch_s": round(marks["first batch"] - began, 2),
        "whole_s": round(marks["end"] - began, 2),
        "actors": found["actors"],
        "actors_missing": (os.cpu_count() or 1) - found["actors"],
    }


def imports(module: str) -> dict[str, Any]:
    """Seconds that `python -X importtime` adds up for a module, and the packages that most of them go into."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    lines = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True).stderr.splitlines()
    own: Counter[str] = Counter()
    for line in lines[1:]:  # import time: self [us] | cumulative | imported package
        self_us, _, name = line.removeprefix("import time:").split("|")
        own[name.strip().partition(".")[0]] += int(self_us)
    total = int(lines[-1].split("|")[1])
    return {"seconds": total / 1e6, "most": {name: round(us / 1e6, 3) for name, us in own.most_common(6)}}


def main() -> int:
    """Measure, write the result, print it, judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small(folder / "media", PICTURES)
        forget()
        runs = {"cold": embed(folder / "media", folder / "cold"), "again": embed(folder / "media", folder / "again")}
        forget()
        search = {"cold": imports("jobs.search")}
    warm = sorted((imports("jobs.search") for _ in range(REPEATS)), key=lambda one: float(one["seconds"]))
    search["again"] = warm[REPEATS // 2]
    document = {
        "what": f"seconds of jobs.embed over {PICTURES} pictures by part, until the first batch; of importing jobs.search",
        **machine(),
        "embed": runs,
        "import jobs.search": search,
    }
    asked.result.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))
    return int(asked.check and bool(missed(RESULT.name, document)))


if __name__ == "__main__":
    sys.exit(main())
