"""An eighth modality from one file: found by its place or from an installed package, bound, embedded, searched."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sample_media
import torch
from PIL import Image

import encoders.towers
from encoders import SpaceError, build_encoder, list_encoders, load_space
from encoders import encoder as registry
from encoders.encoder import package_of, seeded_tower
from encoders.media import sniff as sniffing
from encoders.media.sniff import sniff
from encoders.space import Space, trained
from jobs.bind import main as bind_main
from jobs.embed import main as embed_main

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "touch"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as a package of its own, installed beside this program."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(EXAMPLE, folder / "source")
    target = folder / "packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", target, source], check=True)
    return target


def run(*argv: str, path: Path | None = None) -> str:
    """A Python process of this program, perhaps with a package more; what it printed."""
    places = os.pathsep.join(str(place) for place in (ROOT, path) if place)
    done = subprocess.run(
        [sys.executable, *argv], env={**os.environ, "PYTHONPATH": places}, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Whatever a test registers is forgotten after it."""
    load_space("demo")  # all that is ours is registered before
    for module, names in ((registry, ("_factories", "_small", "_broken")), (sniffing, ("_ADDED_BYTES", "_ADDED_NAMES"))):
        for name in names:
            monkeypatch.setattr(module, name, dict(getattr(module, name)))
    return monkeypatch


def use(folder: Path) -> str:
    """Look for encoders anew, use the one for touch in every way, save it; the package that it is from."""
    registry._discover.__wrapped__()
    assert list_encoders("touch") == ["touch/trace"]
    encoder = build_encoder("touch/trace")
    made = trained(encoder, seeded_tower(encoder, 0), 10.0, {}, torch.float32)
    space = Space("toy", 128, "f" * 32, "", {"touch": made}).save(folder)
    medium = sys.modules[encoder.decode.__module__].encode(np.ones((700, 3)), 512.0)
    assert sniff(medium[:64], "unnamed").modality == sniff(b"", "a.touch").modality == "touch"
    assert np.isfinite(space.embed("touch", [medium])).all()
    assert (encoder.describe(encoder.decode(medium)).preview or b"").startswith(b"\xff\xd8")
    return package_of("touch/trace")


def test_an_installed_package_brings_a_modality_its_files_and_its_encoder(
    installed: Path, tmp_path: Path, fresh: pytest.MonkeyPatch
) -> None:
    fresh.syspath_prepend(str(installed))
    assert use(tmp_path / "space") == "bindery_touch"
    del sys.modules["bindery_touch"]
    registry._factories.pop("touch/trace")
    with pytest.raises(SpaceError, match="no encoder 'touch/trace' is registered here"):
        load_space(tmp_path / "space")


def test_a_file_in_the_folder_of_towers_is_enough(tmp_path: Path, fresh: pytest.MonkeyPatch) -> None:
    shutil.copy(EXAMPLE / "bindery_touch.py", tmp_path / "touch.py")
    fresh.setattr(encoders.towers, "__path__", [*encoders.towers.__path__, str(tmp_path)])
    assert use(tmp_path / "space") == ""
    del sys.modules["encoders.towers.touch"]


def test_a_package_that_cannot_be_imported_harms_nobody_and_is_named_when_it_is_asked_for(
    tmp_path: Path, fresh: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "bindery_smell-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bindery-smell\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[bindery.encoders]\nsmell = bindery_smell\n")
    (tmp_path / "bindery_smell.py").write_text("import no_such_driver")
    fresh.syspath_prepend(str(tmp_path))
    registry._discover.__wrapped__()
    with pytest.raises(SpaceError, match=r"'smell/sniffer'.* Package 'bindery-smell' .* No module named 'no_such_driver'"):
        build_encoder("smell/sniffer")
    assert build_encoder("demo/image").modality == "image"


@pytest.fixture
def touch(fresh: pytest.MonkeyPatch) -> Iterator[Any]:
    """The example's module, registered in this process for one test; Ray's workers know nothing of it."""
    fresh.syspath_prepend(str(EXAMPLE))
    yield importlib.import_module("bindery_touch")
    del sys.modules["bindery_touch"]


def test_a_worker_that_lacks_the_package_ends_the_job_with_2_before_anything_is_made(
    ray_local: None, touch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = build_encoder("touch/trace")
    made = trained(encoder, seeded_tower(encoder, 0), 10.0, {}, torch.float32)
    space = Space("toy", 128, "f" * 32, "", {"touch": made}).save(tmp_path / "space")
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.touch").write_bytes(touch.encode(np.ones((512, 3)), 512.0))
    assert embed_main([f"{tmp_path}/media", "--db", f"{tmp_path}/db", "--space", space.uri]) == 2
    message = "encoder 'touch/trace' comes from package 'bindery_touch', which node"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "db" / "media.lance").exists()
    Image.new("RGB", (64, 64)).save(tmp_path / "media" / "a.png")
    pairs = f"{tmp_path}/media/pairs.parquet"
    pq.write_table(pa.table({"image": ["a.png"] * 4, "touch": ["a.touch"] * 4}), pairs)
    bind = ["touch", "--pairs", pairs, "--space", "demo", "--out", f"{tmp_path}/bound", "--batch-size", "2", "--held-out", "0"]
    for built_on in ([], ["--recipe.head", "linear"]):
        assert bind_main([*bind, "--no-cache", *built_on]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "bound" / "space.json").exists()


@pytest.mark.parametrize("length", [700, 512, 90])
@pytest.mark.parametrize("rate_hz", [512.0, 2000.0, 100.0])
def test_a_touch_of_any_length_and_rate_becomes_what_the_tower_takes(touch: Any, length: int, rate_hz: float) -> None:
    encoder = build_encoder("touch/trace")
    medium = touch.encode(np.random.default_rng(0).normal(size=(length, 3)), rate_hz)
    found = encoder.preprocess(medium)["touch"]
    assert (found.dtype, found.shape) == (np.float32, (3, 512)) and np.isfinite(found).all()
    decoded = encoder.decode(medium)
    assert decoded.duration_s == pytest.approx(length / rate_hz)
    np.testing.assert_array_equal(encoder.preprocess(decoded)["touch"], found)
    for broken in (medium[:-1], b"", b"BTOUCH", medium.replace(b"BTOUCH", b"XTOUCH")):
        with pytest.raises(ValueError):
            encoder.preprocess(broken)


def test_the_laws_of_every_encoder_hold_for_it(touch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [(f"{rate:g}.touch", touch.encode(np.random.default_rng(0).normal(size=(900, 3)), rate)) for rate in (512.0, 300.0)]
    monkeypatch.setitem(sample_media._MAKERS, "touch", lambda: iter(files))
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "encoders"))
    laws = importlib.import_module("test_encoder_laws")
    tried = [law for name, law in vars(laws).items() if name.startswith("test_")]
    for law in tried:
        folder = {"tmp_path": tmp_path / law.__name__} if "tmp_path" in inspect.signature(law).parameters else {}
        for made in folder.values():
            made.mkdir()
        law("touch/trace", **folder)
    assert len(tried) > 10


@pytest.mark.slow
@pytest.mark.long
def test_touch_is_bound_to_pictures_embedded_and_found_by_words_that_it_never_met(installed: Path, tmp_path: Path) -> None:
    make = str(EXAMPLE / "make_pairs.py")
    run(make, "--scenes", "1600", "--out", f"{tmp_path}/pairs", path=installed)
    run(make, "--scenes", "144", "--held-out", "--out", f"{tmp_path}/media", path=installed)
    bound, db = f"{tmp_path}/bound", f"{tmp_path}/db"
    bind = ["touch", "--pairs", f"{tmp_path}/pairs/pairs.parquet", "--space", "demo", "--out", bound, "--epochs", "12"]
    run("-m", "jobs.bind", *bind, path=installed)
    held_out = ["--pairs", f"{tmp_path}/media/pairs.parquet", "--labels", "thing", "--modality", "touch"]
    minimums = ["--min", "touch.thing.accuracy=0.8", "touch.text.thing@1=0.5"]
    said = run("-m", "jobs.evaluate", bound, *held_out, *minimums, "--out", f"{tmp_path}/report", path=installed)
    scores = json.loads([line for line in said.splitlines() if line.startswith("{")][-1])
    assert {one["relation"] for one in scores["scores"]["retrieval"] if "text" in (one["query"], one["target"])} == {"emergent"}
    run("-m", "jobs.embed", f"{tmp_path}/media", "--db", db, "--space", bound, "--exclude", "*.parquet", path=installed)
    told = run("-m", "jobs.search", "a bell", "--db", db, "--modality", "touch", "--k", "5", path=installed)
    felt = json.loads(told.splitlines()[-1])["hits"]
    things = Counter(thing_of(hit["uri"]) for hit in felt)
    assert things["bell"] >= 3, things
    query = felt[0]["uri"]
    found = run("-m", "jobs.search", "--db", db, "--media", f"touch={query}", "--modality", "image", "--k", "5", path=installed)
    assert thing_of(json.loads(found.splitlines()[-1])["hits"][0]["uri"]) == thing_of(query)


def thing_of(uri: str) -> str:
    """What a held-out scene is of, by its number."""
    from pipelines.demo_world import grid

    scenes = {one.seed: one.thing for one in grid(1)}
    return scenes[int(Path(uri).stem)]
