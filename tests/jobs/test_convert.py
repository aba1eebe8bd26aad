"""Any space becomes a directory of safetensors that needs nothing else, under the same names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hf_models import save_model
from safetensors.torch import load_file
from sample_media import SAME

from encoders import load_space
from encoders.encoder import small_settings
from encoders.imagebind import build
from jobs.config import BAD_INPUT, DONE
from jobs.convert import main

SIZES = small_settings("imagebind/image")["sizes"]


def converted(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, object]:
    """The report of a job that went well."""
    assert main(argv) == DONE
    report: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return report


def test_an_official_checkpoint_becomes_a_space_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(build(SIZES).state_dict(), tmp_path / "small.pth")
    name = f"imagebind-huge?sizes={json.dumps(SIZES)}"
    origin = load_space(name, checkpoint=tmp_path / "small.pth")
    vector, out = origin.embed("text", ["a dog"]), tmp_path / "space"
    names = origin.fingerprint, {m: e.fingerprint for m, e in origin.encoders.items()}
    report = converted(capsys, name, "--checkpoint", str(tmp_path / "small.pth"), "--out", str(out), "--dtype", "bfloat16")
    assert "non-commercial" in str(report["license"])
    (tmp_path / "small.pth").unlink()  # the directory needs nothing else
    space = load_space(out)
    assert (space.fingerprint, {m: e.fingerprint for m, e in space.encoders.items()}) == names
    assert (report["fingerprint"], report["encoders"]) == names
    files = {path.name for path in out.glob("*.safetensors")}
    assert files == {f"{m}.safetensors" for m in ("audio", "depth", "image", "imu", "text", "thermal")}  # video: the image's
    assert {v.dtype for v in load_file(out / "text.safetensors").values()} == {torch.bfloat16}
    assert report["weights_bytes"] == {name: (out / name).stat().st_size for name in files}
    assert float((space.embed("text", ["a dog"]) * vector).sum()) > 0.999


def test_a_model_directory_of_another_family_becomes_a_space_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model("clip", tmp_path / "model")
    vector = load_space(f"hf:{model}").embed("text", ["a dog"])
    converted(capsys, f"hf:{model}", "--out", str(tmp_path / "out"))
    shutil.rmtree(model)
    np.testing.assert_allclose(load_space(tmp_path / "out").embed("text", ["a dog"]), vector, rtol=0, atol=SAME)


def test_only_the_modalities_asked_for_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = converted(capsys, "demo", "--modalities", "image,text", "--out", str(tmp_path / "out"))
    assert report["fingerprint"] == load_space("demo").fingerprint
    assert load_space(tmp_path / "out").modalities == ("image", "text")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["image.safetensors", "space.json", "text.safetensors"]


def test_a_space_on_s3_is_written_and_loaded(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path / "cache"))
    converted(capsys, "demo", "--modalities", "text", "--out", f"{s3}/spaces/demo", "--dtype", "float16")
    space = load_space(f"{s3}/spaces/demo")
    np.testing.assert_allclose(
        space.embed("text", ["a red train"]), load_space("demo").embed("text", ["a red train"]), rtol=0, atol=SAME
    )


@pytest.mark.parametrize(
    "argv",
    [
        ["demo", "--modalities", "smell"],
        ["demo", "--checkpoint", "x.pth"],
        ["nowhere"],
        ["imagebind-huge", "--checkpoint", "nothing.pth"],
        ["demo", "--dtype", "int8"],
    ],
)
def test_bad_input_ends_with_2_and_writes_no_space(argv: list[str], tmp_path: Path) -> None:
    assert main([*argv, "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert not (tmp_path / "out" / "space.json").exists()


def test_a_space_that_is_there_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    converted(capsys, "demo", "--modalities", "text", "--out", str(tmp_path))
    assert main(["demo", "--out", str(tmp_path)]) == BAD_INPUT
    assert "already holds a space" in capsys.readouterr().err
