"""The ImageBind space of a checkpoint with the official names: read in parts, named, saved. Small sizes."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sample_media import SAME, sample

from encoders.encoder import small_settings
from encoders.errors import SpaceError
from encoders.families import imagebind
from encoders.imagebind import build
from encoders.space import load_space
from encoders.weights import Weights

SIZES = small_settings("imagebind/image")["sizes"]
LEARNED = math.log(30.0)
DATA = Path(__file__).parents[2] / "data" / "imagebind"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of all six official modalities."""
    torch.manual_seed(0)
    state = {**build(SIZES).state_dict(), imagebind.TEXT_SCALE: torch.tensor(LEARNED)}
    path = tmp_path_factory.mktemp("checkpoint") / "small.pth"
    torch.save(state, path)
    return path


def test_every_modality_embeds_and_a_safetensors_copy_is_the_same_space(checkpoint: Path, tmp_path: Path) -> None:
    space = load_space("imagebind-huge", checkpoint=checkpoint, sizes=SIZES)
    save_file(torch.load(checkpoint, weights_only=True), tmp_path / "copy.safetensors")
    copy = load_space(f"imagebind-huge?checkpoint={tmp_path}/copy.safetensors", sizes=SIZES)
    assert copy.fingerprint == space.fingerprint
    for modality in imagebind.MODALITIES:
        vector = space.embed(modality, [sample(modality)])
        assert vector.shape == (1, space.dim)
        np.testing.assert_allclose(copy.embed(modality, [sample(modality)]), vector, rtol=0, atol=SAME)
    assert "non-commercial" in space.license


def test_its_uri_loads_the_same_space_in_another_process(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    space = load_space("imagebind-huge", checkpoint="small.pth", modalities=["text", "image"], sizes=SIZES, profile="reference")
    monkeypatch.chdir(tmp_path)
    again = load_space(space.uri)
    assert again.uri == space.uri
    assert again.modalities == space.modalities == ("image", "text")
    assert again.encoders["text"].settings == space.encoders["text"].settings
    assert again.encoders["image"].fingerprint == space.encoders["image"].fingerprint


def test_loading_reads_no_tower_and_embedding_reads_one(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Weights] = []
    fitting = Weights.fitting
    monkeypatch.setattr(Weights, "fitting", lambda self, *rest: (read.append(self), fitting(self, *rest))[1])
    space = load_space("imagebind-huge", checkpoint=checkpoint, modalities="text,imu", sizes=SIZES)
    assert read == []
    space.embed("text", ["a dog"])
    assert read == [space.encoders["text"].weights]
    assert {name.split(".")[1] for name in space.encoders["text"].state()} == {"text"}


def test_the_space_is_the_same_whatever_is_loaded_of_it_and_encoders_tell_profiles(checkpoint: Path, tmp_path: Path) -> None:
    whole = load_space("imagebind-huge", checkpoint=checkpoint, sizes=SIZES)
    text = load_space("imagebind-huge", checkpoint=checkpoint, modalities="text", sizes=SIZES)
    reference = load_space("imagebind-huge", checkpoint=checkpoint, profile="reference", sizes=SIZES)
    assert text.fingerprint == reference.fingerprint == whole.fingerprint
    assert text.save(tmp_path / "text").fingerprint == whole.fingerprint
    assert reference.encoders["image"].fingerprint != whole.encoders["image"].fingerprint
    other = torch.load(checkpoint, weights_only=True)
    other["modality_heads.vision.0.bias"] = other["modality_heads.vision.0.bias"] + 1
    torch.save(other, tmp_path / "other.pth")
    assert load_space("imagebind-huge", checkpoint=tmp_path / "other.pth", sizes=SIZES).fingerprint != whole.fingerprint


def test_scales_are_the_models_own(checkpoint: Path, tmp_path: Path) -> None:
    space = load_space("imagebind-huge", checkpoint=checkpoint, sizes=SIZES)
    assert {m: round(e.logit_scale, 3) for m, e in space.encoders.items()} == {
        "image": 30,
        "video": 30,
        "text": 30,
        "audio": 20,
        "depth": 5,
        "thermal": 10,
        "imu": 5,
    }
    torch.save({**torch.load(checkpoint, weights_only=True), imagebind.TEXT_SCALE: torch.tensor(9.0)}, tmp_path / "hot.pth")
    assert load_space("imagebind-huge", checkpoint=tmp_path / "hot.pth", sizes=SIZES).encoders["text"].logit_scale == 100


def test_what_is_wrong_with_a_checkpoint_is_named(checkpoint: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    del state["modality_heads.audio.0.bias"]
    state["modality_heads.audio.0.extra"] = state["ema.decay"] = torch.ones(1)
    torch.save(state, tmp_path / "odd.pth")
    space = load_space("imagebind-huge", checkpoint=tmp_path / "odd.pth", sizes=SIZES)
    with pytest.raises(SpaceError, match=re.escape("2 unexpected (ema.decay, modality_heads.audio.0.extra)")) as raised:
        space.embed("audio", [sample("audio")])
    assert "1 weights missing (modality_heads.audio.0.bias)" in str(raised.value)
    with pytest.raises(SpaceError, match="of another shape"):
        load_space("imagebind-huge", checkpoint=checkpoint, modalities="imu").encoder("imu").state()


def test_without_a_checkpoint_the_message_says_where_from_and_under_which_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path))
    with pytest.raises(SpaceError) as raised:
        load_space("imagebind-huge")
    message = str(raised.value)
    for said in (imagebind.URL, "CC BY-NC-SA 4.0", "non-commercial", "jobs.convert imagebind-huge --download", str(tmp_path)):
        assert said in message
    with pytest.raises(SpaceError, match="no checkpoint at"):
        load_space("imagebind-huge", checkpoint=tmp_path / "nothing.pth")


@pytest.mark.parametrize(
    ("option", "said"),
    [({"modalities": "smell"}, "modality 'smell'"), ({"profile": "x"}, "profile 'x'"), ({"sizes": "{"}, "no JSON object")],
)
def test_unknown_modalities_profiles_and_sizes_are_named(checkpoint: Path, option: dict[str, str], said: str) -> None:
    with pytest.raises(SpaceError, match=said):
        load_space("imagebind-huge", checkpoint=checkpoint, **option)


def test_a_download_happens_only_on_request_is_checked_and_is_found_afterwards(
    checkpoint: Path, http_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = checkpoint.read_bytes()
    (http_folder.path / imagebind.FILE).write_bytes(content)
    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(imagebind, "URL", f"{http_folder.url}/{imagebind.FILE}")
    monkeypatch.setattr(imagebind, "SIZE", len(content))
    with pytest.raises(SpaceError, match="damaged or another file"):  # the official digest
        load_space("imagebind-huge", download=True, sizes=SIZES)
    monkeypatch.setattr(imagebind, "SHA256", hashlib.sha256(content).hexdigest())
    space = load_space("imagebind-huge?download=1", sizes=SIZES)
    assert "download" not in space.uri and "checkpoint" not in space.uri
    (http_folder.path / imagebind.FILE).unlink()
    assert load_space(space.uri).embed("text", ["a dog"]).shape == (1, 64)


def test_settings_of_encoders_reach_them_and_are_spelled_in_the_uri(checkpoint: Path) -> None:
    wanted = {"depth": {"focal_length_px": 260.0}, "imu": {"acceleration_unit": "g"}}
    space = load_space("imagebind-huge", checkpoint=checkpoint, modalities="depth,imu", sizes=SIZES, settings=wanted)
    again = load_space(space.uri)
    metres = np.full((64, 64), 2.0)
    for each in (space, again):
        assert each.encoders["depth"].preprocess(metres)["disparity"].max() == pytest.approx(0.13)
        assert each.encoders["imu"].preprocess(np.ones((9, 6)))["imu"][0, 0] == pytest.approx(9.80665)
    plain = load_space("imagebind-huge", checkpoint=checkpoint, modalities="depth,imu", sizes=SIZES)
    assert again.encoders["depth"].fingerprint == space.encoders["depth"].fingerprint != plain.encoders["depth"].fingerprint
    for wrong in ({"depth": {"focal": 1.0}}, {"smell": {}}, {"depth": {"baseline_m": 0.0}}):
        with pytest.raises(SpaceError):
            load_space("imagebind-huge", checkpoint=checkpoint, modalities="depth", sizes=SIZES, settings=wrong)


FULL_SIZE = """
import sys
from encoders import load_space

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("RssAnon"))

space = load_space("imagebind-huge", checkpoint=sys.argv[1], modalities=["imu", "text"])
space.encoders["imu"].tower
before = anonymous()
tower = space.encoders["text"].tower
assert sum(parameter.numel() for parameter in tower.parameters()) == 354_032_641
print(anonymous() - before)
"""


def test_two_towers_of_the_published_size_are_built_from_the_whole_checkpoint_without_reading_it(tmp_path: Path) -> None:
    header, end = {}, 0
    for entry in json.loads((DATA / "state_dict.json").read_text())["entries"]:
        start, end = end, end + 4 * math.prod(entry["shape"])
        header[entry["name"]] = {"dtype": "F32", "shape": entry["shape"], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (tmp_path / "huge.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)  # 4.8 GB that take no room
    argv = [sys.executable, "-c", FULL_SIZE, str(tmp_path / "huge.safetensors")]
    found = subprocess.run(argv, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < 50  # MB, of 1,416
