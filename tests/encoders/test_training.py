"""Training: the loss, the optimiser's split, the loop on a toy problem small enough to be learnt in a second."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize
from toy_training import TOY, toy, toy_pairs

from encoders.encoder import build_encoder, list_encoders
from encoders.training.augment import (
    SHIFT_PX,
    crop,
    erase,
    flip_and_shift,
    in_turn,
    jitter,
    mask_spectrum,
    roll_time,
    roll_time_and_pitch,
)
from encoders.training.evaluate import accuracy, precision_at_1, recall
from encoders.training.loop import train
from encoders.training.loss import MAX_LOGIT_SCALE, clip_loss
from encoders.training.optimiser import inner_matrices, make_optimiser, warmup_cosine
from encoders.training.recipe import Recipe, TrainingError
from encoders.training.sides import Frozen, Learner


def test_the_loss_is_ln_b_when_nothing_is_learnt() -> None:
    same_BD = torch.ones(6, 4) / 2
    assert clip_loss(same_BD, same_BD, torch.tensor(20.0)).item() == pytest.approx(math.log(6), abs=1e-6)


def test_the_loss_of_two_pairs_is_what_a_hand_computes() -> None:
    query_BD = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    target_BD = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # cosines [[.6, 0], [.8, 1]], times 2: rows [1.2, 0], [1.6, 2]; columns [1.2, 1.6], [0, 2]
    rows = math.log1p(math.exp(-1.2)) + math.log1p(math.exp(-0.4))
    columns = math.log1p(math.exp(0.4)) + math.log1p(math.exp(-2.0))
    assert clip_loss(query_BD, target_BD, torch.tensor(2.0)).item() == pytest.approx((rows + columns) / 4, abs=1e-6)


def test_the_loss_refuses_other_shapes_and_a_batch_without_negatives() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(2, 4\)"):
        clip_loss(torch.ones(3, 4), torch.ones(2, 4), torch.tensor(1.0))
    with pytest.raises(ValueError, match="no negatives"):
        clip_loss(torch.ones(1, 4), torch.ones(1, 4), torch.tensor(1.0))


def test_the_temperature_gets_a_gradient_and_its_inverse_stops_at_100() -> None:
    x, vectors_ND = toy_pairs(8)
    x_BD = normalize(x[:, :8], dim=-1)
    scale = torch.tensor(14.0, requires_grad=True)
    clip_loss(x_BD, vectors_ND, scale).backward()
    assert scale.grad is not None and scale.grad.abs() > 1e-4
    at_limit, beyond = (clip_loss(x_BD, vectors_ND, torch.tensor(s)) for s in (MAX_LOGIT_SCALE, 5000.0))
    assert at_limit == beyond


def test_a_temperature_at_its_limit_can_come_back() -> None:
    x, vectors_ND = toy_pairs(64)
    start = Recipe(epochs=4, batch_size=32, temperature=1 / 150, adamw_lr=0.02)
    trained = train(Learner(toy(), {"x": x}), Frozen(vectors_ND.flip(0)), start)  # wrong partners: sharp cosines are punished
    assert trained.logit_scale < MAX_LOGIT_SCALE - 1


def test_the_learning_rate_warms_up_in_a_line_and_falls_to_zero() -> None:
    rates = [warmup_cosine(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, abs=0.01)
    assert max(rates) == pytest.approx(0.98, abs=0.03) and rates.index(max(rates)) == 9
    assert all(a > b for a, b in pairwise(rates[9:])) and rates[100] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in list_encoders() if name.startswith("demo/")])
def test_every_weight_of_a_tower_is_moved_once_and_its_ends_not_by_muon(name: str) -> None:
    tower = build_encoder(name).build_tower()
    log_scale = nn.Parameter(torch.tensor(2.0))
    groups = make_optimiser([tower], log_scale, Recipe(epochs=1)).param_groups
    moved = [id(p) for group in groups for p in group["params"]]
    assert sorted(moved) == sorted(id(p) for p in [*tower.parameters(), log_scale])
    layers = [m for m in tower.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding)]
    by_muon = {id(p) for p in inner_matrices(tower)}
    assert by_muon and not by_muon & {id(layers[0].weight), id(layers[-1].weight)}


def test_the_loop_learns_a_toy_problem() -> None:
    x, vectors_ND = toy_pairs()
    tower = toy()
    trained = train(Learner(tower, {"x": x[:288]}), Frozen(vectors_ND[:288]), TOY)
    assert trained.steps == 6 * 9 and len(trained.losses) == 6
    assert trained.losses[-1] < 0.3 * math.log(32) < trained.losses[0]
    assert not tower.training
    with torch.no_grad():
        unseen = recall(normalize(tower(x=x[288:]), dim=-1).numpy(), vectors_ND[288:].numpy())
    assert unseen["R@1"] > 0.5  # 1 / 32 by chance


def test_two_towers_learn_together() -> None:
    x, vectors_ND = toy_pairs()
    other = toy(seed=1)
    before = [p.clone() for p in other.parameters()]
    views = torch.cat([vectors_ND, vectors_ND[:, :4]], dim=1)
    trained = train(Learner(toy(), {"x": x}), Learner(other, {"x": views}), TOY)
    assert trained.losses[-1] < 0.5 * trained.losses[0]
    assert all(not torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


def test_training_is_the_same_every_time_under_a_seed_and_another_under_another() -> None:
    x, vectors_ND = toy_pairs()

    def noisy(features: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"x": features["x"] + 0.1 * torch.randn(features["x"].shape, generator=generator)}

    def run(seed: int) -> list[float]:
        recipe = Recipe(epochs=2, batch_size=32, seed=seed)
        return train(Learner(toy(), {"x": x}, noisy), Frozen(vectors_ND), recipe).losses

    assert run(3) == run(3) != run(4)


def test_shuffled_pairs_teach_nothing() -> None:
    x, vectors_ND = toy_pairs(640)
    wrong_ND = vectors_ND[torch.randperm(320, generator=torch.Generator().manual_seed(0))]
    tower = toy()
    train(Learner(tower, {"x": x[:320]}), Frozen(wrong_ND), TOY)
    with torch.no_grad():
        unseen = recall(normalize(tower(x=x[320:]), dim=-1).numpy(), vectors_ND[320:].numpy())
    assert unseen["R@10"] < 0.12  # 10 / 320 by chance


def test_a_loss_that_is_not_finite_stops_training_and_says_where() -> None:
    x, vectors_ND = toy_pairs()
    x[5] = torch.nan
    with pytest.raises(TrainingError, match=r"loss of a batch is nan.*1 of its 32 pairs.*epoch 1 of 6.*lower"):
        train(Learner(toy(), {"x": x}), Frozen(vectors_ND), TOY)


def test_pairs_that_fill_no_batch_are_refused() -> None:
    x, vectors_ND = toy_pairs(31)
    with pytest.raises(TrainingError, match="31 pairs do not fill one batch of 32"):
        train(Learner(toy(), {"x": x}), Frozen(vectors_ND), TOY)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"epochs": 1, "batch_size": 1}, "batch size 1"),
        ({"epochs": 0}, "0 epochs"),
        ({"epochs": 1, "muon_lr": 0.0}, "all must be above 0"),
        ({"epochs": 1, "adamw_lr": math.nan}, "all must be above 0"),
        ({"epochs": 1, "temperature": -1.0}, "all must be above 0"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Recipe(**numbers)


def test_rows_must_belong_to_rows() -> None:
    x, vectors_ND = toy_pairs(64)
    with pytest.raises(TrainingError, match="64 and 63 rows"):
        train(Learner(toy(), {"x": x}), Frozen(vectors_ND[1:]), TOY)


def test_a_shifted_picture_is_the_picture_moved_by_at_most_4_px_and_keeps_its_type() -> None:
    picture = torch.arange(3 * 20 * 20).remainder(251).to(torch.uint8).view(1, 3, 20, 20)
    inner = {(y, x): picture[..., 4 + y : 16 + y, 4 + x : 16 + x] for y in range(-4, 5) for x in range(-4, 5)}
    seen = set()
    for seed in range(60):
        changed = flip_and_shift({"image": picture}, torch.Generator().manual_seed(seed))["image"]
        assert changed.dtype == torch.uint8 and changed.shape == picture.shape
        for flipped in (False, True):
            middle = (changed.flip(-1) if flipped else changed)[..., SHIFT_PX:-SHIFT_PX, SHIFT_PX:-SHIFT_PX]
            seen |= {(flipped, at) for at, part in inner.items() if torch.equal(part, middle)}
    assert {flipped for flipped, _ in seen} == {False, True} and len(seen) > 30


def test_sound_is_rolled_in_time_and_by_three_mel_bins_and_motion_in_time_alone() -> None:
    spectrum = torch.zeros(2, 64, 96, dtype=torch.float16)
    spectrum[:, 30, 40] = 1
    peaks = set()
    for seed in range(80):
        changed = roll_time_and_pitch({"log_mel": spectrum}, torch.Generator().manual_seed(seed))["log_mel"]
        assert changed.dtype == torch.float16
        peaks.add(tuple(np.argwhere(changed[1].numpy() == 1)[0].tolist()))
    assert {mel for mel, _ in peaks} == set(range(27, 34)) and len({frame for _, frame in peaks}) > 20
    trace = torch.randn(3, 6, 200)
    rolled = roll_time({"imu": trace}, torch.Generator().manual_seed(1))["imu"]
    assert not torch.equal(rolled, trace) and torch.equal(rolled.sort(-1).values, trace.sort(-1).values)


def test_a_crop_is_the_same_part_of_a_picture_and_of_its_smaller_depth_map() -> None:
    across = (torch.arange(224) / 224 * 250).expand(2, 3, 224, 224).contiguous()
    small = (torch.arange(64) / 64 * 250).expand(2, 1, 64, 64).contiguous()
    widths = set()
    for seed in range(30):
        picture = crop({"image": across}, torch.Generator().manual_seed(seed))["image"][0, 0, 0]
        depth = crop({"depth": small}, torch.Generator().manual_seed(seed))["depth"][0, 0, 0]
        for at in (0.1, 0.5, 0.9):
            assert abs(picture[int(at * 224)] - depth[int(at * 64)]) < 2 * 250 / 64
        widths.add(round(float((picture.max() - picture.min()) / 250), 2))
    assert min(widths) < 0.75 and max(widths) > 0.95 and min(widths) >= 0.69


def test_masks_hide_a_little_of_each_spectrogram_and_never_the_same() -> None:
    spectrum = torch.randn(16, 64, 96, generator=torch.Generator().manual_seed(0)).half()
    changed = mask_spectrum({"log_mel": spectrum}, torch.Generator().manual_seed(1))["log_mel"]
    assert changed.dtype == torch.float16
    hidden = changed != spectrum
    shares = hidden.float().mean((1, 2))
    assert 0.02 < shares.mean() < 0.4 and shares.max() < 0.6 and len(shares.unique()) > 10
    for one, before in zip(changed, spectrum, strict=True):
        gone = one != before
        assert torch.equal(gone, gone.all(1, keepdim=True) | gone.all(0, keepdim=True))  # whole bins and whole frames
        assert (one[gone].float() - before.float().mean()).abs().max() < 1e-2


def test_erasing_takes_a_rectangle_of_half_of_the_items_and_keeps_their_type() -> None:
    pictures = torch.randint(0, 255, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    changed = erase({"image": pictures}, torch.Generator().manual_seed(1))["image"]
    assert changed.dtype == torch.uint8
    shares = (changed != pictures).float().mean((1, 2, 3))
    assert 16 < int((shares > 0).sum()) < 48 and shares.max() <= 0.26


def test_jitter_is_a_twentieth_of_a_channels_deviation() -> None:
    traces = torch.randn(8, 6, 200, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7).view(1, 6, 1)
    changed = jitter({"imu": traces}, torch.Generator().manual_seed(1))["imu"]
    scaled = changed * (traces * changed).sum((1, 2), keepdim=True) / (changed * changed).sum((1, 2), keepdim=True)
    noise = (scaled - traces).std(-1) / traces.std(-1)
    assert ((noise > 0.03) & (noise < 0.08)).all()


def test_changes_are_made_in_turn_by_name_and_an_unknown_name_is_refused() -> None:
    trace = torch.randn(3, 6, 200)
    both = in_turn(["roll_time", "jitter"])
    assert both is not None and in_turn([]) is None
    generator = torch.Generator().manual_seed(4)
    expected = jitter(roll_time({"imu": trace}, generator), generator)["imu"]
    torch.testing.assert_close(both({"imu": trace}, torch.Generator().manual_seed(4))["imu"], expected)
    with pytest.raises(TrainingError, match="no augmentation 'blur'; there are crop, erase"):
        Recipe(epochs=1, augment=["blur"])


def test_adamw_decays_matrices_alone_and_a_fixed_temperature_is_left_out() -> None:
    tower = build_encoder("demo/audio").build_tower()
    recipe = Recipe(epochs=1, optimiser="adamw", weight_decay=0.1)
    groups = make_optimiser([tower], nn.Parameter(torch.tensor(2.0), requires_grad=False), recipe).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in tower.named_parameters() if id(p) in decayed}
    assert "head.weight" in names and "blocks.0.qkv.weight" in names
    assert not {name for name in names if name.endswith("bias") or "norm" in name or name == "position"}
    assert sum(len(group["params"]) for group in groups) == len(list(tower.parameters()))


def test_recall_counts_a_tie_as_a_miss() -> None:
    assert recall(np.eye(4), np.eye(4), ks=(1,)) == {"R@1": 1.0}
    assert recall(np.ones((4, 2)), np.ones((4, 2)), ks=(1, 4)) == {"R@1": 0.0, "R@4": 1.0}
    assert recall(np.eye(4), np.eye(4)[[1, 0, 2, 3]], ks=(1,)) == {"R@1": 0.5}


def test_precision_at_1_leaves_the_own_scene_out() -> None:
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    assert precision_at_1(vectors, vectors, ["dog", "dog", "cat", "cat"]) == 1.0
    assert precision_at_1(vectors, vectors, ["dog", "cat", "bird", "cow"]) == 0.0  # its own row would be right


def test_accuracy_is_the_share_of_rows_whose_nearest_class_is_true() -> None:
    assert accuracy(np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), np.eye(2), [0, 1, 1]) == pytest.approx(2 / 3)
