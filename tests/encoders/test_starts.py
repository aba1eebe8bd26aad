"""Which tower is bound and what it starts from; spaces that refer to encoders of others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from encoders import Space, SpaceError, build_encoder, load_space
from encoders.space import space_fingerprint, trained
from encoders.training.choice import Wish, choose
from encoders.training.loop import Training
from encoders.training.recipe import Recipe, TrainingError
from encoders.training.sides import Frozen, Learner
from encoders.training.start import Start, begin, plain


@pytest.fixture(scope="module")
def demo() -> Space:
    return load_space("demo")


def test_a_tower_from_scratch_depends_on_the_seed_and_its_size_suits_the_data(demo: Space) -> None:
    sizes = {}
    for pairs in (4_000, 100_000, 5_000_000):
        encoder, start = choose(Wish("audio", "demo/audio", pairs=pairs), demo)
        assert start == Start()
        sizes[pairs] = sum(p.numel() for p in encoder.build_tower().parameters())
    assert sizes[4_000] < 1e6 < sizes[100_000] < 1e7 < sizes[5_000_000]
    tiny = build_encoder("demo/audio")
    assert tiny.settings == {}  # as it was before there were sizes: its fingerprints hold
    one, same, other = (begin(tiny, Start(), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(one["head.weight"], same["head.weight"]) and not torch.equal(one["head.weight"], other["head.weight"])


def test_a_size_that_the_user_says_stays_and_one_that_is_none_is_refused(demo: Space) -> None:
    encoder, _ = choose(Wish("audio", "demo/audio", settings={"size": "small"}), demo)
    assert encoder.settings == {"size": "small"}
    with pytest.raises(SpaceError, match="no size 'huge'; there are tiny, small, base"):
        choose(Wish("audio", "demo/audio", settings={"size": "huge"}), demo)[0].build_tower()


def test_a_tower_takes_the_weights_of_the_space_of_another_space_or_of_a_file(
    demo: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = Space("one", 128, demo.fingerprint, "", {"depth": demo.encoders["depth"]}).save(tmp_path / "one")
    expected = demo.encoders["depth"].state()
    for word in ("space", str(tmp_path / "one"), str(tmp_path / "one" / "depth.safetensors"), "one/depth.safetensors"):
        monkeypatch.chdir(tmp_path)
        encoder, start = choose(Wish("depth", "demo/depth" if word.endswith(".safetensors") else "", start=word), demo)
        assert encoder.fingerprint == ""  # it is in training
        monkeypatch.chdir("/")  # a worker is elsewhere
        state = begin(encoder, start, 0).state_dict()
        assert all(torch.equal(state[name].float(), expected[name].float()) for name in expected)
    assert saved.modalities == ("depth",)
    with pytest.raises(SpaceError, match="omit --encoder"):
        choose(Wish("depth", "imagebind/depth", start="space"), demo)
    encoder, start = choose(Wish("depth", "demo/depth", start=str(tmp_path / "one" / "depth.safetensors")), demo)
    with pytest.raises(SpaceError, match="do not fit"):
        begin(build_encoder("demo/depth", {"size": "small"}), start, 0)


def test_a_sensor_seen_as_a_picture_begins_as_the_image_tower(demo: Space) -> None:
    encoder, start = choose(Wish("depth", start="image", encoder="demo/depth"), demo)
    tower = begin(encoder, start, 0)
    image = demo.encoders["image"].state()
    assert all(torch.equal(tower.get_submodule("image").state_dict()[name].float(), image[name].float()) for name in image)
    assert tower.eval()(depth=torch.randint(0, 255, (2, 1, 64, 64), dtype=torch.uint8)).shape == (2, 128)
    with pytest.raises(SpaceError, match="cannot see as one picture"):
        choose(Wish("audio", start="image", encoder="imagebind/audio"), demo)


def test_of_several_architectures_that_fit_one_is_to_be_named(demo: Space) -> None:
    with pytest.raises(SpaceError, match=r"demo/imu and imagebind/imu fit imu in 128 dimensions; name one with --encoder$"):
        choose(Wish("imu", head="linear"), demo)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_new_head_leads_a_tower_of_another_dimension_into_the_space(head: str, demo: Space) -> None:
    with pytest.raises(SpaceError, match=r"recipe\.head"):
        choose(Wish("imu", "imagebind/imu"), demo)
    encoder, start = choose(Wish("imu", "imagebind/imu", head=head, settings={"sizes": {"out_embed_dim": 64}}), demo)
    assert (encoder.architecture, encoder.dim, start) == ("headed", 128, Start())
    headed, start = choose(Wish("depth", start="space", head=head), demo)
    tower = begin(headed, start, 0)
    assert all(
        torch.equal(tower.get_submodule("base").state_dict()[name].float(), value.float())
        for name, value in demo.encoders["depth"].state().items()
    )


def test_adapters_start_as_nothing_learn_alone_and_are_merged_into_a_plain_tower(demo: Space) -> None:
    pytest.importorskip("peft")
    encoder, start = choose(Wish("depth", start="space", lora_rank=2), demo)
    tower = begin(encoder, start, 0).eval()
    pictures = torch.randint(0, 255, (4, 1, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        before = demo.encoders["depth"].tower(depth=pictures)
        torch.testing.assert_close(tower(depth=pictures), before)
        learning = {name for name, p in tower.named_parameters() if p.requires_grad}
        assert learning and all(".lora_" in name for name in learning)
        for name, p in tower.named_parameters():
            if name in learning:
                p.add_(0.05)
        adapted = tower(depth=pictures)
        merged = plain(tower)
        assert not torch.allclose(adapted, before, atol=1e-2)
        torch.testing.assert_close(merged(depth=pictures), adapted, rtol=1e-4, atol=1e-4)
    training = Training(Learner(tower, {"depth": pictures.repeat(8, 1, 1, 1)}), Frozen(torch.eye(128)[:32]), Recipe(1, 32))
    statistics = {name: value.clone() for name, value in tower.named_buffers()}
    training.run_epoch()
    assert all(torch.equal(value, statistics[name]) for name, value in tower.named_buffers())  # nothing else drifts
    assert merged.state_dict().keys() == demo.encoders["depth"].tower.state_dict().keys()
    with pytest.raises(SpaceError, match="say which with --start"):
        choose(Wish("depth", "demo/depth", lora_rank=2), demo)
    with pytest.raises(TrainingError, match="no linear layer"):
        begin(replace(encoder, build_tower=lambda: torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))), Start(lora_rank=2), 0)


def test_a_space_may_refer_to_encoders_of_another_by_uri_and_fingerprint(demo: Space, tmp_path: Path) -> None:
    base = demo.save(tmp_path / "base")
    encoder = build_encoder("demo/depth")
    bound = trained(encoder, encoder.build_tower(), 10.0, {}, torch.float32)
    wider = replace(base, encoders={**base.encoders, "depth": bound}).save(tmp_path / "wider", refer_to=base)
    assert sorted(path.name for path in (tmp_path / "wider").iterdir() if path.is_file()) == ["depth.safetensors", "space.json"]
    again = load_space(tmp_path / "wider")
    assert again.fingerprint == space_fingerprint(base.encoders["image"].fingerprint, 128)
    assert {m: e.fingerprint for m, e in again.encoders.items()} == {m: e.fingerprint for m, e in wider.encoders.items()}
    assert again.encoders["audio"].weights == base.encoders["audio"].weights

    imu = build_encoder("demo/imu")
    wide = {**again.encoders, "imu": trained(imu, imu.build_tower(), 10.0, {}, torch.float32)}
    widest = replace(again, encoders=wide).save(tmp_path / "widest", refer_to=again)
    assert widest.elsewhere["audio"] == base.uri and widest.elsewhere["depth"] == again.uri  # never by a chain

    whole = again.save(tmp_path / "whole")
    assert whole.elsewhere == {} and (tmp_path / "whole" / "audio.safetensors").exists()


def test_a_reference_that_no_longer_holds_is_refused_by_name(demo: Space, tmp_path: Path) -> None:
    base = demo.save(tmp_path / "base")
    replace(base, encoders=dict(base.encoders)).save(tmp_path / "wider", refer_to=base)
    path = tmp_path / "base" / "space.json"
    card = json.loads(path.read_text())
    changed = {**card["encoders"]["audio"], "fingerprint": "0" * 32}
    path.write_text(json.dumps({**card, "encoders": {**card["encoders"], "audio": changed}}))
    with pytest.raises(SpaceError, match=r"for audio as fingerprint .* there it is now 00000000"):
        load_space(tmp_path / "wider")
    path.write_text(json.dumps({**card, "encoders": {m: e for m, e in card["encoders"].items() if m != "audio"}}))
    with pytest.raises(SpaceError, match=r"refers to .* for audio, which has none"):
        load_space(tmp_path / "wider")
    path.write_text(json.dumps({**card, "encoders": {"audio": {"space": str(tmp_path / "wider"), "fingerprint": "0" * 32}}}))
    with pytest.raises(SpaceError, match="refers to"):  # no circles
        load_space(tmp_path / "wider")
    path.unlink()
    with pytest.raises(SpaceError, match="no space"):
        load_space(tmp_path / "wider")
