"""Laws of what planning keeps in memory."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

import pipelines.known
from pipelines.known import ABSENT, OTHER, SAME, Known, Seen, id_words, state_hash, text_hash


def _ids(count: int) -> list[str]:
    return [hashlib.sha256(str(k).encode()).hexdigest()[:32] for k in range(count)]


def test_id_words_are_the_two_halves_of_the_hex_digits() -> None:
    ids = _ids(100)
    high, low = id_words(pa.array(ids))
    assert [f"{h:016x}{w:016x}" for h, w in zip(high.tolist(), low.tolist(), strict=True)] == ids


def test_known_tells_absent_from_same_from_changed() -> None:
    high, _ = id_words(pa.array(_ids(3)))
    states = state_hash(pa.array(["v1", "v1"]), "recipe")
    known = Known([(high[:1], states[:1]), (high[1:2], states[1:])])
    now = state_hash(pa.array(["v1", "v2", "v1"]), "recipe")
    assert known.compare(high, now).tolist() == [SAME, OTHER, ABSENT]
    assert known.compare(high, state_hash(pa.array(["v1"] * 3), "other recipe")).tolist() == [OTHER, OTHER, ABSENT]
    assert Known([]).compare(high, now).tolist() == [ABSENT] * 3


def test_known_costs_sixteen_bytes_a_source() -> None:
    ids = np.arange(10_000, dtype=np.uint64)
    known = Known([(ids, ids)])
    assert sum(words.nbytes for run in known.runs for words in run) == 16 * len(ids)


def test_known_and_seen_tell_the_same_however_short_their_runs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 4000, 5000).astype(np.uint64)
    states = rng.integers(0, 2, 5000).astype(np.uint64)
    batches = [(ids[k : k + 300], states[k : k + 300]) for k in range(0, 5000, 300)]

    def told() -> tuple[list[int], list[bool]]:
        seen = Seen()
        repeated = [r for high, low in batches for r in seen.add(high, low).tolist()]
        return Known(batches).compare(ids[::-1], states[::-1]).tolist(), repeated

    in_one = told()
    monkeypatch.setattr(pipelines.known, "RUN_IDS", 700)
    assert len(Known(batches).runs) > 5
    assert told() == in_one


def test_equal_versions_of_different_recipes_are_different_states() -> None:
    versions = pa.array(["v1", "v2"] * 3)
    recipes = pa.array(["a", "a", "b", "b", "", ""])
    states = state_hash(versions, recipes)
    assert len(set(states.tolist())) == 6
    assert state_hash(text_hash(versions), recipes).tolist() == states.tolist()
    assert state_hash(versions, "b").tolist() == [*states[2:4].tolist()] * 3


def test_an_id_of_another_length_is_refused() -> None:
    with pytest.raises(pa.ArrowInvalid, match="widths"):
        id_words(pa.array(["abc"]))


def test_seen_finds_every_repetition_and_no_other_whatever_the_batches() -> None:
    rng = np.random.default_rng(0)
    high = rng.integers(0, 300, 5000).astype(np.uint64)  # many ids share their high half
    low = rng.integers(0, 2, 5000).astype(np.uint64)
    seen = Seen()
    told: list[bool] = []
    for start in range(0, 5000, 137):
        told += seen.add(high[start : start + 137], low[start : start + 137]).tolist()
    before: set[tuple[int, int]] = set()
    expected = []
    for pair in zip(high.tolist(), low.tolist(), strict=True):
        expected.append(pair in before)
        before.add(pair)
    assert told == expected
