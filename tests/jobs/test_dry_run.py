"""Every job can be asked beforehand: `--dry-run` checks what the run checks, says what it would do, and leaves all as it is."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
from searchable import MODALITIES, make_media, make_space, rows_of, write_table

from encoders.encoder import build_encoder, seeded_tower
from encoders.space import Space, load_space, trained
from jobs.__main__ import verbs
from pipelines.promotion import promote

Capture = pytest.CaptureFixture[str]
THINGS = 9
# What can be asked of the folder `world`, and what is wrong with one word of it.
GOOD = {
    "bind": "audio --pairs pairs.parquet --space space-0 --out new/bound --batch-size 4 --held-out 2 --epochs 3",
    "classify": "--db db --labels dog cat --column animal",
    "convert": "space-0 --out new/converted --dtype float16",
    "delete": "--db db --where 'rating < 1'",
    "demo": "--out new/demo",
    "embed": "nothing --db db --space space-0",
    "evaluate": "space-0 --pairs pairs.parquet --labels thing --out new/report --min audio.image.R@1=0.5",
    "export": "space-0 --out new/onnx",
    "make_demo": "--scenes 30 --out new/world --modalities image,audio",
    "make_demo_space": "--out new/space",
    "map": "--db db --out new/map.html --method pca",
    "optimize": "--db db",
    "pretrain": "--pairs pairs.parquet --out new/pretrained --batch-size 4 --held-out 2 --epochs 3",
    "probe": "--db db --label light --modality audio --out new/probe",
    "reindex": "--config nightly.yaml",
    "roll_back": "production --db db",
    "search": "dog --image media/0.png --db db --modality audio,image --where 'rating < 1'",
    "serve": "--db db --port 0",
}
BAD = {
    "bind": ("--held-out 2", "--held-out 8"),
    "classify": ("--labels dog", "--template barks --labels dog"),
    "convert": ("--dtype", "--modalities smell --dtype"),
    "delete": ("rating", "nosuch"),
    "demo": ("new/demo", "taken"),
    "embed": ("nothing", "nowhere"),
    "evaluate": ("R@1=0.5", "R@3=0.5"),
    "export": ("space-0", "nowhere"),
    "make_demo": ("image,audio", "smell"),
    "make_demo_space": ("new/space", "space-0"),
    "map": ("map.html", "map.gif"),
    "optimize": ("--db db", "--db nowhere"),
    "pretrain": ("pairs", "nowhere"),
    "probe": ("light", "nosuch"),
    "reindex": ("nightly.yaml", "nightly.yaml --table a__b"),
    "roll_back": ("production", "production --revision 7"),
    "search": ("audio,image", "smell"),
    "serve": ("--port 0", "--port 0 --host 0.0.0.0"),
}
TOLD: dict[str, dict[str, Any]] = {
    "bind": {"pairs": THINGS, "split": {"training": 7, "validation": 1, "test": 1}, "steps": 3, "epochs": 3, "workers": 1},
    "convert": {"files": 4, "name": "toy"},
    "evaluate": {"things": THINGS, "media": 3 * THINGS, "minimums": {"audio.image.R@1": 0.5}},
    "make_demo": {"files": 60, "already_there": False},
    "map": {"items": 4 * THINGS, "of": 4 * THINGS, "method": "pca"},
    "pretrain": {"pairs": THINGS, "steps": 3, "encoders": {"image": "demo/image", "text": "demo/text"}},
    "probe": {"items": THINGS, "shots": [1, 2], "too_few": [4, 8, 16], "fits": 15},
    "roll_back": {"revision": 2, "former": 1, "stale_rows": {"audio": THINGS}},
    "search": {"rows": 5, "index": None, "compared_rows": 5},
    "serve": {"rows": 4 * THINGS, "replicas": 1, "requests": "this machine's own"},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space, media, pairs of them, a table of them, and a space that something was promoted into."""
    folder = tmp_path_factory.mktemp("world")
    space, media = make_space(folder), make_media(folder / "media", THINGS)
    rows = rows_of(space, media)
    light = pa.array([("sea", "rain")[int(Path(uri).stem) % 2] for uri in rows["uri"].to_pylist()])
    write_table(folder / "db", rows.append_column("light", light))
    by_modality = {name: [str(path) for modality, path in media if modality == name] for name in MODALITIES}
    captions = [Path(path).read_text() for path in by_modality["text"]]
    pairs = {"image": by_modality["image"], "audio": by_modality["audio"], "caption": captions, "thing": list("abcabcabc")}
    pq.write_table(pa.table(pairs), folder / "pairs.parquet")
    (folder / "nothing").mkdir()
    (folder / "nothing/notes.xyz").write_text("no medium")
    (folder / "nightly.yaml").write_text("db: db\nspace: space-0\ncorpora: [{corpus: nothing}]\n")
    (folder / "taken/media").mkdir(parents=True)
    pq.write_table(pa.table(pairs), folder / "taken/media/manifest.parquet")
    replaced(space, folder / "production")
    return folder


def replaced(space: Space, folder: Path) -> None:
    """A space with another sound encoder, which the space's own was then promoted over."""
    made = trained(build_encoder("demo/audio"), seeded_tower(build_encoder("demo/audio"), 5), 10.0, {}, torch.float32)
    dataclasses.replace(space, encoders={**space.encoders, "audio": made}).save(folder)
    promote(load_space(space.uri), "audio", str(folder), {})


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every folder and every file, with its bytes."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def asked(verb: str, words: str) -> int:
    """The exit code of a job."""
    code: int = importlib.import_module(f"jobs.{verb}").main(shlex.split(words))
    return code


@pytest.mark.parametrize("verb", verbs())
def test_every_job_has_a_dry_run_that_its_help_explains(verb: str, capsys: Capture) -> None:
    assert asked(verb, "--help") == 0
    assert "\n  --dry-run  " in (told := capsys.readouterr().out)
    assert " only " in told.partition("\n  --dry-run  ")[2].partition("\n  --")[0]


@pytest.mark.parametrize("verb", verbs())
def test_a_dry_run_says_what_would_be_done_and_leaves_everything_as_it_was(
    verb: str, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(world)
    before, running = contents(world), ray.is_initialized()
    assert asked(verb, f"{GOOD[verb]} --dry-run") == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["dry_run"] is True and report["job"] == verb
    assert {name: report[name] for name in TOLD.get(verb, {})} == TOLD.get(verb, {})
    assert contents(world) == before and ray.is_initialized() == running


@pytest.mark.parametrize("verb", verbs())
def test_a_dry_run_refuses_what_the_run_refuses_in_the_same_words(
    verb: str, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(world)
    words = GOOD[verb].replace(*BAD[verb])
    assert words != GOOD[verb]
    assert asked(verb, words) == 2
    refused = capsys.readouterr().err.splitlines()[-1]
    assert asked(verb, f"{words} --dry-run") == 2
    assert capsys.readouterr().err.splitlines()[-1] == refused


def test_a_map_without_labels_has_all_items_of_the_table(world: Path, tmp_path: Path, capsys: Capture) -> None:
    rows = rows_of(load_space(world / "space-0"), make_media(tmp_path / "media", 2))
    write_table(tmp_path / "db", rows.drop_columns(["thing", "rating"]))
    assert asked("map", f"--db {tmp_path}/db --out {tmp_path}/map.png --dry-run") == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["items"], report["of"], report["labels"], report["vector_bytes"]) == (8, 8, [], 8 * 128 * 4)


def test_what_would_have_to_be_fetched_is_told_and_what_is_wrong_is_refused(tmp_path: Path, capsys: Capture) -> None:
    out = f"--download --out {tmp_path / 'new'} --dry-run"
    assert asked("convert", f"hf:nobody/nothing {out}") == 0
    assert "hf:nobody/nothing" in (told := json.loads(capsys.readouterr().out.splitlines()[-1]))["space"] and told["to_fetch"]
    assert asked("convert", f"imagebind-huge --profile nosuch {out}") == 2
    assert not list(tmp_path.iterdir())
