"""The model gives what the reference gives: names, shapes, numbers. What only training does, and what is refused."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from splitmix import fill, parameter, stream

from encoders.imagebind import build, reference_forward
from encoders.imagebind.model import Block, ImageBind

DATA = Path(__file__).parents[2] / "data" / "imagebind"
BOUND = 2e-5  # relative L2 of a row; a faithful model stays below 2e-6
CASES = {
    "vision_image": (2, 3, 224, 224),
    "vision_image_280": (1, 3, 280, 280),
    "vision_image_set": (1, 3, 3, 224, 224),
    "vision_video": (1, 5, 3, 2, 224, 224),
    "audio_single": (2, 1, 128, 204),
    "audio_clips": (2, 3, 1, 128, 204),
    "audio_quiet": (1, 3, 1, 128, 204),
    "depth_image": (2, 1, 224, 224),
    "depth_quiet": (1, 1, 224, 224),
    "thermal_image": (2, 1, 224, 224),
    "thermal_quiet": (1, 1, 224, 224),
    "imu_signal": (2, 6, 2000),
    "imu_quiet": (1, 6, 2000),
    "text_tokens": (6, 77),
}
TINY_CASES = ("vision_image", "vision_video", "audio_clips", "depth_image", "thermal_image", "imu_signal", "text_tokens")


@cache
def golden() -> dict[str, torch.Tensor]:
    return load_file(DATA / "golden_small.safetensors")


def described(name: str) -> dict[str, Any]:
    return json.loads((DATA / name).read_text())


@cache
def small(profile: str) -> ImageBind:
    model = build(described("state_dict_small.json")["config"])
    fill(model, profile)
    return model


def case_input(case: str, profile: str = "default") -> torch.Tensor:
    if case == "text_tokens":
        return golden()["in.text_tokens"]
    batch = CASES[case][0] if profile == "default" else 1
    std = 0.1 if profile == "tiny" else 0.01 if case.endswith("quiet") else 1.0
    return stream(f"input.{case}", (batch, *CASES[case][1:]), 0.0, std)


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest relative L2 difference of matching rows."""
    assert ours.shape == theirs.shape
    return float(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max())


@pytest.mark.parametrize(
    ("name", "shape", "first", "total"),
    [
        ("modality_preprocessors.vision.cls_token", (1, 1, 96), -0.85048515, -0.590001337),
        ("modality_preprocessors.text.token_embedding.weight", (49408, 64), 0.087895207, 478.804868),
        ("modality_trunks.audio.blocks.0.attn.bias_k", (1, 1, 80), 0.76509076, -0.380998309),
        ("modality_trunks.audio.blocks.0.attn.in_proj_weight", (240, 80), 0.023273775, 26.067238),
        ("modality_trunks.vision.pre_transformer_layer.0.weight", (96,), 1.0363911, 96.215612),
        ("modality_postprocessors.text.1.log_logit_scale", (), 2.4609647, 2.46096468),
    ],
)
def test_parameters_are_made_as_described(name: str, shape: tuple[int, ...], first: float, total: float) -> None:
    made = parameter(name, shape, "default")
    assert made.flatten()[0].item() == pytest.approx(first, rel=1e-7)
    assert made.double().sum().item() == pytest.approx(total, rel=1e-8)


@pytest.mark.parametrize("file", ["state_dict.json", "state_dict_small.json"])
def test_every_name_shape_and_kind_is_the_official_one(file: str) -> None:
    description = described(file)
    with torch.device("meta"):  # nothing is allocated
        model = build(None if file == "state_dict.json" else description["config"])
    parameters = dict(model.named_parameters())
    ours = [
        (name, list(value.shape), "parameter" if name in parameters else "buffer", str(value.dtype))
        for name, value in model.state_dict().items()
    ]
    assert ours == [(e["name"], e["shape"], e["kind"], f"torch.{e['dtype']}") for e in description["entries"]]


def test_the_buffers_are_built_in() -> None:
    state = build(described("state_dict_small.json")["config"], ["text", "audio", "depth", "thermal", "imu"]).state_dict()
    mask = state["modality_preprocessors.text.mask"]
    assert torch.equal(mask, torch.full((77, 77), -math.inf).triu(1))
    scales = {
        m: state[f"modality_postprocessors.{m}.1.log_logit_scale"].exp().item() for m in ("audio", "depth", "thermal", "imu")
    }
    assert scales == pytest.approx({"audio": 20, "depth": 5, "thermal": 10, "imu": 5})


@pytest.mark.parametrize("case", CASES)
def test_vectors_are_those_of_the_reference(case: str) -> None:
    with torch.inference_mode():
        ours = reference_forward(small("default"), case.partition("_")[0], case_input(case))
    assert difference(ours, golden()[f"out.{case}"]) < BOUND


@pytest.mark.parametrize("case", TINY_CASES)
def test_vectors_are_those_of_the_reference_where_epsilons_weigh(case: str) -> None:
    with torch.inference_mode():
        ours = reference_forward(small("tiny"), case.partition("_")[0], case_input(case, "tiny"))
    assert difference(ours, golden()[f"out.tiny_{case}"]) < BOUND


@pytest.mark.parametrize("case", CASES)
def test_tokens_trunk_and_head_are_those_of_the_reference(case: str) -> None:
    modality, model, batch = case.partition("_")[0], small("default"), case_input(case)
    seen: dict[str, torch.Tensor] = {}
    parts = {"trunk": model.modality_trunks[modality], "head": model.modality_heads[modality]}
    hooks = [
        parts["trunk"].register_forward_hook(lambda _m, args, out: seen.update(tokens=args[0][:1], trunk=out[:1])),
        parts["head"].register_forward_hook(lambda _m, _args, out: seen.update(head=out)),
    ]
    with torch.inference_mode():
        reference_forward(model, modality, batch)
    for hook in hooks:
        hook.remove()
    for part, values in seen.items():
        assert difference(values, golden()[f"{part}.{case}"]) < BOUND, part


def test_the_learned_scale_of_text_stops_at_100() -> None:
    model = build(described("state_dict_small.json")["config"], ["text"])
    fill(model, "default")
    with torch.inference_mode():
        model.get_parameter("modality_postprocessors.text.1.log_logit_scale").fill_(5.0)
        ours = reference_forward(model, "text", case_input("text_tokens"))
    assert difference(ours, golden()["out.text_tokens_capped"]) < BOUND


def test_an_encoder_built_alone_answers_as_it_does_among_the_others() -> None:
    alone = build(described("state_dict_small.json")["config"], ["image", "video"])
    assert set(alone.modality_trunks) == {"vision"}
    alone.load_state_dict({k: v for k, v in small("default").state_dict().items() if k in alone.state_dict()})
    with torch.inference_mode():
        ours = reference_forward(alone, "image", case_input("vision_image"))
    assert difference(ours, golden()["out.vision_image"]) < BOUND


@pytest.mark.parametrize("side", [210, 230, 252, 336])
def test_vision_takes_squares_of_other_sizes(side: int) -> None:
    image = stream("other sizes", (1, 3, side, side), 0.0, 1.0)
    used = side // 14 * 14  # the last pixels fit no patch
    with torch.inference_mode():
        vectors = [reference_forward(small("default"), "vision", x) for x in (image, image[..., :used, :used])]
    assert torch.isfinite(vectors[0]).all()
    torch.testing.assert_close(*vectors)


def test_an_image_is_a_clip_of_two_equal_frames() -> None:
    image = case_input("vision_image")
    with torch.inference_mode():
        as_clip = reference_forward(small("default"), "vision", image[:, None, :, None].expand(-1, -1, -1, 2, -1, -1))
        assert difference(reference_forward(small("default"), "vision", image), as_clip) < BOUND


@pytest.mark.parametrize(
    ("modality", "shape"),
    [
        ("vision", (1, 3, 2, 224, 224)),  # a video without its clip axis: 3 would be taken for the number of clips
        ("vision", (1, 1, 3, 4, 224, 224)),
        ("vision", (1, 3, 224, 280)),
        ("vision", (1, 1, 224, 224)),
        ("audio", (1, 1, 128, 200)),
        ("depth", (1, 1, 256, 256)),
        ("thermal", (1, 3, 224, 224)),
        ("imu", (1, 6, 1999)),
        ("imu", (1, 6, 2008)),
        ("text", (1, 76)),
    ],
)
def test_shapes_that_the_reference_misreads_are_refused(modality: str, shape: tuple[int, ...]) -> None:
    batch = torch.zeros(shape, dtype=torch.int64 if modality == "text" else torch.float32)
    with pytest.raises(ValueError, match=f"{modality} takes"):
        reference_forward(small("default"), modality, batch)


def test_unknown_sizes_and_modalities_are_named() -> None:
    with pytest.raises(ValueError, match="unknown ImageBind sizes audio_width"):
        build({"audio_width": 8})
    with pytest.raises(ValueError, match="imu_num_heads = 7 do not divide"):
        build({"imu_embed_dim": 64, "imu_num_heads": 7})
    with pytest.raises(ValueError, match="no modality 'smell'"):
        build(modalities=["smell"])
    with pytest.raises(ValueError, match="built without 'imu'"):
        reference_forward(build({"depth_num_blocks": 1, "depth_embed_dim": 8}, ["depth"]), "imu", torch.zeros(1, 6, 2000))


def test_evaluation_repeats_itself_and_training_drops_whole_samples() -> None:
    model = build({"imu_embed_dim": 16, "imu_num_blocks": 3, "imu_num_heads": 2, "out_embed_dim": 8}, ["imu"])
    trunk = model.modality_trunks["imu"]
    assert [block.drop_path for block in trunk.blocks if isinstance(block, Block)] == pytest.approx([0, 0.35, 0.7])
    x_BCT = stream("trace", (64, 6, 2000), 0.0, 1.0)
    torch.testing.assert_close(model.encode("imu", x_BCT), model.encode("imu", x_BCT), rtol=0, atol=0)
    model.train()
    assert not torch.equal(model.encode("imu", x_BCT), model.encode("imu", x_BCT))
    last = trunk.blocks[2]
    tokens_BTW = stream("tokens", (512, 4, 16), 0.0, 1.0)
    torch.manual_seed(0)
    untouched = (last(tokens_BTW) == tokens_BTW).flatten(1)
    assert set(untouched.float().mean(1).tolist()) == {0.0, 1.0}  # a sample as a whole or not at all
    assert untouched.all(1).float().mean().item() == pytest.approx(0.7**2, abs=0.08)  # both branches dropped
    kept = last(tokens_BTW).mean(0)
    model.eval()
    assert (kept - last(tokens_BTW).mean(0)).abs().max() < 0.5  # what is kept counts for what is dropped


def test_new_towers_start_as_described() -> None:
    torch.manual_seed(0)
    state = build({"audio_num_blocks": 1, "text_num_blocks": 1, "imu_num_blocks": 1}, ["audio", "text", "imu"]).state_dict()
    for name, std in {
        "modality_preprocessors.audio.pos_embedding_helper.pos_embed": 768**-0.5,
        "modality_preprocessors.text.pos_embed": 0.01,
        "modality_preprocessors.imu.pos_embed": 0.01,
        "modality_preprocessors.imu.cls_token": 512**-0.5,
        "modality_preprocessors.text.token_embedding.weight": 0.02,
        "modality_trunks.audio.blocks.0.attn.in_proj_weight": math.sqrt(2 / (4 * 768)),
        "modality_trunks.audio.blocks.0.attn.out_proj.weight": math.sqrt(2 / (2 * 768)),
        "modality_trunks.audio.blocks.0.mlp.fc1.weight": math.sqrt(2 / (5 * 768)),
        "modality_trunks.audio.blocks.0.attn.bias_k": math.sqrt(2 / (768 + 768)),
    }.items():
        assert state[name].std().item() == pytest.approx(std, rel=0.1), name
    zero = [v for k, v in state.items() if "trunks" in k and k.endswith(("in_proj_bias", "fc1.bias", "out_proj.bias"))]
    assert len(zero) == 3 * 3
    assert all((bias == 0).all() for bias in zero)
    assert state["modality_postprocessors.text.1.log_logit_scale"].exp().item() == pytest.approx(1 / 0.07)
