"""What a training job owes: what is refused before it, what is scored, noted, drawn and promoted after it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from encoders import Space, load_space
from encoders.encoder import build_encoder, seeded_tower
from encoders.space import trained
from jobs.config import DONE, GATE_FAILED
from jobs.proof import CURVE_POINTS, Proof, ProofSettings, thinned
from pipelines.demo_world import grid, write_corpus

HISTORY: list[dict[str, Any]] = [
    {
        "step": k,
        "epoch": k / 9,
        "loss": 5 - k / 10,
        "lr": 0.02,
        "temperature": 0.05,
        **({"recall": k / 30} if k % 9 == 0 else {}),
    }
    for k in range(1, 28)
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pairs")
    write_corpus(str(folder), grid(1)[::7], ["image", "imu"])
    return f"{folder}/pairs.parquet"


def bound(folder: Path) -> tuple[Space, Space]:
    """The space that tables use, with another motion encoder than the demo's, and a new space with the demo's."""
    demo = load_space("demo")
    encoder = build_encoder("demo/imu")
    card = {"frozen": {"image": demo.encoders["image"].fingerprint}}
    worse = trained(encoder, seeded_tower(encoder, 1), 10.0, card, torch.float32)
    production = dataclasses.replace(demo, encoders={**demo.encoders, "imu": worse}).save(folder / "production", torch.float16)
    return production, demo.save(folder / "new", torch.float16)


def proof_of(production: Space, pairs: str, *minimums: str, promote: str = "", **settings: Any) -> Proof:
    return Proof.of(build_encoder("demo/imu"), production, pairs, 12, minimums, promote, ProofSettings(**settings))


@pytest.mark.slow
def test_what_was_trained_is_scored_on_held_out_rows_noted_on_its_card_and_promoted(
    pairs: str, tmp_path: Path, ray_local: None
) -> None:
    production, new = bound(tmp_path)
    proof = proof_of(
        production, pairs, "imu.image.R@10=0.9", "imu.thing.accuracy=0.8", promote=production.uri, labels=["thing"]
    )
    rows = list(range(0, 20, 2))
    verdict = proof.judge(new, rows, HISTORY)
    assert verdict.exit_code == DONE and verdict.values["things"] == len(rows)
    assert verdict.values["promoted"]["replaced"] == {"imu": production.encoders["imu"].fingerprint}
    card = load_space(new.uri).encoders["imu"].card
    assert card["scores"] == verdict.values["metrics"] and card["held_out"] == {"from": pairs, "things": len(rows)}
    assert card["history"][-1] == {"step": 27, "loss": 2.3, "lr": 0.02, "recall": 0.9}
    assert card["frozen"] == {"image": production.encoders["image"].fingerprint}
    now = load_space(production.uri).encoders["imu"]
    assert now.fingerprint == new.encoders["imu"].fingerprint and now.card["scores"] == card["scores"]
    page = (tmp_path / "new" / "report" / "report.html").read_text()
    assert "How imu learnt" in page and "passed" in page
    assert (tmp_path / "new" / "report" / "learning_curve_imu.png").read_bytes().startswith(b"\x89PNG")
    failed = proof_of(load_space(production.uri), pairs, "imu.text.R@1=1", promote=production.uri)
    again = failed.judge(new, rows, HISTORY)
    assert again.exit_code == GATE_FAILED and "promoted" not in again.values


def test_where_nothing_is_held_out_the_curve_is_kept_and_nothing_is_scored(pairs: str, tmp_path: Path) -> None:
    production, new = bound(tmp_path)
    told = proof_of(production, pairs).judge(new, [3], HISTORY)
    assert told.values == {} and told.exit_code == DONE
    asked = proof_of(production, pairs, "imu.image.R@1=0.5").judge(new, [3], HISTORY)  # all but one were damaged
    assert asked.values == {} and asked.exit_code == GATE_FAILED
    assert len(load_space(new.uri).encoders["imu"].card["history"]) == len(HISTORY)
    assert not (tmp_path / "new" / "report").exists()


def test_what_cannot_be_proved_is_refused_before_training(pairs: str, tmp_path: Path) -> None:
    production, _ = bound(tmp_path)
    (tmp_path / "words.json").write_text(json.dumps({"thing": "dog"}))

    def refused(message: str, *minimums: str, held_out: int = 12, promote: str = "", **settings: Any) -> None:
        with pytest.raises(ValueError, match=message):
            Proof.of(build_encoder("demo/imu"), production, pairs, held_out, minimums, promote, ProofSettings(**settings))

    refused("raise --held-out", "imu.image.R@1=0.5", held_out=1)
    refused("names no score", "imu.thing.accuracy=0.5")
    refused("names no score", "imu.audio.R@1=0.5")  # the pairs have no sounds
    refused("needs --min", promote=production.uri)
    refused("jobs.convert demo", "imu.image.R@1=0.5", promote="demo")
    refused("no column 'smell'", labels=["smell"])
    refused("is no prompts", prompts=f"{tmp_path}/words.json")
    refused("no pairs manifest", pairs="nowhere.parquet")


def test_a_long_learning_curve_is_thinned_and_keeps_every_recall() -> None:
    long = [{"step": k, "loss": 1 / 3, **({"recall": 0.5} if k % 1000 == 999 else {})} for k in range(5000)]
    kept = thinned(long)
    assert CURVE_POINTS <= len(kept) <= CURVE_POINTS + 10 and sum("recall" in point for point in kept) == 5
    assert kept[0] == {"step": 0, "loss": 0.33333}
