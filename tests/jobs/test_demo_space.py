"""The shipped demo space, on held-out scenes read from files; and a short binding that must fail when its pairs are shuffled.

Bounds lie below the worst that was measured; chance is .04 for 24 things, .17 for 6 places, .13 for 8 colours.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoders import Space, load_space
from encoders.evaluation import Sample
from encoders.space import SHIPPED, space_fingerprint
from jobs.bind import BindConfig, bind
from jobs.bind import main as bind_main
from jobs.pretrain import main as pretrain_main
from pipelines.demo_scores import cross_modal_score, embed_held_out, text_retrieval_scores, zero_shot_scores
from pipelines.demo_world import grid, scene, write_corpus

MODALITIES = ["audio", "depth", "image", "imu", "text", "thermal", "video"]
SPACE_BYTES = 6_000_000
PAIRS, HELD_OUT, EPOCHS = 1500, 64, 9  # 99 steps
BOUND_SEED = 1_500_000  # scenes of no training of the shipped space


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The held-out grid: 6 scenes for each of the 24 things in each of the 6 places."""
    folder = tmp_path_factory.mktemp("grid")
    write_corpus(str(folder), grid(6), ["image", "audio", "imu"])
    return folder


@pytest.fixture(scope="module")
def demo() -> Space:
    return load_space("demo")


@pytest.fixture(scope="module")
def held_out(demo: Space, files: Path) -> Sample:
    return embed_held_out(demo, f"{files}/pairs.parquet")


def test_the_demo_space_has_seven_modalities_around_one_image_tower_and_is_small(demo: Space) -> None:
    assert list(demo.modalities) == MODALITIES and demo.dim == 128
    image = demo.encoders["image"]
    assert demo.fingerprint == space_fingerprint(image.fingerprint, demo.dim)
    for modality in ("audio", "depth", "imu", "thermal"):
        assert demo.encoders[modality].card["frozen"] == {"image": image.fingerprint}
    assert demo.encoders["video"].weights == image.weights
    assert sum(file.stat().st_size for file in (SHIPPED / "demo").iterdir()) <= SPACE_BYTES


def test_words_find_the_thing_the_place_and_the_colour_of_a_picture(demo: Space, held_out: Sample) -> None:
    scores = zero_shot_scores(demo, held_out, "image")
    assert scores["thing"] >= 0.85 and scores["place"] >= 0.98 and scores["colour"] >= 0.92, scores


def test_words_find_sounds_although_sound_never_met_words(demo: Space, held_out: Sample) -> None:
    assert zero_shot_scores(demo, held_out, "audio")["thing"] >= 0.93
    retrieval = text_retrieval_scores(demo, held_out, "audio")
    assert retrieval["R@1"] >= 0.92 and retrieval["R@5"] >= 0.98, retrieval


def test_sound_and_motion_find_each_other_although_they_never_met(held_out: Sample) -> None:
    assert cross_modal_score(held_out, "audio", "imu") >= 0.90
    assert cross_modal_score(held_out, "imu", "audio") >= 0.90


@pytest.mark.slow
@pytest.mark.long
def test_a_short_binding_aligns_sound_with_words_and_does_not_when_its_pairs_are_shuffled(
    demo: Space, files: Path, tmp_path: Path, ray_local: None
) -> None:
    write_corpus(str(tmp_path), [scene(BOUND_SEED + i) for i in range(PAIRS + HELD_OUT)], ["image", "audio"])
    things = {}
    for name, shuffled in (("paired", False), ("shuffled", True)):
        out = f"{tmp_path}/{name}"
        config = BindConfig(
            modality="audio", pairs=f"{tmp_path}/pairs.parquet", space="demo", out=out, epochs=EPOCHS, held_out=HELD_OUT,
            shuffle_pairs=shuffled,
        )  # fmt: skip
        report = bind(config).values
        assert report["pairs"] == {"found": PAIRS + HELD_OUT, "dropped": 0, "used": PAIRS + HELD_OUT}
        assert report["steps"] == EPOCHS * (PAIRS // 128)
        bound = load_space(out)
        assert bound.fingerprint == demo.fingerprint and list(bound.modalities) == MODALITIES
        for modality in set(MODALITIES) - {"audio"}:
            assert bound.encoders[modality].fingerprint == demo.encoders[modality].fingerprint
        assert bound.encoders["audio"].fingerprint != demo.encoders["audio"].fingerprint
        only_audio = Space("bound", bound.dim, bound.fingerprint, "", {m: bound.encoders[m] for m in ("audio", "text")})
        things[name] = zero_shot_scores(bound, embed_held_out(only_audio, f"{files}/pairs.parquet"), "audio")["thing"]
    assert things["paired"] >= 0.85 and things["shuffled"] <= 0.15, things


def pairs_of(folder: Path, **columns: list[object]) -> str:
    uri = f"{folder}/pairs.parquet"
    pq.write_table(pa.table(columns), uri)
    return uri


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "3 usable pairs, 256 of them held out for the scores, do not fill one batch of 128"),
        (["--held-out", "1", "--batch-size", "3"], "do not fill one batch of 3"),
        (["--space", "nowhere"], "no space 'nowhere'"),
        (["--encoder", "demo/image"], "none fits audio in 128 dimensions"),
        (["--encoder", "demo/smell"], "no encoder 'demo/smell'"),
        (["--start", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_a_binding_that_cannot_work_ends_with_2_before_anything_starts(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = pairs_of(tmp_path, image=["a.jpg"] * 3, audio=["a.wav"] * 3)
    assert bind_main(["audio", "--pairs", pairs, "--space", "demo", "--out", f"{tmp_path}/out", *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_space_is_never_overwritten_and_columns_are_asked_for_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = pairs_of(tmp_path, image=["a.jpg"] * 3)
    assert bind_main(["audio", "--pairs", pairs, "--space", "demo", "--out", str(SHIPPED / "demo")]) == 2
    assert "already holds a space" in capsys.readouterr().err
    assert bind_main(["audio", "--pairs", pairs, "--space", "demo", "--out", f"{tmp_path}/out"]) == 2
    assert "no column 'audio'; it has image" in capsys.readouterr().err
    assert pretrain_main(["--pairs", pairs, "--out", f"{tmp_path}/out"]) == 2
    assert "no column 'caption'; it has image" in capsys.readouterr().err
    assert bind_main(["image", "--pairs", pairs, "--space", "demo", "--out", f"{tmp_path}/out"]) == 2
    assert "pretrain" in capsys.readouterr().err
