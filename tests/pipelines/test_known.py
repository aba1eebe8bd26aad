"""Laws of what planning keeps in memory."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

import pipelines.known
from pipelines.known import ABSENT, OTHER, SAME, Batch, Known, Seen, id_words, state_hash, text_hash


def _ids(count: int) -> list[str]:
    return [hashlib.sha256(str(k).encode()).hexdigest()[:32] for k in range(count)]


def test_id_words_are_the_two_halves_of_the_hex_digits() -> None:
    ids = _ids(100)
    high, low = id_words(pa.array(ids))
    assert [f"{h:016x}{w:016x}" for h, w in zip(high.tolist(), low.tolist(), strict=True)] == ids


def test_known_tells_absent_from_same_from_changed() -> None:
    ids = pa.array(_ids(3))
    states = state_hash(pa.array(["v1", "v1"]), "recipe")
    known = Known([Batch(id_words(ids[:1]), states[:1]), Batch(id_words(ids[1:2]), states[1:])])
    now = state_hash(pa.array(["v1", "v2", "v1"]), "recipe")
    assert known.compare(id_words(ids), now).tolist() == [SAME, OTHER, ABSENT]
    assert known.compare(id_words(ids), state_hash(pa.array(["v1"] * 3), "other recipe")).tolist() == [OTHER, OTHER, ABSENT]
    assert Known([]).compare(id_words(ids), now).tolist() == [ABSENT] * 3


def test_ids_that_begin_alike_are_told_apart_and_both_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = pa.array([f"{high:016x}{low:016x}" for high in (7, 9) for low in range(4)])  # forged: real ones take 2^32 sources
    words, states = id_words(ids), state_hash(pa.array(["v1"] * 8), "recipe")
    for run_ids in (1, 3, 100):
        monkeypatch.setattr(pipelines.known, "RUN_IDS", run_ids)
        known = Known([Batch((words[0][k : k + 1], words[1][k : k + 1]), states[k : k + 1]) for k in (0, 2, 3, 5)])
        assert np.flatnonzero(known.compare(words, states) == SAME).tolist() == [0, 2, 3, 5]
        assert not (known.compare(words, state_hash(pa.array(["v2"] * 8), "recipe")) == SAME).any()


@pytest.mark.parametrize("run_ids", [1, 2, 5, 100])
def test_a_source_with_another_number_of_rows_than_it_should_have_is_never_the_same(
    run_ids: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.known, "RUN_IDS", run_ids)
    rows = {"whole": (1, 1), "all": (3, 3), "short": (2, 3), "long": (4, 3)}  # rows, and how many there should be
    ids = dict(zip(rows, _ids(len(rows)), strict=True))
    table = [(ids[name], due) for name, (count, due) in rows.items() for _ in range(count)]
    table = [table[k] for k in np.random.default_rng(0).permutation(len(table))]
    states = state_hash(pa.array(["v"] * len(table)), "recipe")
    batches = [Batch(id_words(pa.array([i])), states[:1], np.array([due])) for i, due in table]
    verdicts = Known(batches).compare(id_words(pa.array(list(ids.values()))), states[: len(rows)])
    assert dict(zip(rows, verdicts.tolist(), strict=True)) == {"whole": SAME, "all": SAME, "short": OTHER, "long": OTHER}


def test_known_costs_sixteen_bytes_a_source() -> None:
    ids = np.arange(10_000, dtype=np.uint64)
    known = Known([Batch((ids, ids), ids)])
    assert sum(words.nbytes for run in known.runs for words in run) == 16 * len(ids)


def test_known_and_seen_tell_the_same_however_short_their_runs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 4000, 5000).astype(np.uint64)
    states = rng.integers(0, 2, 5000).astype(np.uint64)
    batches = [(ids[k : k + 300], states[k : k + 300]) for k in range(0, 5000, 300)]

    def known() -> Known:
        return Known(Batch((ids, ids), states) for ids, states in batches)

    def told() -> tuple[list[int], list[bool]]:
        seen = Seen()
        repeated = [r for high, low in batches for r in seen.add(high, low).tolist()]
        return known().compare((ids[::-1], ids[::-1]), states[::-1]).tolist(), repeated

    in_one = told()
    monkeypatch.setattr(pipelines.known, "RUN_IDS", 700)
    assert len(known().runs) > 5
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
