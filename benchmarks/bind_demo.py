"""How well does `bindery bind` bind, on the demo world? In: a seed. Out: benchmarks/results/bind_demo.json, a run more.

    .venv/bin/python -m benchmarks.bind_demo SEED --folder DIR [--check]

By the shipped commands: 4,000 pairs and 256 held out, sound and motion each bound to the shipped image tower, 8 epochs (248
steps) from random weights; sound once more with shuffled pairs. Then the held-out grid of 864 scenes: sound told by words it
has never met, sound and motion finding each other though they never met. A seed is of weights, order, augmentation and split;
the scenes stay. CPU seconds are those of the training worker in its epochs, without validation. Files in DIR are used again.
--check: exit 1 if the worst seed so far misses a threshold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.thresholds import missed
from encoders import load_space
from encoders.training.evaluate import recall
from pipelines.demo_scores import cross_modal_score, embed_held_out, text_retrieval_scores, zero_shot_scores

RESULT = Path(__file__).parent / "results" / "bind_demo.json"
PAIRS, HELD_OUT, GRID = 4000, 256, 864
FIRST_SEED = {"audio": 1_000_000, "imu": 2_000_000}  # no scene of the grid, none of the image tower's


def job(verb: str, *words: str) -> dict[str, Any]:
    """The report of a job that is run as anybody runs it."""
    done = subprocess.run([sys.executable, "-m", f"jobs.{verb}", *words], stdout=subprocess.PIPE, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def bound(folder: Path, modality: str, seed: int, *words: str) -> dict[str, Any]:
    """The report of one binding; `space` in it says where."""
    pairs = folder / modality
    count = str(PAIRS + HELD_OUT)
    job(
        "make_demo", "--scenes", count, "--first-seed", str(FIRST_SEED[modality]), "--modalities", f"image,{modality}", "--out",
        str(pairs),
    )  # fmt: skip
    out = folder / f"seed-{seed}" / "-".join([modality, *(word.strip("-") for word in words)])
    if (out / "bind.json").exists():
        kept: dict[str, Any] = json.loads((out / "bind.json").read_text())
        return kept
    report = job(
        "bind", modality, "--pairs", f"{pairs}/pairs.parquet", "--space", "demo", "--out", str(out), "--cache",
        str(folder / "vectors"), "--held-out", str(HELD_OUT), f"--recipe.seed={seed}", *words,
    )  # fmt: skip
    (out / "bind.json").write_text(json.dumps(report))
    return report


def run(seed: int, folder: Path) -> dict[str, float]:
    """Every figure of one seed."""
    audio, imu = bound(folder, "audio", seed), bound(folder, "imu", seed)
    shuffled = bound(folder, "audio", seed, "--shuffle-pairs")
    grid = folder / "grid"
    job("make_demo", "--scenes", str(GRID), "--held-out", "--modalities", "image,audio,imu", "--out", str(grid))
    spaces = {name: load_space(report["space"]) for name, report in (("audio", audio), ("imu", imu), ("shuffled", shuffled))}
    text = spaces["audio"].encoders["text"]
    both = {"text": text, **{m: spaces[m].encoders[m] for m in ("audio", "imu")}}
    space = replace(spaces["audio"], encoders=both)
    control = replace(space, encoders={"text": text, "audio": spaces["shuffled"].encoders["audio"]})
    held_out, wrong = (embed_held_out(one, f"{grid}/pairs.parquet") for one in (space, control))
    return {
        "audio->text thing": zero_shot_scores(space, held_out, "audio")["thing"],
        "audio->text place": zero_shot_scores(space, held_out, "audio")["place"],
        "text->audio R@1 of 144": text_retrieval_scores(space, held_out, "audio")["R@1"],
        "audio->imu thing@1": cross_modal_score(held_out, "audio", "imu"),
        "imu->audio thing@1": cross_modal_score(held_out, "imu", "audio"),
        "imu->text thing": zero_shot_scores(space, held_out, "imu")["thing"],
        "shuffled audio->text thing": zero_shot_scores(control, wrong, "audio")["thing"],
        "shuffled audio->text R@10 of 864": recall(wrong.vectors["audio"], wrong.vectors["text"])["R@10"],
        "audio training CPU s": cpu_s(audio),
        "imu training CPU s": cpu_s(imu),
    }


def cpu_s(report: dict[str, Any]) -> float:
    """CPU seconds of all epochs of a training."""
    return round(sum(float(point.get("cpu_s", 0.0)) for point in report["history"]), 1)


def main() -> int:
    """One seed more; the file has the worst and the best of all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seed", type=int)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    known = json.loads(RESULT.read_text())["runs"] if RESULT.exists() else {}
    runs = {**known, str(asked.seed): {name: round(value, 4) for name, value in run(asked.seed, asked.folder).items()}}
    names = next(iter(runs.values()))
    spread = {name: {"min": min(r[name] for r in runs.values()), "max": max(r[name] for r in runs.values())} for name in names}
    document = {
        "what": f"{PAIRS} pairs, 8 epochs, batch 128, the shipped image tower; scores on {GRID} held-out scenes",
        "machine": f"{psutil.cpu_count()} CPUs, one thread a worker; shared when this was run",
        "load_average": round(os.getloadavg()[0], 1),
        "chance": {"thing": 0.042, "place": 0.167, "R@1 of 144": 0.007},
        "spread": spread,
        "runs": dict(sorted(runs.items())),
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    short = missed(RESULT.name, document)
    print(json.dumps({"missed": short, **runs[str(asked.seed)]}))
    return int(asked.check and bool(short))


if __name__ == "__main__":
    sys.exit(main())
