"""The published results reach their thresholds; the cheapest benchmarks are run anew, small, and reach looser ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import thresholds
from benchmarks.thresholds import missed

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


def test_every_result_has_its_thresholds_and_no_threshold_is_of_nothing() -> None:
    named, results = set(thresholds.thresholds()), {path.name for path in RESULTS}
    assert results - named == set()
    assert [name for name in named - results if not (ROOT / "benchmarks" / name).with_suffix(".py").exists()] == []


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_a_published_result_reaches_its_thresholds(path: Path) -> None:
    assert missed(path.name, json.loads(path.read_text())) == []


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"runs": [{"ratio": 1.5}, {"ratio": 2}], "lost": 0}, []),
        ({"runs": [{"ratio": 1.5}, {"ratio": 1.2}], "lost": 0}, ["runs / * / ratio is 1.2 (1), not at least 1.5 times"]),
        ({"runs": {"a": {"ratio": 2}}, "lost": 1}, ["lost is 1, not at most 0 items"]),
        ({"runs": []}, ["runs / * / ratio is not there", "lost is not there"]),
        ({"runs": [{"ratio": float("nan")}], "lost": 0}, ["runs / * / ratio is nan (0), not at least 1.5 times"]),
        ({"runs": [{"ratio": 2}], "lost": 0, "ms": 1}, ["ms is reached now: take `not_reached` out of thresholds.yaml"]),
    ],
)
def test_a_result_that_misses_a_threshold_is_named(
    document: Any, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goals = [
        {"at": ["runs", "*", "ratio"], "at_least": 1.5, "unit": "times"},
        {"at": ["lost"], "at_most": 0, "unit": "items"},
        {"at": ["ms"], "at_most": 10, "unit": "ms", "not_reached": "it is slow"},
    ]
    (tmp_path / "thresholds.yaml").write_text(yaml.safe_dump({"x.json": goals}))
    monkeypatch.setattr(thresholds, "FILE", tmp_path / "thresholds.yaml")
    assert missed("x.json", {"ms": 20, **document}) == [f"x.json: {what}" for what in found]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("benchmark", "arguments"),
    [
        ("scale_out", ["--nodes", "2", "--batches", "10", "--blocks", "200"]),
        ("embed_memory", ["--only", "1000", "4000", "--folder"]),
        ("tower_speed", ["--batches", "1"]),
        ("start", []),
    ],
)
def test_a_small_run_reaches_the_thresholds_for_a_busy_machine(benchmark: str, arguments: list[str], tmp_path: Path) -> None:
    result = tmp_path / f"{benchmark}.json"
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *arguments]
    command += [str(tmp_path / "folder")] if arguments[-1:] == ["--folder"] else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--result", str(result)], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert missed(result.name, json.loads(result.read_text()), in_ci=True) == []
