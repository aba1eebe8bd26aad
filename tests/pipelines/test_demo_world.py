"""Laws of the demo world: the same scene is the same everywhere, each modality tells what it can, a corpus holds together."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from jobs.make_demo import main
from pipelines.demo_world import (
    CAPTION_WORDS,
    COLOURS,
    MODALITIES,
    MOTIONS,
    PLACES,
    THINGS,
    Scene,
    ambience,
    audio,
    caption,
    corpus_metadata,
    depth_mm,
    grid,
    image,
    imu,
    scene,
    thermal_ck,
    video,
    write_corpus,
)
from pipelines.demo_world.canvas import Sprite
from pipelines.demo_world.corpus import BLOCK_SCENES, BLOCKS_AHEAD, process_count
from pipelines.demo_world.files import scene_files
from pipelines.demo_world.inertia import VIBRATIONS
from pipelines.demo_world.picture import SURFACE_K, THING_PAINTERS, shot
from pipelines.demo_world.places import BACKDROPS
from pipelines.demo_world.sound import AMBIENCES, SOUNDS

MADE: dict[str, tuple[Callable[[Scene], np.ndarray[Any, Any]], tuple[int, ...], str]] = {
    "image": (image, (128, 128, 3), "uint8"),
    "video": (video, (8, 128, 128, 3), "uint8"),
    "audio": (audio, (32_000,), "float32"),
    "depth": (depth_mm, (128, 128), "uint16"),
    "thermal": (thermal_ck, (128, 128), "uint16"),
    "imu": (imu, (200, 6), "float32"),
}
SCENES = [scene(seed) for seed in range(30)]
# What a modality cannot know leaves no trace in it, to the last bit.
CANNOT_KNOW = [
    ("audio", "colour"),
    ("audio", "motion"),
    ("imu", "colour"),
    ("imu", "place"),
    ("depth", "colour"),
    ("thermal", "colour"),
]
KNOWS = [
    *(("image", attribute) for attribute in ("thing", "place", "colour", "motion")),
    *(("video", attribute) for attribute in ("thing", "place", "colour", "motion")),
    ("audio", "thing"),
    ("audio", "place"),
    ("imu", "thing"),
    ("imu", "motion"),
    ("depth", "thing"),
    ("depth", "place"),
    ("thermal", "thing"),
    ("thermal", "place"),
]
OTHER = {"thing": THINGS, "place": PLACES, "colour": COLOURS, "motion": MOTIONS}


def changed(of: Scene, attribute: str) -> Scene:
    """The same seed with another value of one attribute."""
    names = OTHER[attribute]
    known = {**asdict(of), attribute: names[(names.index(getattr(of, attribute)) + 1) % len(names)]}
    return Scene(**known)


@pytest.mark.parametrize("modality", MADE)
def test_a_scene_gives_arrays_of_the_promised_shape_type_and_range(modality: str) -> None:
    make, shape, dtype = MADE[modality]
    for one in SCENES[:6]:
        made = make(one)
        assert (made.shape, str(made.dtype)) == (shape, dtype)
        assert np.isfinite(made).all() and made.std() > 0
        if modality == "audio":
            assert np.abs(made).max() <= 1
        if modality == "depth":
            assert made.min() >= 500 and made.max() <= 20_000
        if modality == "thermal":
            assert made.min() >= 25_000 and made.max() <= 35_000


@pytest.mark.parametrize(("modality", "attribute"), KNOWS)
def test_another_attribute_changes_the_modalities_that_can_know_it(modality: str, attribute: str) -> None:
    make = MADE[modality][0]
    assert not np.array_equal(make(SCENES[3]), make(changed(SCENES[3], attribute)))


@pytest.mark.parametrize(("modality", "attribute"), CANNOT_KNOW)
def test_another_attribute_leaves_the_modalities_that_cannot_know_it_as_they_are(modality: str, attribute: str) -> None:
    make = MADE[modality][0]
    assert np.array_equal(make(SCENES[3]), make(changed(SCENES[3], attribute)))


def test_gravity_is_in_metres_per_second_squared_and_a_spinning_thing_turns() -> None:
    still = np.mean([imu(scene(seed, motion="still")) for seed in range(20)], axis=(0, 1))
    spinning = np.mean([imu(scene(seed, motion="spinning")) for seed in range(20)], axis=(0, 1))
    np.testing.assert_allclose(still[:3], [0, 0, 9.81], atol=0.5)
    assert spinning[5] > 1.0 > abs(still[5])


def test_a_larger_thing_is_nearer_and_a_fire_is_warmer_than_snow() -> None:
    fire = [thermal_ck(scene(seed, thing="campfire", place="snow", motion="still")) for seed in range(5)]
    assert all(frame.max() > 34_000 and np.percentile(frame, 5) < 27_000 for frame in fire)
    owls = [scene(seed, thing="owl", place="sea", motion="still") for seed in range(20)]
    distance = [np.median(depth_mm(owl)[64:80, 56:72]) for owl in owls]
    assert np.corrcoef([shot(owl).size for owl in owls], distance)[0, 1] < -0.9


def test_every_thing_and_place_is_drawn_heard_and_felt() -> None:
    assert set(THINGS) == set(THING_PAINTERS) == set(SOUNDS) == set(SURFACE_K) == set(VIBRATIONS)
    assert set(PLACES) == set(BACKDROPS) == set(AMBIENCES)
    silhouettes, sounds = set(), set()
    for thing in THINGS:
        sprite = Sprite(64, (200, 30, 30), 300.0, np.random.default_rng(0))
        THING_PAINTERS[thing](sprite)
        covered = np.asarray(sprite.mask) > 0
        assert 0.08 < covered.mean() < 0.7, thing
        assert not covered[[0, -1]].any() and not covered[:, [0, -1]].any(), f"{thing} is cut off at the edge of its sprite"
        silhouettes.add(covered.tobytes())
        sounds.add(SOUNDS[thing](np.random.default_rng(0), 1.0).tobytes())
    assert len(silhouettes) == len(sounds) == len(set(VIBRATIONS.values())) == len(THINGS)


def spectrum(wave: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Log power in 64 bands, plus how it changes: enough to tell sounds apart without a network."""
    power = np.abs(np.fft.rfft(wave.reshape(100, 320) * np.hanning(320), axis=1))[:, :160] ** 2
    bands = np.log(power.reshape(100, 40, 4).sum(2) + 1e-6)
    bands -= bands.mean()
    return np.concatenate([bands.mean(0), bands.std(0)])


def test_a_sound_tells_its_thing_and_an_ambience_its_place() -> None:
    known = np.stack([np.mean([spectrum(audio(scene(seed, thing=t))) for seed in range(100, 112)], axis=0) for t in THINGS])
    asked = [(i, spectrum(audio(scene(seed, thing=t)))) for i, t in enumerate(THINGS) for seed in (200, 201, 202)]
    found = [int(np.linalg.norm(known - s, axis=1).argmin()) == i for i, s in asked]
    assert np.mean(found) > 0.6  # chance 0.04
    places = np.stack([np.mean([spectrum(ambience(p, seed)) for seed in range(6)], axis=0) for p in PLACES])
    assert all(
        np.linalg.norm(places - spectrum(ambience(p, seed)), axis=1).argmin() == i
        for i, p in enumerate(PLACES)
        for seed in (50, 51, 52)
    )


def test_a_caption_names_only_what_is_there() -> None:
    for seed in range(300):
        one = scene(seed)
        said = [caption(one, n) for n in range(3)]
        words = " ".join(said).split()
        assert set(words) <= set(CAPTION_WORDS)
        assert not set(words) & (set(COLOURS) - {one.colour})
        assert not set(words) & (set(THINGS) - {one.thing})
        assert not any(f" a {vowel}" in f" {text}" for text in said for vowel in "aeiou")
    assert len({caption(scene(1), n) for n in range(20)}) > 5
    assert caption(scene(1), 4) == caption(scene(1), 4)


def test_seeds_draw_every_name_and_stillness_most_often() -> None:
    drawn = [scene(seed) for seed in range(2000)]
    for attribute, names in OTHER.items():
        assert {getattr(one, attribute) for one in drawn} == set(names)
    assert 0.33 < np.mean([one.motion == "still" for one in drawn]) < 0.42


def test_a_grid_has_every_thing_in_every_place_once_a_round() -> None:
    held_out = grid(2)
    assert len(held_out) == 288 and len({one.seed for one in held_out}) == 288
    assert held_out[0].seed == 9_000_000
    for half in (held_out[:144], held_out[144:]):
        assert {(one.thing, one.place) for one in half} == {(t, p) for t in THINGS for p in PLACES}


@pytest.mark.parametrize(
    ("ask", "named"),
    [
        (lambda: scene(-1), "-1"),
        (lambda: scene(0, thing="unicorn"), "unicorn"),
        (lambda: scene(0, weather="dry"), "weather"),
        (lambda: grid(0), "0"),
        (lambda: ambience("moon", 0), "moon"),
        (lambda: write_corpus("nowhere", [], ["text"]), "no scenes"),
        (lambda: write_corpus("nowhere", SCENES, ["smell"]), "smell"),
        (lambda: write_corpus("nowhere", SCENES, []), "at least one"),
        (lambda: write_corpus("nowhere", SCENES, ["text", "text"]), "once"),
    ],
)
def test_what_is_not_in_this_world_is_refused_by_name(ask: Callable[[], object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ask()


HASH = """
import hashlib, sys
from pipelines.demo_world import MODALITIES, scene
from pipelines.demo_world.files import scene_files
found = {}
for seed in map(int, sys.argv[1:]):
    for path, data in scene_files(scene(seed), MODALITIES[::-1] if seed % 2 else MODALITIES).values():
        found[path] = hashlib.sha256(data).hexdigest()
print(sorted(found.items()))
"""


@pytest.mark.parametrize("processor", ["", "X86_V4 AVX512_ICL AVX512_SPR", "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"])
def test_bytes_depend_neither_on_process_nor_order_nor_processor(processor: str) -> None:
    """The last two run numpy as on processors without AVX-512, and without AVX2."""
    seeds = list(range(8))
    here = {
        path: hashlib.sha256(data).hexdigest() for seed in seeds for path, data in scene_files(scene(seed), MODALITIES).values()
    }
    environment = {**os.environ, "PYTHONHASHSEED": "7", "NPY_DISABLE_CPU_FEATURES": processor}
    command = [sys.executable, "-W", "ignore", "-c", HASH, *map(str, reversed(seeds))]
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert there.stdout.strip() == str(sorted(here.items()))


def files_below(folder: Path) -> dict[str, str]:
    """Path -> hash of every file, without the two tables."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent != folder
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 scenes in every modality: two blocks, so that processes made it."""
    folder = tmp_path_factory.mktemp("world")
    assert write_corpus(str(folder), iter(SCENES), MODALITIES, metadata={"note": "mine"}) == 30 * len(MODALITIES)
    return folder


def test_a_corpus_is_the_same_in_shards_and_in_one_go(corpus: Path, tmp_path: Path) -> None:
    for shard in (SCENES[20:], SCENES[:20]):  # one block each: made in this process
        write_corpus(str(tmp_path), shard, MODALITIES)
    assert files_below(tmp_path) == files_below(corpus)
    tables = []
    for again in ("once", "twice"):
        write_corpus(str(tmp_path / again), SCENES, ["imu", "text"])
        tables.append([(tmp_path / again / name).read_bytes() for name in ("manifest.parquet", "pairs.parquet")])
    assert tables[0] == tables[1]


def test_the_manifest_and_the_pairs_name_exactly_the_files_there_are(corpus: Path) -> None:
    manifest = pq.read_table(corpus / "manifest.parquet").to_pylist()
    pairs = pq.read_table(corpus / "pairs.parquet").to_pylist()
    assert sorted(row["uri"] for row in manifest) == sorted(files_below(corpus))
    assert sorted(row[modality] for row in pairs for modality in MODALITIES) == sorted(files_below(corpus))
    assert all(row["uri"].startswith(f"{row['modality']}/") for row in manifest)
    assert [row["scene"] for row in pairs] == [one.seed for one in SCENES]
    for row in manifest + pairs:
        one = scene(row["scene"])
        assert (row["thing"], row["place"], row["colour"], row["motion"]) == (one.thing, one.place, one.colour, one.motion)
        assert row["caption"] == caption(one)
    assert (corpus_metadata(str(corpus)) or {})["note"] == "mine"
    assert corpus_metadata(str(corpus / "image")) is None
    suffixes = {(row["modality"], row["uri"].rpartition(".")[2]) for row in manifest}
    assert suffixes == {
        *(("image", "jpg"), ("image", "png"), ("video", "mp4"), ("audio", "wav"), ("audio", "flac"), ("text", "txt")),
        *(("depth", "png"), ("thermal", "png"), ("thermal", "tiff"), ("imu", "csv"), ("imu", "parquet")),
    }


def test_files_hold_what_the_scene_is(corpus: Path) -> None:
    for row in pq.read_table(corpus / "manifest.parquet").to_pylist():
        one, data = scene(row["scene"]), (corpus / row["uri"]).read_bytes()
        if row["modality"] == "image":
            error = np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(int) - image(one))
            assert error.mean() < (7 if row["uri"].endswith("jpg") else 1e-9)
        elif row["modality"] == "audio":
            wave, rate_hz = soundfile.read(io.BytesIO(data))
            assert rate_hz == 16_000
            np.testing.assert_allclose(wave, audio(one), atol=1e-4)
        elif row["modality"] == "depth":
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), depth_mm(one))
        elif row["modality"] == "thermal":
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), thermal_ck(one))
        elif row["modality"] == "text":
            assert data.decode() == caption(one) + "\n"
        elif row["modality"] == "imu":
            np.testing.assert_allclose(read_imu(row["uri"], data)[:, 1:], imu(one), atol=1e-4)
            np.testing.assert_allclose(read_imu(row["uri"], data)[:, 0], np.arange(200) / 100, atol=1e-4)


def read_imu(name: str, data: bytes) -> np.ndarray[Any, Any]:
    """(200, 7)."""
    if name.endswith("parquet"):
        return np.stack([column.to_numpy() for column in pq.read_table(io.BytesIO(data)).columns], axis=1)
    return np.loadtxt(io.BytesIO(data), delimiter=",", skiprows=1)


def test_a_video_shows_its_frames_for_two_seconds_with_the_sound_of_its_scene() -> None:
    data = scene_files(SCENES[5], ["video"])["video"][1]
    with av.open(io.BytesIO(data), "r") as container:
        assert container.duration == pytest.approx(2_000_000, abs=50_000)
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with av.open(io.BytesIO(data), "r") as container:
        wave = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    assert frames.shape == (8, 128, 128, 3)
    # Chroma is halved and noise is lost; means of blocks and the right order of frames are not.
    blocks = [v.reshape(8, 16, 8, 16, 8, 3).mean((2, 4)) for v in (frames.astype(float), video(SCENES[5]).astype(float))]
    assert np.abs(blocks[0] - blocks[1]).mean() < 4
    np.testing.assert_allclose(wave / 32768, audio(SCENES[5]), atol=1e-4)


def test_scenes_are_drawn_only_as_they_are_written_and_a_failure_leaves_no_manifest(tmp_path: Path) -> None:
    ahead: list[int] = []
    most = (BLOCKS_AHEAD * process_count() + 2) * BLOCK_SCENES

    def endless() -> Iterator[Scene]:
        for seed in range(most * 2):
            ahead.append(seed + 1 - len(list((tmp_path / "text").glob("*"))))
            yield scene(seed)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        write_corpus(str(tmp_path), endless(), ["text"])
    assert max(ahead) <= most
    assert not (tmp_path / "manifest.parquet").exists() and corpus_metadata(str(tmp_path)) is None


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, report, what people are told."""
    code = main(argv)
    told = capsys.readouterr()
    return code, json.loads(told.out.splitlines()[-1]) if told.out else {}, told.err


def test_make_demo_twice_writes_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("--scenes", "5", "--out", str(tmp_path / "demo"), "--modalities", "text,imu")
    code, report, _ = run(capsys, *argv)
    assert (code, report["files"], report["already_there"]) == (0, 10, False)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, report, told = run(capsys, *argv)
    assert (code, report["already_there"]) == (0, True) and "nothing to do" in told
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times
    code, _, told = run(capsys, *argv[:-1], "text")
    assert code == 2 and "another corpus" in told
    (tmp_path / "demo" / "manifest.parquet").unlink()  # as after a kill
    code, report, _ = run(capsys, *argv)
    assert (code, report["already_there"]) == (0, False)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--scenes", "0"), "at least 1"),
        (("--scenes", "100", "--held-out"), "144"),
        (("--scenes", "1", "--first-seed", "-4"), "-4"),
        (("--scenes", "1", "--modalities", "image,smell"), "smell"),
    ],
)
def test_make_demo_refuses_bad_arguments(
    argv: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = run(capsys, *argv, "--out", str(tmp_path / "demo"))
    assert code == 2 and named in told
    assert not (tmp_path / "demo").exists()


def test_make_demo_writes_the_held_out_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report, _ = run(capsys, "--scenes", "144", "--held-out", "--modalities", "text", "--out", str(tmp_path))
    assert code == 0 and report["first_seed"] == 9_000_000
    pairs = pq.read_table(tmp_path / "pairs.parquet").to_pylist()
    assert [Scene(r["scene"], r["thing"], r["place"], r["colour"], r["motion"]) for r in pairs] == grid(1)


def test_a_corpus_on_s3_has_the_bytes_of_a_local_one(s3: str, corpus: Path) -> None:
    import fsspec

    assert write_corpus(f"{s3}/world", SCENES, MODALITIES, metadata={"note": "mine"}) == 30 * len(MODALITIES)
    store, root = fsspec.core.url_to_fs(f"{s3}/world")
    there = {path.removeprefix(f"{root}/"): data for path, data in store.cat(store.find(root)).items()}
    here = {str(p.relative_to(corpus)): p.read_bytes() for p in corpus.rglob("*") if p.is_file()}
    assert there == here
    assert (corpus_metadata(f"{s3}/world") or {})["note"] == "mine"
