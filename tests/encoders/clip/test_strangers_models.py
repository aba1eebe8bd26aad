"""Models whose settings a stranger wrote: nothing is fetched, nothing is read from elsewhere, whatever they name."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from hf_models import save_model

from encoders.encoder import build_encoder, small_settings
from encoders.errors import SpaceError
from encoders.space import load_space


@pytest.fixture(scope="module")
def film_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PE-AV of texts and videos, whose frames go through a model of timm."""
    return save_model("pe_video", tmp_path_factory.mktemp("pe_video"))


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Where anybody tried to connect to, or whose address they asked for; none succeeds."""
    tried: list[Any] = []

    def refused(*target: Any, **_: Any) -> Any:
        tried.append(target)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tried


STRANGE = {
    "hub": {"architecture": "hf-hub:stranger/model"},
    "deprecated spelling": {"architecture": "hf_hub:stranger/model"},
    "folder": {"architecture": "local-dir:/etc"},
    "repository": {"architecture": "stranger/model"},
    "checkpoint": {"model_args": {"checkpoint_path": "weights.pth"}},
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_film_model_that_names_a_place_is_refused_without_a_look_there(
    name: str, film_model: Path, addresses: list[Any], tmp_path: Path
) -> None:
    folder = shutil.copytree(film_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["video_config"]["vision_config"] |= STRANGE[name]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpaceError, match="a place to read from"):
        load_space(f"hf:{folder}").encoders["video"].tower  # noqa: B018
    assert not addresses


@pytest.mark.parametrize("name", [*STRANGE, "kernels"])
def test_a_saved_space_that_names_a_place_is_refused_without_a_look_there(
    name: str, film_model: Path, addresses: list[Any], tmp_path: Path
) -> None:
    strange = STRANGE.get(name, {"attn_implementation": "stranger/kernels"})  # of a config.json, transformers drops this
    load_space(f"hf:{film_model}").save(tmp_path / "space")
    card = json.loads((tmp_path / "space" / "space.json").read_text())
    card["encoders"]["video"]["settings"]["model"]["config"]["vision_config"] |= strange
    (tmp_path / "space" / "space.json").write_text(json.dumps(card))
    with pytest.raises(SpaceError, match="a place to read from"):
        load_space(tmp_path / "space").encoders["video"].tower  # noqa: B018
    assert not addresses


@pytest.mark.parametrize("part", ["image", "text", "audio"])
def test_no_part_of_a_model_may_name_a_place(part: str) -> None:
    settings = small_settings(f"hf/{part}")
    settings["model"] = {**settings["model"], "config": {**settings["model"]["config"], "attn_implementation": "a/kernel"}}
    with pytest.raises(SpaceError, match="'a/kernel' is a place"):
        build_encoder(f"hf/{part}", settings)
