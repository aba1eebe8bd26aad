"""jobs.export whole: the embed job takes a space of ONNX towers as any other, and its vectors are those of the origin."""

from __future__ import annotations

import json
from pathlib import Path

import lance
import numpy as np
import pytest
import torch

from encoders.encoder import build_encoder, seeded_tower, small_settings
from encoders.space import Space, load_space, space_fingerprint, trained
from jobs.config import BAD_INPUT, DONE, GATE_FAILED
from jobs.export import ExportConfig, export, main
from pipelines.demo_world import MODALITIES, grid, write_corpus
from pipelines.embed import EmbedSettings, embed


def small_imagebind(folder: Path, modalities: tuple[str, ...]) -> Space:
    """A space of small, untrained towers, saved."""
    encoders = {}
    for modality in modalities:
        encoder = build_encoder(f"imagebind/{modality}", small_settings(f"imagebind/{modality}"))
        encoders[modality] = trained(encoder, seeded_tower(encoder, 0), 10.0, {}, torch.float32)
    return Space("small", 64, space_fingerprint("0" * 32, 64), "none", encoders).save(folder)


def the_same_rows_come_of_both(space: Space, copy: Path, tmp_path: Path) -> None:
    """Embed the demo world with the copy, compare with the origin's vectors, and go on with the origin: nothing to do."""
    write_corpus(str(tmp_path / "media"), grid(1)[:2], space.modalities)
    report = embed(EmbedSettings(corpus=str(tmp_path / "media"), db=str(tmp_path / "db"), space=str(copy)))
    assert report.tally.embedded == 2 * len(space.modalities), report.failures
    table = lance.dataset(f"{tmp_path}/db/media.lance").to_table().to_pandas()
    for modality, rows in table.groupby("modality"):
        assert set(rows["encoder"]) == {space.encoders[modality].fingerprint}
        ours = space.embed(modality, [Path(uri) for uri in rows["uri"]])
        np.testing.assert_allclose(np.stack(rows["vector"]), ours, atol=1e-4)
    again = embed(EmbedSettings(corpus=str(tmp_path / "media"), db=str(tmp_path / "db"), space=space.uri))
    assert (again.tally.embedded, again.tally.unchanged) == (0, len(table))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_a_space_of_onnx_towers_goes_on_where_its_origin_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = small_imagebind(tmp_path / "space", ("image", "text"))
    assert main([space.uri, "--out", str(tmp_path / "onnx")]) == DONE
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["written"]
    assert set(report["towers"]) == {"image", "text"}
    assert all(tower["cosine"] >= 0.99999 for tower in report["towers"].values())
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {"image.onnx", "text.onnx", "space.json"}
    the_same_rows_come_of_both(space, tmp_path / "onnx", tmp_path)
    assert main([space.uri, "--out", str(tmp_path / "onnx")]) == BAD_INPUT


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("name", ["demo", "imagebind"])
def test_all_seven_modalities_go_on_in_onnx(name: str, tmp_path: Path) -> None:
    space = load_space("demo") if name == "demo" else small_imagebind(tmp_path / "space", MODALITIES)
    report = export(ExportConfig(space=space.uri, out=str(tmp_path / "onnx")))
    assert report.exit_code == DONE
    assert set(report.values["towers"]) == set(MODALITIES)
    the_same_rows_come_of_both(space, tmp_path / "onnx", tmp_path)


def test_towers_that_disagree_make_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.export.MIN_COSINE", 1.1)
    report = export(ExportConfig(space=small_imagebind(tmp_path / "space", ("text",)).uri, out=str(tmp_path / "onnx")))
    assert report.exit_code == GATE_FAILED
    assert not report.values["written"]
    assert not (tmp_path / "onnx" / "space.json").exists()
