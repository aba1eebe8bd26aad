"""Binding from end to end, on Ray Train: what is read and dropped, what a tower starts from, what is killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sample_media import SAME

from encoders import Space, load_space
from jobs.bind import BindConfig, BindRecipe, bind
from jobs.bind import main as bind_main
from pipelines.demo_world import scene, write_corpus
from pipelines.table import open_table

SCENES, SEED = 200, 1_600_000  # scenes of no training of the shipped space
SMALL: dict[str, Any] = {"epochs": 2, "batch_size": 32, "held_out": 40}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bind")
    write_corpus(str(folder), [scene(SEED + i) for i in range(SCENES)], ["image", "depth"])
    return folder


def bound(corpus: Path, out: str, pairs: str = "pairs.parquet", **changes: Any) -> tuple[dict[str, Any], Space]:
    """Bind depth to the demo space; the report, and the space."""
    given = {"modality": "depth", "pairs": f"{corpus}/{pairs}", "space": "demo", "out": f"{corpus}/{out}", **SMALL, **changes}
    report = bind(BindConfig(**given)).values
    return json.loads(json.dumps(report)), load_space(f"{corpus}/{out}")


def test_bad_pairs_are_dropped_and_named_images_are_embedded_once_and_the_space_refers_to_its_base(
    corpus: Path, ray_local: None
) -> None:
    table = pq.read_table(corpus / "pairs.parquet")
    images, depths = table["image"].to_pylist(), table["depth"].to_pylist()
    images[3], depths[5], images[9], images[11] = "image/absent.jpg", "depth/cut.png", images[8], "image/copy.jpg"
    (corpus / "image/copy.jpg").write_bytes((corpus / images[10]).read_bytes())  # another name, the same picture
    (corpus / "depth/cut.png").write_bytes((corpus / depths[6]).read_bytes()[:60])
    pq.write_table(pa.table({"image": images, "depth": depths, "caption": table["caption"]}), corpus / "broken.parquet")

    report, space = bound(corpus, "first", "broken.parquet")

    assert [(d["row"], d["member"]) for d in report["dropped"]] == [(3, "image"), (5, "depth")]
    assert report["pairs"] == {"found": SCENES, "dropped": 2, "used": SCENES - 2} and report["images"] == SCENES - 4
    assert report["image_vectors"]["found"] == 0 and report["image_vectors"]["embedded"] == SCENES - 2  # row 5's image too
    assert report["held_out"]["validation"] == report["held_out"]["test"] == len(report["held_out"]["test_rows"]) == 20
    assert report["license"] == "Apache-2.0"
    assert report["steps"] == 2 * ((SCENES - 2 - 40) // 32)
    ends = [point for point in report["history"] if "recall" in point]
    assert len(ends) == 2 and all(0 <= point["there_R@1"] <= 1 for point in ends)
    assert report["best"]["recall"] == max(point["recall"] for point in ends)

    demo = load_space("demo")
    assert space.fingerprint == demo.fingerprint and space.elsewhere == dict.fromkeys(set(demo.modalities) - {"depth"}, "demo")
    assert [path.name for path in (corpus / "first").glob("*.safetensors")] == ["depth.safetensors"]
    assert (corpus / "first/report/report.html").exists() and report["evaluation"]["things"] == 20
    assert {"depth.image.R@10", "depth.text.R@10"} <= report["evaluation"]["metrics"].keys()
    np.testing.assert_allclose(space.embed("text", ["a dog"]), demo.embed("text", ["a dog"]), rtol=0, atol=SAME)
    assert space.encoders["depth"].card["frozen"] == {"image": demo.encoders["image"].fingerprint}

    given = {"modality": "depth", "pairs": f"{corpus}/broken.parquet", "space": "demo", "out": f"{corpus}/second", **SMALL}
    would = bind(BindConfig(**given, dry_run=True)).values
    assert would["image_vectors"] == {"table": report["image_vectors"]["table"], "found": SCENES - 2, "to_embed": 0}
    assert would["tried"]["depth"]["tried"] > would["tried"]["depth"]["bad"] and would["step_s"] > 0
    assert not (corpus / "second").exists()
    again, _ = bound(corpus, "second", "broken.parquet", recipe=BindRecipe(seed=1), standalone=True)
    assert again["image_vectors"] == {**report["image_vectors"], "found": SCENES - 2, "embedded": 0}
    held = open_table(report["image_vectors"]["table"])
    assert held is not None and held.count_rows() == SCENES - 2
    assert {"audio.safetensors", "image.safetensors", "text.safetensors"} <= {p.name for p in (corpus / "second").iterdir()}


@pytest.mark.long
def test_a_tower_starts_from_the_space_by_adapters_from_the_image_tower_or_gets_a_new_head(
    corpus: Path, ray_local: None
) -> None:
    demo = load_space("demo").encoders["depth"]
    recipe = BindRecipe(lora_rank=4, logs=os.path.relpath(corpus / "logs"))  # here, though workers stand elsewhere
    report, space = bound(corpus, "adapted", start="space", recipe=recipe)
    adapted = space.encoders["depth"]
    before, after = demo.state(), adapted.state()
    moved = {name for name in before if not torch.equal(before[name].float(), after[name])}
    assert before.keys() == after.keys() and "blocks.0.qkv.weight" in moved  # plain again, adapters merged
    assert all(name.endswith("weight") and "norm" not in name and "stem" not in name for name in moved)
    assert adapted.card["started_from"]["lora_rank"] == 4
    first = report["history"][0]
    assert first["loss"] < 2.0 < np.log(32)  # trained already
    assert list((corpus / "logs/tensorboard").rglob("events*")) and list((corpus / "logs/mlruns").rglob("metrics/*"))

    report, space = bound(corpus, "seen", start="image")
    assert space.encoders["depth"].architecture == "as-picture"
    wave = space.embed("depth", [next((corpus / "depth").iterdir())])
    assert np.linalg.norm(wave, axis=1) == pytest.approx(1, abs=1e-3)

    report, space = bound(
        corpus, "headed", encoder="demo/depth", no_cache=True, recipe=BindRecipe(head="mlp", augment=("crop", "erase"), ema=0.9)
    )
    assert space.encoders["depth"].architecture == "headed" and report["image_vectors"] == {}
    assert not (corpus / "headed/.training").exists()


def test_a_loss_that_is_not_finite_ends_with_2_keeps_the_last_good_checkpoint_and_says_what_was_in_the_batch(
    corpus: Path, ray_local: None, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--pairs", f"{corpus}/pairs.parquet", "--space", "demo", "--out", f"{corpus}/wild", "--batch-size", "32"]
    assert bind_main(["depth", *flags, "--held-out", "40", "--recipe.muon_lr=1e30", "--recipe.adamw_lr=1e30"]) == 2
    said = capsys.readouterr().err
    assert "is nan" in said and "step 2" in said and "image/" not in said.partition("Rows of the pairs")[0]
    assert "depth/" in said.partition("Rows of the pairs")[2]
    assert not (corpus / "wild/space.json").exists()


def curve(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in point.items() if k not in ("pairs_per_s", "seconds", "cpu_s")} for point in report["history"]]


@pytest.mark.timeout(1200)  # three trainings on Ray
@pytest.mark.parametrize("victim", [pytest.param("driver", marks=pytest.mark.long), "worker"])
def test_a_killed_training_goes_on_to_the_same_learning_curve(corpus: Path, victim: str, tmp_path: Path) -> None:
    flags = [
        "--pairs",
        f"{corpus}/pairs.parquet",
        "--space",
        "demo",
        "--epochs",
        "30",
        "--batch-size",
        "32",
        "--held-out",
        "40",
    ]
    command = [sys.executable, "-m", "jobs.bind", "depth", *flags, "--cache", f"{corpus}/cache"]
    straight = subprocess.run([*command, "--out", f"{tmp_path}/straight"], capture_output=True, text=True, check=True)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    killed = [*command, "--out", f"{tmp_path}/killed"]
    running = subprocess.Popen(killed, **pipes)
    snapshots = Path(f"{tmp_path}/killed/.training")
    deadline = time.monotonic() + 300
    while not any("checkpoint_dir_name" in found.read_text() for found in snapshots.rglob("checkpoint_manager_snapshot.json")):
        assert running.poll() is None and time.monotonic() < deadline, running.communicate()[1]
        time.sleep(0.1)
    family = [running, *psutil.Process(running.pid).children(recursive=True)]
    if victim == "driver":
        for process in family:
            os.kill(process.pid, signal.SIGKILL)
        running.wait()
        running = subprocess.Popen(killed, **pipes)
    else:
        workers = [p for p in family[1:] if "TrainWorker" in "".join(p.cmdline())]
        assert workers
        os.kill(workers[0].pid, signal.SIGKILL)
    out, errors = running.communicate(timeout=500)
    assert running.returncode == 0, errors
    last = errors.rpartition("RayTrainWorker pid=")[2].partition(")")[0]  # the worker that went on
    assert f"pid={last})" in errors and f"pid={last})\x1b[0m depth: epoch 1 of" not in errors  # it did not begin again
    once, resumed = (json.loads(text.splitlines()[-1]) for text in (straight.stdout, out))
    assert curve(once) == curve(resumed) and once["best"]["recall"] == resumed["best"]["recall"]
    names = [load_space(f"{tmp_path}/{name}").encoders["depth"].fingerprint for name in ("straight", "killed")]
    assert names[0] == names[1]
