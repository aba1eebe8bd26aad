"""What a plan says of time, machines and money, from given costs: arithmetic, without media and without Ray."""

import dataclasses
from typing import Any

import pytest

from pipelines.forecast import CPU, LOADS, PRICES, ROW_S, SHARE, WITHIN_H, Cost, Forecast, Machine

COST = Cost(
    sources=1_000_000,
    bytes=10**11,
    tried=64,
    would_reject={"DecodeError": 1},
    rows=1.0,
    read_s=0.001,
    decode_s=0.01 - ROW_S,
    tower_s=0.03,
    other_s=0.0,
)


START = LOADS * 3.0


def forecast(cost: Cost = COST, **changed: Any) -> Forecast:
    made = Forecast(corpus="c", costs={"image": cost}, cpus=4, gpus=0, device=CPU, plan_s=60.0, load_s=3.0, prices=PRICES)
    return dataclasses.replace(made, **changed)


def test_on_cpus_a_core_decodes_and_embeds_in_turn_and_more_of_them_take_less() -> None:
    assert forecast().work_s == pytest.approx(1_000_000 * 0.04 / (4 * SHARE))
    assert forecast(cpus=64).work_s == pytest.approx(1_000_000 * 0.04 / (64 * SHARE))
    assert forecast().seconds == pytest.approx(60 + START + forecast().work_s)


def test_with_gpus_the_slower_side_is_what_it_takes() -> None:
    assert forecast(gpus=1, device="H").work_s == pytest.approx(30_000), "the tower"
    assert forecast(gpus=4, cpus=1, device="H").work_s == pytest.approx(10_000 / SHARE), "decoding"


def test_a_store_that_is_slower_than_both_is_what_it_takes() -> None:
    slow = dataclasses.replace(COST, read_s=0.1)
    assert forecast(slow).work_s == pytest.approx(1_000_000 * 0.1 / 4)
    assert "reading is the limit" in str(forecast(slow).bottleneck)


def test_modalities_add_up() -> None:
    assert forecast(costs={"image": COST, "audio": COST}).work_s == pytest.approx(2 * forecast().work_s)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "the towers are the limit, busy 100%"),
        ({"gpus": 1, "cpus": 64, "device": "H"}, "the towers are the limit, busy 100%"),
        ({"gpus": 1, "device": CPU}, "plan on a node like those of the run"),
        ({"device": "H"}, "plan on a node like those of the run"),
    ],
)
def test_the_bottleneck_is_said_in_words(changed: dict[str, Any], words: str) -> None:
    made = forecast(**changed)
    assert words in str(made.bottleneck) and words in made.words
    assert made.with_towers != ("plan on a node" in words)


def test_a_decoder_and_a_tower_on_one_core_take_turns_so_that_the_clock_tells_more_for_each() -> None:
    little = dataclasses.replace(COST, tower_s=0.002)
    assert COST.by_clock(0) == pytest.approx({"read": 0.001, "decode": (COST.decode_s + 0.01) / SHARE, "tower": 0.04 / SHARE})
    assert COST.by_clock(1) == pytest.approx({"read": 0.001, "decode": COST.decode_s / SHARE, "tower": 0.03})
    assert "decoding is the limit, towers are busy 33%" in str(forecast(little).bottleneck)


def test_so_many_machines_are_counted_that_a_run_ends_in_time_and_all_of_their_hours_are_paid() -> None:
    much = dataclasses.replace(COST, sources=100_000_000)
    (offer,) = forecast(much, prices=(Machine(name="m", cpus=16, usd_an_hour=0.32),)).offers
    alone_h = 100_000_000 * 0.04 / (16 * SHARE) / 3600
    beside_h = (60 + START) / 3600
    count = offer.machines
    assert count > 1 and alone_h / count <= WITHIN_H < alone_h / (count - 1)
    assert offer.hours == pytest.approx(alone_h / count + beside_h)
    assert offer.usd == pytest.approx(count * offer.hours * 0.32)


def test_a_gpu_is_judged_only_by_what_was_measured_or_what_its_owner_says() -> None:
    gpu = Machine(name="g", cpus=16, gpus=1, usd_an_hour=4.0)
    fast = dataclasses.replace(gpu, tower_speedup=100.0)
    cpu = Machine(name="c", cpus=16, usd_an_hour=0.3)
    unknown, said, on_cpu = forecast(prices=(gpu, fast, cpu)).offers
    assert not unknown.with_towers and unknown.hours == pytest.approx((1e6 * 0.01 / (16 * SHARE) + 60 + START) / 3600)
    assert said.with_towers and said.hours == pytest.approx(unknown.hours), "100 times a core: decoding is what it takes"
    assert on_cpu.with_towers
    like_here, twice, on_cpu = forecast(
        device="H", gpus=1, prices=(gpu, dataclasses.replace(gpu, tower_speedup=2.0), cpu)
    ).offers
    assert like_here.with_towers and like_here.hours > 1.9 * twice.hours and not on_cpu.with_towers


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"cpus": 0}, "cpus 0 of 'm'"), ({"usd_an_hour": -1.0}, "-1.0"), ({"tower_speedup": 0.0}, "tower_speedup 0.0")],
)
def test_a_price_that_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Machine(**{"name": "m", "cpus": 1, "usd_an_hour": 1.0, **wrong})


def test_people_get_a_table_and_the_report_gets_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    made = forecast()
    made.show()
    shown = capsys.readouterr().err
    assert "image" in shown and "1,000,000" in shown and "16 CPUs, 1 GPU" in shown and ">= " in shown
    told = made.to_json()
    assert told["modalities"]["image"]["tower_per_s"] == pytest.approx(33.333, rel=1e-4) and told["seconds"] == pytest.approx(
        made.seconds, rel=1e-4
    )
    assert told["machines"][0]["machine"] == "16 CPUs" and told["modalities"]["image"]["would_reject"] == {"DecodeError": 1}


def test_where_there_is_nothing_to_do_nothing_is_predicted() -> None:
    idle = forecast(costs={})
    assert (idle.work_s, idle.start_s, idle.bottleneck, idle.offers) == (
        0.0,
        0.0,
        None,
        [],
    ) and "nothing to embed" in idle.words
