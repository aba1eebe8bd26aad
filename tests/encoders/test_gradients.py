"""The gradient of a step: the same however many workers share the batch, and however few rows go through a tower at once."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from toy_training import TOY, Toy, toy, toy_pairs, toy_training

from encoders.encoder import build_encoder
from encoders.training import loss as losses
from encoders.training.gradcache import BadBatchError, Gradients, Objective
from encoders.training.loop import Training, train
from encoders.training.loss import clip_loss, cosine_loss
from encoders.training.recipe import Recipe, TrainingError
from encoders.training.sides import Frozen, Learner, Recomputed
from encoders.training.workers import Workers

HERE = Path(__file__).parent


def gradient(towers: list[nn.Module], features: torch.Tensor, vectors_ND: torch.Tensor, micro_batch: int) -> torch.Tensor:
    """All gradients of one step in a row, the temperature's last."""
    sides = [Learner(towers[0].train(), {"x": features})]
    sides += [Learner(towers[1].train(), {"x": features.flip(-1)})] if len(towers) > 1 else [Frozen(vectors_ND)]
    objective = Objective(TOY, torch.device("cpu"))
    made = Gradients(sides, objective, Workers(), micro_batch, pytest.fail)
    made.compute(torch.arange(len(features)), None, seed=3)
    return torch.cat([weight.grad.flatten() for weight in [*made.weights, objective.log_scale]])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("micro_batch", [1, 24, 64])
def test_a_gradient_by_parts_is_that_of_the_whole_batch(micro_batch: int, dropout: float) -> None:
    x, vectors_ND = toy_pairs(64)
    whole = gradient([toy()], x, vectors_ND, 0)
    tower = toy()
    vectors = normalize(tower(x), dim=-1)
    clip_loss(vectors, vectors_ND, torch.tensor(1 / TOY.temperature)).backward()
    plain = torch.cat([weight.grad.flatten() for weight in tower.parameters()])
    torch.testing.assert_close(whole[:-1], plain, rtol=1e-4, atol=1e-7)  # the two ways agree with a plain backward
    if dropout:  # by parts, other units are dropped than at once: the second pass must drop those of the first
        once, again = (gradient([toy(dropout=dropout)], x, vectors_ND, micro_batch) for _ in range(2))
        torch.testing.assert_close(once, again, rtol=0, atol=0)
    else:
        parts = gradient([toy()], x, vectors_ND, micro_batch)
        assert cosine_similarity(whole, parts, dim=0) >= 0.9999
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-7)


def test_what_a_tower_drops_is_the_same_in_both_passes_of_a_part() -> None:
    class Telling(Toy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made = super().forward(x)
            seen.append(made.detach().clone())
            return made

    seen: list[torch.Tensor] = []
    x, vectors_ND = toy_pairs(64)
    gradient([Telling(dropout=0.5)], x, vectors_ND, 16)
    assert len(seen) == 8
    for first, second in zip(seen[:4], seen[4:], strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_two_towers_that_learn_get_the_whole_gradient_by_parts_too() -> None:
    x, vectors_ND = toy_pairs(64)
    whole, parts = (gradient([toy(), toy(1)], x, vectors_ND, micro) for micro in (0, 16))
    assert cosine_similarity(whole, parts, dim=0) >= 0.9999
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-7)


def test_a_large_batch_is_compared_in_chunks_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    x, vectors_ND = toy_pairs(100)
    groups_B = torch.arange(100) // 2
    found = []
    for chunk in (4096, 32):
        monkeypatch.setattr(losses, "CHUNK_ROWS", chunk)
        query_BD = normalize(x[:, :8], dim=-1).requires_grad_()
        scale = torch.tensor(9.0, requires_grad=True)
        loss = clip_loss(query_BD, vectors_ND, scale, groups_B)
        loss.backward()
        found.append((loss.detach(), query_BD.grad, scale.grad))
    for whole, chunked in zip(*found, strict=True):
        torch.testing.assert_close(whole, chunked, rtol=1e-5, atol=1e-7)


def test_pairs_that_share_an_image_are_no_negatives_of_each_other() -> None:
    x, vectors_ND = toy_pairs(6)
    query_BD, groups_B = normalize(x[:, :8], dim=-1), torch.tensor([0, 1, 0, 2, 3, 3])
    logits_BB = query_BD @ vectors_ND.T * 5
    for a, b in ((0, 2), (4, 5)):
        logits_BB[a, b] = logits_BB[b, a] = -1e9
    match_B = torch.arange(6)
    by_hand = (cross_entropy(logits_BB, match_B) + cross_entropy(logits_BB.T, match_B)) / 2
    torch.testing.assert_close(clip_loss(query_BD, vectors_ND, torch.tensor(5.0), groups_B), by_hand)
    assert clip_loss(query_BD, vectors_ND, torch.tensor(5.0)) > by_hand


def test_the_cosine_loss_is_one_minus_the_mean_cosine_and_learns_a_toy_problem() -> None:
    query_BD, target_BD = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.8], [0.0, -1.0]])
    assert cosine_loss(query_BD, target_BD).item() == pytest.approx(1 - (0.6 - 1.0) / 2)
    x, vectors_ND = toy_pairs()
    went = train(Learner(toy(), {"x": x}), Frozen(vectors_ND), replace(TOY, loss="cosine"))
    assert went.losses[0] > 0.3 and went.losses[-1] < 0.2
    assert went.logit_scale == pytest.approx(1 / TOY.temperature)  # no temperature was in it


def test_a_temperature_that_is_not_learnt_stays() -> None:
    x, vectors_ND = toy_pairs()
    went = train(Learner(toy(), {"x": x}), Frozen(vectors_ND), replace(TOY, learn_temperature=False))
    assert went.logit_scale == pytest.approx(1 / TOY.temperature) and went.losses[-1] < went.losses[0]


@pytest.mark.parametrize("micro_batch", [4, pytest.param(0, marks=pytest.mark.slow)])
def test_two_workers_move_the_weights_as_one_does_with_the_joint_batch(micro_batch: int, tmp_path: Path) -> None:
    alone = toy_training(micro_batch=micro_batch, optimiser="adamw")
    while alone.epoch < alone.recipe.epochs:
        alone.run_epoch()
    command = [sys.executable, str(HERE / "two_workers.py")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    arguments = ["2", str(tmp_path / "meeting"), str(tmp_path / "state.pt"), str(micro_batch)]
    workers = [subprocess.Popen([*command, str(rank), *arguments], env=environment) for rank in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    shared = torch.load(tmp_path / "state.pt", weights_only=True)
    assert shared["losses"] == pytest.approx(alone.losses, rel=1e-5)
    for name, weight in alone.towers[0].state_dict().items():
        torch.testing.assert_close(shared["towers"][0][name], weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(shared["objective"], dict(alone.state_dict()["objective"]), rtol=1e-5, atol=1e-5)


def test_a_batch_that_workers_cannot_share_is_refused() -> None:
    with pytest.raises(TrainingError, match="a batch of 32 cannot be shared by 3 workers"):
        TOY.share(3)


@pytest.mark.parametrize("changes", [{}, {"optimiser": "adamw"}, {"ema": 0.9}, {"micro_batch": 8}])
def test_a_training_that_was_put_down_goes_on_as_if_nothing_had_happened(changes: dict[str, Any], tmp_path: Path) -> None:
    straight = toy_training(**changes)
    straight.run_epoch()
    torch.save(straight.state_dict(), tmp_path / "state.pt")
    straight.run_epoch()
    again = toy_training(**changes)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    again.run_epoch()
    clock = ("pairs_per_s", "seconds", "cpu_s")
    curves = [[{k: v for k, v in e.items() if k not in clock} for e in t.history] for t in (straight, again)]
    assert curves[0] == curves[1] and len(curves[0]) == 20
    for one, other in zip(straight.results, again.results, strict=True):
        for name, weight in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], weight, rtol=0, atol=0)


def test_a_bad_batch_moves_no_weight_and_names_its_rows() -> None:
    x, vectors_ND = toy_pairs()
    x[5], x[77] = torch.nan, torch.inf
    tower = toy()
    before = {name: weight.clone() for name, weight in tower.state_dict().items()}
    training = Training(Learner(tower, {"x": x}), Frozen(vectors_ND), replace(TOY, batch_size=320))
    with pytest.raises(BadBatchError, match="2 of its 320 pairs") as stopped:
        training.run_epoch()
    assert sorted(stopped.value.rows) == [5, 77]
    for name, weight in tower.state_dict().items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_stops_training_before_the_optimiser_moves() -> None:
    class Explodes(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(context: Any, given: torch.Tensor) -> torch.Tensor:
            return given * math.inf

    class Tower(Toy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Explodes.apply(super().forward(x))

    x, vectors_ND = toy_pairs()
    tower = Tower()
    before = tower.layers[0].weight.clone()
    with pytest.raises(BadBatchError, match="but its gradient"):
        train(Learner(tower, {"x": x}), Frozen(vectors_ND), TOY)
    torch.testing.assert_close(tower.layers[0].weight, before, rtol=0, atol=0)


class Greedy(Toy):
    """Asks the machine's own allocator for more than there is when more than `most` rows come at once."""

    most = 10

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.empty(1 << 60 if len(x) > self.most else 1)
        return super().forward(x)


def test_where_memory_does_not_suffice_fewer_rows_go_at_once_and_the_outcome_is_the_same() -> None:
    x, vectors_ND = toy_pairs()
    outcomes = []
    for build in (Toy, Greedy):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            tower = build()
        outcomes.append(train(Learner(tower, {"x": x}), Frozen(vectors_ND), replace(TOY, epochs=2)))
    assert outcomes[1].losses == pytest.approx(outcomes[0].losses, rel=1e-4)
    assert outcomes[1].notes == [
        "step 1: memory does not suffice; from here on 16 pairs go through a tower at once",
        "step 1: memory does not suffice; from here on 8 pairs go through a tower at once",
    ]


def test_memory_for_not_even_one_row_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Greedy, "most", 0)
    x, vectors_ND = toy_pairs()
    with pytest.raises(TrainingError, match="one pair at a time"):
        train(Learner(Greedy(), {"x": x}), Frozen(vectors_ND), TOY)


def test_a_frozen_tower_that_is_run_again_stays_as_it_is() -> None:
    encoder = build_encoder("demo/depth")
    tower = encoder.tower.train().requires_grad_(True)  # whatever the caller did: batch norms would drift
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    pictures = torch.randint(0, 255, (64, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frozen = Recomputed(tower, {"depth": pictures}, encoder.augment)
    x, _ = toy_pairs(64)
    query = nn.Sequential(nn.Linear(12, 64), nn.GELU(), nn.Linear(64, 128))
    training = Training(Learner(_Named(query), {"x": x}), frozen, Recipe(epochs=2, batch_size=32))
    training.run_epoch()
    assert training.towers == [training.towers[0]] and not any(p.grad is not None for p in tower.parameters())
    for name, value in tower.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


class _Named(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_a_temperature_that_runs_away_stops_at_1() -> None:
    x, vectors_ND = toy_pairs(64)
    wild = replace(TOY, epochs=2, adamw_lr=5.0, optimiser="adamw")
    training = Training(Learner(toy(), {"x": x}), Frozen(vectors_ND.flip(0)), wild)
    training.run_epoch()
    assert 1 - 1e-6 <= training.logit_scale <= 100


def test_a_moving_average_is_what_is_scored_and_saved() -> None:
    training = toy_training(ema=0.9)
    training.run_epoch()
    averaged, last = training.results[0].state_dict(), training.towers[0].state_dict()
    assert all(not torch.equal(averaged[name], last[name]) for name in last)
    assert not training.results[0].training
