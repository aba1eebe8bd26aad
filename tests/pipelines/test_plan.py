"""Every source of a corpus ends in exactly one place, and nothing is read that need not be."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import pipelines.plan
from encoders import load_space
from pipelines.corpus import Corpus, open_corpus
from pipelines.holdings import Holdings
from pipelines.identity import recipe, source_id
from pipelines.known import Batch, Known, Seen, id_words, state_hash
from pipelines.plan import Planner, Work, gone
from pipelines.report import Tally

SPACE = load_space("demo")
JPEG = b"\xff\xd8\xff\xe0" + bytes(40)
NOTHING = Known([])
RECIPES = {m: recipe(e.fingerprint, "whole") for m, e in SPACE.encoders.items()}


def _held(rows: list[tuple[str, str, str]]) -> Batch:
    """Sources given as (uri, modality, version), by the recipe in use, as a table holds them."""
    ids = pa.array([source_id(u, m) for u, m, _ in rows])
    recipes = pa.array([RECIPES[m] for _, m, _ in rows])
    return Batch(id_words(ids), state_hash(pa.array([v for _, _, v in rows]), recipes))


def _stored(rows: list[tuple[str, str, str]]) -> Known:
    return Known([_held(rows)])


def _refused(rows: list[tuple[str, str, str]]) -> Known:
    ids = pa.array([source_id(u, m) for u, m, _ in rows])
    return Known([Batch(id_words(ids), state_hash(pa.array([v for _, _, v in rows]), ""))])


def _plan(corpus: Corpus, items: Known = NOTHING, rejects: Known = NOTHING) -> tuple[list[Work], Tally]:
    tally = Tally()
    work = list(Planner(corpus, RECIPES, Holdings(items=items, rejects=rejects), tally).batches())
    planned = sum(t.num_rows for w in work for t in w.todo.values())
    assert tally.found == tally.listed + tally.skipped.total() + tally.duplicate
    new_rejects = sum(len(w.rejected) for w in work)
    assert tally.listed == tally.unchanged + planned + tally.rejected + new_rejects
    return work, tally


def _versions(corpus: Corpus) -> dict[str, str]:
    return {u: v for b in corpus.batches() for u, v in zip(b["uri"].to_pylist(), b["version"].to_pylist(), strict=True)}


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).write_bytes(JPEG)  # no extension: only their bytes tell
    return tmp_path


def test_sources_the_table_holds_are_unchanged_and_their_bytes_are_not_looked_at(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = _versions(open_corpus(str(media)))
    looked: list[int] = []
    real = pipelines.plan.find_modalities
    monkeypatch.setattr(
        pipelines.plan, "find_modalities", lambda batch, reach: looked.append(batch.num_rows) or real(batch, reach)
    )
    items = _stored([(u, "image", v) for u, v in list(versions.items())[:3]])
    work, tally = _plan(open_corpus(str(media)), items)
    assert (tally.unchanged, looked) == (3, [1])
    assert work[0].todo["image"]["uri"].to_pylist() == [str(media / "d")]
    assert work[0].todo["image"]["_replaces"].to_pylist() == [False]


def test_changed_bytes_and_another_recipe_are_work_that_replaces(media: Path) -> None:
    versions = _versions(open_corpus(str(media)))
    a, b, c, d = versions
    stale = Batch(id_words(pa.array([source_id(b, "image")])), state_hash(pa.array([versions[b]]), "old recipe"))
    held = _held([(a, "image", "old version"), (c, "image", versions[c])])
    work, tally = _plan(open_corpus(str(media)), Known([held, stale]))
    todo = work[0].todo["image"]
    assert dict(zip(todo["uri"].to_pylist(), todo["_replaces"].to_pylist(), strict=True)) == {a: True, b: True, d: False}
    assert tally.unchanged == 1


def test_a_reject_waits_until_its_bytes_change_and_a_stale_one_is_cleared(media: Path) -> None:
    versions = _versions(open_corpus(str(media)))
    a, b, c, d = versions
    items = _stored([(c, "image", versions[c])])
    rejects = _refused([(a, "image", versions[a]), (b, "image", "old"), (c, "image", versions[c])])
    work, tally = _plan(open_corpus(str(media)), items, rejects)
    todo = work[0].todo["image"]
    assert dict(zip(todo["uri"].to_pylist(), todo["_was_rejected"].to_pylist(), strict=True)) == {b: True, d: False}
    assert (tally.rejected_before, tally.unchanged) == (1, 1)
    assert work[0].stale_rejects == [source_id(c, "image")]


def test_ambiguous_media_are_rejected_and_unknown_ones_skipped_by_extension(tmp_path: Path) -> None:
    (tmp_path / "grid.csv").write_text("1,2\n3,4\n")
    (tmp_path / "blob.xyz").write_bytes(bytes(range(60)))
    (tmp_path / "song.mp3").write_bytes(b"ID3\x04" + bytes(60))
    work, tally = _plan(open_corpus(str(tmp_path)))
    assert [(r.uri, r.stage, r.error_type) for w in work for r in w.rejected] == [
        (str(tmp_path / "grid.csv"), "identify", "AmbiguousMedia")
    ]
    assert tally.skipped == Counter({".xyz": 1})
    assert list(work[0].todo) == ["audio"]


def test_a_million_known_sources_are_compared_without_their_names() -> None:
    rng = np.random.default_rng(0)
    ids, states = rng.integers(0, 2**63, 1_000_000).astype(np.uint64), rng.integers(0, 2**63, 1_000_000).astype(np.uint64)
    known = Known([Batch((ids, ids), states)])
    assert known.compare((ids[:1000], ids[:1000]), states[:1000]).tolist() == [1] * 1000
    assert sum(words.nbytes for run in known.runs for words in run) == 16 * len(np.unique(ids))


def test_what_any_corpus_of_the_run_has_named_is_not_gone() -> None:
    uris = ["m/a", "m/b", "m/c", "m/d", "m/e"]
    modalities = ["image", "image", "image", "image", "smell"]
    ids = [source_id(uri, modality) for uri, modality in zip(uris, modalities, strict=True)]
    batch = pa.RecordBatch.from_pydict({"source_id": ids, "uri": uris, "modality": modalities})
    one, other = Seen(), Seen()
    one.add(*id_words(pa.array([ids[0]])))
    other.add(*id_words(pa.array([ids[1], source_id("m/c", "")])))
    assert list(gone([batch], {"image"}, {"one": one, "other": other}.values())) == [ids[3]]


def test_a_film_whose_soundtrack_the_table_holds_is_still_a_film(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"\x00\x00\x00\x20ftypisom" + bytes(40))
    uri, version = next(iter(_versions(open_corpus(str(tmp_path))).items()))
    for held in ([(uri, "audio", version)], [(uri, "audio", version), (uri, "video", version)]):
        work, tally = _plan(open_corpus(str(tmp_path)), _stored(held))
        assert [m for w in work for m in w.todo] == (["video"] if len(held) == 1 else [])
        assert tally.unchanged == len(held) - 1


@pytest.mark.parametrize("bad_first", [True, False])
def test_a_good_row_wins_over_a_bad_one_of_the_same_source_whichever_comes_first(tmp_path: Path, bad_first: bool) -> None:
    bad = {"uri": "a.jpg", "modality": "image", "version": "1", "size": -1}
    good = {**bad, "size": 5}
    other = {**bad, "uri": "b.jpg"}
    lines = [bad, good, other, other] if bad_first else [good, bad, other, other]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    work, tally = _plan(open_corpus(str(tmp_path / "list.jsonl")))
    assert [u for w in work for t in w.todo.values() for u in t["uri"].to_pylist()] == [str(tmp_path / "a.jpg")]
    assert [r.uri for w in work for r in w.rejected] == [str(tmp_path / "b.jpg")]
    assert (tally.found, tally.listed, tally.duplicate, tally.unreadable) == (4, 2, 2, 3)
