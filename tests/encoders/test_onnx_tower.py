"""Every registered encoder's tower, written as ONNX and run by onnxruntime, against itself in torch."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_media import sample_files

from encoders.embedder import Embedder
from encoders.encoder import Encoder, build_encoder, list_encoders, seeded_tower, small_settings
from encoders.errors import SpaceError
from encoders.onnx_tower import OnnxTower, write_onnx
from encoders.space import Space, load_space, space_fingerprint, trained

QUICK = ("imagebind/text", "demo/audio")
MIN_COSINE = 0.99999


def small(name: str) -> Encoder:
    encoder = build_encoder(name, small_settings(name))
    return trained(encoder, seeded_tower(encoder, 0), 10.0, {}, torch.float32)


def features_of(encoder: Encoder) -> dict[str, np.ndarray]:
    """A batch of 3: of media in so many formats as there are, and the first of them changed."""
    rows = [encoder.preprocess(media) for media in list(sample_files(encoder.modality).values())[:3]]
    rows += [{name: values[..., ::-1].copy() for name, values in rows[0].items()} for _ in range(3 - len(rows))]
    return {name: np.stack([row[name] for row in rows]) for name in encoder.features}


def written(encoder: Encoder, path: Path) -> OnnxTower:
    batch = {name: torch.from_numpy(values[:2]) for name, values in features_of(encoder).items()}
    write_onnx(encoder.tower, batch, path)
    return OnnxTower(str(path), tuple(encoder.features))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in list_encoders()]
)
def test_a_tower_in_onnx_answers_as_in_torch_whatever_the_batch(name: str, tmp_path: Path) -> None:
    encoder = small(name)
    tower = written(encoder, tmp_path / "tower.onnx")
    for count in (1, 3):
        batch = {key: torch.from_numpy(values[:count]) for key, values in features_of(encoder).items()}
        with torch.inference_mode():
            ours, theirs = tower(**batch), encoder.tower(**batch)
        assert ours.shape == (count, encoder.dim)
        assert torch.nn.functional.cosine_similarity(ours.double(), theirs.double()).min() >= MIN_COSINE


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Space, Path]:
    """A space of one small encoder, and the directory of its ONNX counterpart."""
    encoder = small("demo/audio")
    folder = tmp_path_factory.mktemp("onnx")
    space = Space("test", encoder.dim, space_fingerprint("0" * 32, encoder.dim), "none", {"audio": encoder})
    written(encoder, folder / "audio.onnx")
    space.publish(folder, {"audio": "audio.onnx"})
    return space, folder


def test_a_space_of_onnx_towers_embeds_under_the_names_of_its_origin(exported: tuple[Space, Path]) -> None:
    space, folder = exported
    media = list(sample_files("audio").values())
    loaded = load_space(folder)
    assert (loaded.fingerprint, loaded.encoders["audio"].fingerprint) == (
        space.fingerprint,
        space.encoders["audio"].fingerprint,
    )
    np.testing.assert_allclose(loaded.embed("audio", media, batch_size=2), space.embed("audio", media), atol=1e-5)


def test_an_onnx_tower_pickles_and_opens_its_file_again(exported: tuple[Space, Path]) -> None:
    _, folder = exported
    encoder = load_space(folder).encoders["audio"]
    batch = features_of(encoder)
    before = Embedder(encoder, 2, "cpu")(batch)
    copy = pickle.loads(pickle.dumps(encoder.tower))
    with torch.inference_mode():
        again = copy(**{name: torch.from_numpy(values) for name, values in batch.items()})
    np.testing.assert_allclose(torch.nn.functional.normalize(again).numpy(), before, atol=1e-6)
    assert Embedder(pickle.loads(pickle.dumps(encoder)), 2, "cpu")(batch).shape == before.shape


def test_a_session_has_as_many_threads_as_torch(exported: tuple[Space, Path]) -> None:
    _, folder = exported
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        tower = OnnxTower(str(folder / "audio.onnx"), ("log_mel",))
        assert tower.session.get_session_options().intra_op_num_threads == 1
    finally:
        torch.set_num_threads(before)


def test_large_weights_lie_beside_the_file_and_come_along_from_afar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, http_folder: Any
) -> None:
    monkeypatch.setattr("encoders.onnx_tower.EXTERNAL_BYTES", 1000)
    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path / "cache"))
    encoder = small("demo/audio")
    near = written(encoder, http_folder.path / "audio.onnx")
    assert (http_folder.path / "audio.onnx").stat().st_size < (http_folder.path / "audio.onnx.data").stat().st_size
    batch = {name: torch.from_numpy(values) for name, values in features_of(encoder).items()}
    far = OnnxTower(f"{http_folder.url}/audio.onnx", tuple(encoder.features))
    torch.testing.assert_close(far(**batch), near(**batch), rtol=0, atol=0)
    assert not list((tmp_path / "cache").glob("tmp*"))


def test_what_is_no_tower_of_this_encoder_is_named(exported: tuple[Space, Path], tmp_path: Path) -> None:
    _, folder = exported
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf" * 20)
    with pytest.raises(SpaceError, match=r"bad\.onnx is not a readable ONNX file"):
        _ = OnnxTower(str(tmp_path / "bad.onnx"), ("log_mel",)).session
    with pytest.raises(SpaceError, match=r"none\.onnx is not there"):
        _ = OnnxTower(str(tmp_path / "none.onnx"), ("log_mel",)).session
    with pytest.raises(SpaceError, match=r"takes \['log_mel'\], not \['image'\]"):
        _ = OnnxTower(str(folder / "audio.onnx"), ("image",)).session


class OneByOne(torch.nn.Module):
    """A tower that counts its items in Python, as SigLIP 2 NaFlex does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[i] * 2 for i in range(int(x.shape[0]))])


def test_a_tower_that_was_written_for_one_size_of_batch_is_refused_by_name(tmp_path: Path) -> None:
    write_onnx(OneByOne().eval(), {"x": torch.ones(2, 3)}, tmp_path / "fixed.onnx")
    with pytest.raises(SpaceError, match=r"fixed\.onnx takes batches of 2 only"):
        OnnxTower(str(tmp_path / "fixed.onnx"), ("x",))(x=torch.ones(3, 3))


def test_a_space_of_onnx_towers_cannot_be_saved_as_weights(exported: tuple[Space, Path], tmp_path: Path) -> None:
    _, folder = exported
    with pytest.raises(SpaceError, match="use the space that it was exported from"):
        load_space(folder).save(tmp_path / "again")
