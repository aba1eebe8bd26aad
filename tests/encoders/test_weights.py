"""Weights: read by mapping, checked by name and shape, written one tensor at a time, and towers built without drawing any."""

from __future__ import annotations

import io
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save_file
from torch import nn

from encoders.encoder import build_encoder, seeded_tower, small_settings
from encoders.errors import SpaceError
from encoders.space import load_space
from encoders.weights import Weights, fingerprint, uninitialised, write_safetensors


class Small(nn.Module):
    """Two parameters, a persistent buffer, and one that is in no file."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.tensor([1.0, 2.0, 3.0]), persistent=False)


def state_of(**changed: torch.Tensor) -> dict[str, torch.Tensor]:
    """What `Small` has in a file."""
    return {"linear.weight": torch.ones(2, 3), "linear.bias": torch.arange(2.0), "steps": torch.tensor(7), **changed}


def stored(path: Path, state: Any) -> Weights:
    """A file of the format that its name says."""
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return Weights(str(path))


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth"])
def test_loading_sets_parameters_and_buffers_and_leaves_what_is_in_no_file(tmp_path: Path, file: str) -> None:
    weights = stored(tmp_path / file, state_of(**{"linear.weight": torch.full((2, 3), 0.5, dtype=torch.bfloat16)}))
    with uninitialised():
        tower = Small()
    weights.load_into(tower, "small")
    assert tower.linear.weight.dtype == torch.float32
    torch.testing.assert_close(tower.linear.weight.data, torch.full((2, 3), 0.5))
    assert tower.linear.bias.tolist() == [0, 1]
    assert tower.steps.item() == 7
    assert tower.mean.tolist() == [1, 2, 3]
    assert isinstance(tower.linear.weight, nn.Parameter)


def test_a_torch_file_of_the_old_format_is_read(tmp_path: Path) -> None:
    torch.save(state_of(), tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert Weights(str(tmp_path / "w.pt")).read().keys() == state_of().keys()


def test_what_does_not_fit_is_counted_and_named(tmp_path: Path) -> None:
    state = state_of(**{"linear.weight": torch.ones(5, 3)}, **{f"extra.{k}": torch.ones(1) for k in range(5)})
    del state["linear.bias"]
    with pytest.raises(SpaceError) as raised:
        stored(tmp_path / "w.safetensors", state).load_into(Small(), "toy/small")
    message = str(raised.value)
    assert "does not fit encoder 'toy/small': 1 weights missing (linear.bias)" in message
    assert "5 unexpected (extra.0, extra.1, extra.2, ...)" in message
    assert "1 of another shape (linear.weight (5, 3) instead of (2, 3))" in message


def test_other_towers_entries_are_passed_over(tmp_path: Path) -> None:
    weights = stored(tmp_path / "w.pth", state_of(**{"audio.a": torch.ones(1), "foreign.a": torch.ones(1)}))
    Weights(weights.uri, ("audio.", "foreign.")).load_into(Small(), "small")
    with pytest.raises(SpaceError, match=re.escape("1 unexpected (foreign.a)")):
        Weights(weights.uri, ("audio.",)).load_into(Small(), "small")


class Malicious:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.path, "run"))


def test_nothing_in_a_torch_file_is_executed(tmp_path: Path) -> None:
    weights = stored(tmp_path / "w.pth", {"a": Malicious(tmp_path / "proof")})
    with pytest.raises(SpaceError, match=r"not a readable file of tensors: .* objects, which are never loaded") as caught:
        weights.read()
    assert "weights_only" not in str(caught.value)  # torch's message tells how to have it run
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Malicious(tmp_path / "proof")))
    with pytest.raises(SpaceError, match="not a readable file of tensors"):
        Weights(str(tmp_path / "w.pt")).read()
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("kept", [0, 5, 0.5])
def test_a_damaged_file_is_a_named_error(tmp_path: Path, file: str, kept: float) -> None:
    stored(tmp_path / file, {"a": torch.ones(1000)})
    data = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(data[: int(kept * len(data)) if kept < 1 else int(kept)])
    with pytest.raises(SpaceError, match="not a readable"):
        Weights(str(tmp_path / file)).read()


def test_a_missing_file_and_a_file_of_more_than_tensors_are_named_errors(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="are not there"):
        Weights(str(tmp_path / "w.pth")).read()
    with pytest.raises(SpaceError, match=re.escape("holds more than tensors by name: state_dict dict, epoch int")):
        stored(tmp_path / "w.pth", {"state_dict": {}, "epoch": 3}).read()
    with pytest.raises(SpaceError, match="holds a list"):
        stored(tmp_path / "w.pth", [torch.ones(1)]).read()


def test_weights_on_s3_load_from_a_copy(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path / "cache"))
    for value in (1.0, 2.0):
        buffer = io.BytesIO()
        torch.save({"a": torch.full((4,), value)}, buffer)
        with fsspec.open(f"{s3}/w.pth", "wb") as file:
            file.write(buffer.getvalue())
        assert Weights(f"{s3}/w.pth").read()["a"].tolist() == [value] * 4
    assert len(list((tmp_path / "cache" / "copies").glob("*.pth"))) == 2  # it changed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_written_safetensors_are_what_the_library_reads(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {
        "matrix": torch.randn(5, 3).T,  # not contiguous
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.empty(0, 3),
        "ids": torch.arange(4),
        "mask": torch.tensor([True, False, True]),
        "bytes": torch.arange(3, dtype=torch.uint8),
    }
    with (tmp_path / "w.safetensors").open("wb") as file:
        write_safetensors(state, file, dtype)
    found = load_file(tmp_path / "w.safetensors")
    assert load((tmp_path / "w.safetensors").read_bytes()).keys() == found.keys() == state.keys()
    for name, tensor in state.items():
        wanted = tensor.to(dtype) if tensor.is_floating_point() else tensor
        torch.testing.assert_close(found[name], wanted, rtol=0, atol=0)
        assert found[name].dtype == wanted.dtype


def test_towers_built_to_be_loaded_draw_nothing_and_embed_the_same(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    with uninitialised():
        nn.TransformerEncoderLayer(8, 2)
        nn.init.trunc_normal_(torch.empty(3))
        nn.init.xavier_normal_(torch.empty(3, 3))
    assert torch.equal(torch.random.get_rng_state(), before)
    nn.Linear(2, 2)
    assert not torch.equal(torch.random.get_rng_state(), before)  # outside, all is as ever


def test_the_type_and_the_file_do_not_change_a_fingerprint_but_settings_and_assets_do(tmp_path: Path) -> None:
    state = {"a": torch.randn(4, 4).bfloat16(), "n": torch.tensor(3)}
    name = fingerprint(state, "x", {"k": 1})
    assert fingerprint({"n": state["n"], "a": state["a"].float()}, "x", {"k": 1}) == name
    assert fingerprint(stored(tmp_path / "w.pth", state).read(), "x", {"k": 1}) == name
    others = [("y", {"k": 1}, {}), ("x", {"k": 2}, {}), ("x", {"k": 1}, {"t": b"1"}), ("x", {"k": 1}, {"t": b"2"})]
    assert len({name, *(fingerprint(state, *other) for other in others)}) == 5
    a, n = state["a"], state["n"]  # the same bytes under other names, in another shape, of another kind of number
    swapped = [{"b": a, "n": n}, {"a": a.view(2, 8), "n": n}, {"a": a.float().view(torch.int32), "n": n}]
    assert len({name, *(fingerprint(other, "x", {"k": 1}) for other in swapped)}) == 4


def test_a_fingerprint_is_computed_at_the_first_look_and_only_then(tmp_path: Path) -> None:
    encoder = build_encoder("demo/imu")
    weights = stored(tmp_path / "w.safetensors", seeded_tower(encoder, 0).state_dict())
    made = encoder.with_weights(weights, None, lambda: 5.0, {})
    copy = pickle.loads(pickle.dumps(encoder.with_weights(weights, None, 5.0, {})))
    assert copy.fingerprint == made.fingerprint == fingerprint(weights.read(), "demo/imu", {})
    assert "tower" not in made.__dict__
    assert made.logit_scale == 5.0
    Path(weights.uri).unlink()
    assert made.fingerprint == copy.fingerprint  # kept


def test_a_space_saved_over_itself_keeps_its_weights(tmp_path: Path) -> None:
    first = load_space("demo").save(tmp_path / "space")
    second = first.save(tmp_path / "space", torch.float16)
    third = load_space(tmp_path / "space").save(tmp_path / "space")
    assert third.fingerprint == second.fingerprint == load_space("demo").fingerprint
    assert third.encoders["imu"].fingerprint == fingerprint(third.encoders["imu"].state(), "demo/imu", {})
    assert not list((tmp_path / "space").glob("*.part"))
    assert not (tmp_path / "space" / "video.safetensors").exists()  # it has the image tower's


def test_small_settings_are_the_default_where_none_are_given() -> None:
    assert small_settings("demo/imu") == {}
    assert build_encoder("demo/text", small_settings("demo/text")).settings["vocabulary"]


MEMORY = """
import sys, torch
from torch import nn
from encoders.weights import Weights, uninitialised
from encoders.families.imagebind import PARTS

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("RssAnon"))

class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.modality_heads = nn.ModuleDict({"audio": nn.Linear(10_000, 1_000, bias=False)})  # 40 MB

before = anonymous()
with uninitialised():
    tower = Tower()
Weights(sys.argv[1], tuple(f"{part}.vision." for part in PARTS)).load_into(tower, "audio")
assert float(tower.modality_heads["audio"].weight[3, 5]) == 0.25
print(anonymous() - before)
"""


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth"])
def test_a_tower_costs_no_memory_of_its_own_and_its_neighbours_in_the_file_none(tmp_path: Path, file: str) -> None:
    state = {
        "modality_heads.vision.weight": torch.zeros(100_000_000),
        "modality_heads.audio.weight": torch.zeros(1_000, 10_000),
    }
    state["modality_heads.audio.weight"][3, 5] = 0.25
    stored(tmp_path / file, state)  # 440 MB
    found = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path / file)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < 20  # MB
