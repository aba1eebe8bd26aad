"""An encoder into a space that tables use: what stays valid, what goes stale, what is refused, the way back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_media import SAME
from searchable import make_media, make_space, rows_of, write_table

from encoders import Space, SpaceError, load_space
from encoders.encoder import Encoder, build_encoder, seeded_tower
from encoders.space import trained
from pipelines.index import open_index
from pipelines.lease import Lease, LeaseHeldError
from pipelines.promotion import promote, roll_back

PROOF = {"gate": [{"metric": "audio.image.R@1", "passed": True}]}


@pytest.fixture
def production(tmp_path: Path) -> Space:
    return make_space(tmp_path)


@pytest.fixture
def sound(tmp_path: Path) -> list[Path]:
    return [path for modality, path in make_media(tmp_path / "sounds", 1) if modality == "audio"]


def new(modality: str, space: Space, seed: int = 5, **card: Any) -> Encoder:
    """Another encoder, bound to the space's pictures."""
    encoder = build_encoder(f"demo/{modality}")
    card = {"frozen": {"image": space.encoders["image"].fingerprint}, **card}
    return trained(encoder, seeded_tower(encoder, seed), 10.0, card, torch.float32)


def with_encoder(space: Space, encoder: Encoder, folder: Path) -> Space:
    """The space with that encoder, in a directory of its own."""
    return dataclasses.replace(space, encoders={**space.encoders, encoder.modality: encoder}).save(folder)


def table_of(space: Space, folder: Path, count: int = 3) -> str:
    write_table(folder / "db", rows_of(space, make_media(folder / "media", count)))
    return f"{folder}/db"


def test_a_modality_that_is_added_leaves_the_space_and_every_stored_row_valid(production: Space, tmp_path: Path) -> None:
    db = table_of(production, tmp_path)
    before = open_index(db).search("dog", k=12).to_arrow()
    wider = with_encoder(production, new("thermal", production), tmp_path / "wider")
    done = promote(wider, "thermal", production.uri, PROOF, db)
    assert (done.added, done.replaced, done.removed, done.stale_rows) == (("thermal",), {}, (), {})
    now = load_space(production.uri)
    assert now.fingerprint == production.fingerprint and "thermal" in now.modalities
    assert {m: now.encoders[m].fingerprint for m in production.modalities} == {
        m: e.fingerprint for m, e in production.encoders.items()
    }
    assert open_index(db).search("dog", k=12).to_arrow() == before
    assert now.encoders["thermal"].card["proof"] == PROOF
    gone = roll_back(production.uri, db=db)
    assert gone.removed == ("thermal",) and load_space(production.uri).modalities == production.modalities


def test_an_encoder_that_is_replaced_makes_its_own_rows_stale_and_no_others(
    production: Space, sound: list[Path], tmp_path: Path
) -> None:
    db = table_of(production, tmp_path)
    bound = with_encoder(production, new("audio", production), tmp_path / "bound")
    done = promote(bound, "audio", production.uri, PROOF, db)
    assert done.replaced == {"audio": production.encoders["audio"].fingerprint} and done.stale_rows == {"audio": 3}
    np.testing.assert_allclose(load_space(production.uri).embed("audio", sound), bound.embed("audio", sound), rtol=0, atol=SAME)
    assert roll_back(production.uri, db=db).stale_rows == {}


def test_whoever_has_looked_before_a_promotion_goes_on_with_what_was_there(
    production: Space, sound: list[Path], tmp_path: Path
) -> None:
    reader, wanted = load_space(production.uri), production.embed("audio", sound)  # the reader has opened no weights yet
    bound = with_encoder(production, new("audio", production), tmp_path / "bound")
    promote(bound, "audio", production.uri, PROOF)
    np.testing.assert_allclose(reader.embed("audio", sound), wanted, rtol=0, atol=SAME)
    again = load_space(production.uri)
    promote(with_encoder(production, new("audio", production, 6), tmp_path / "third"), "audio", production.uri, PROOF)
    np.testing.assert_allclose(again.embed("audio", sound), bound.embed("audio", sound), rtol=0, atol=SAME)


def test_a_space_that_refers_to_an_encoder_which_was_replaced_since_finds_it_among_what_is_kept(
    production: Space, sound: list[Path], tmp_path: Path
) -> None:
    imu = dataclasses.replace(production, encoders={**production.encoders, "imu": new("imu", production)})
    referring = imu.save(tmp_path / "referring", refer_to=production)
    assert referring.elsewhere["audio"] == production.uri
    wanted = production.embed("audio", sound)
    promote(with_encoder(production, new("audio", production), tmp_path / "bound"), "audio", production.uri, PROOF)
    np.testing.assert_allclose(load_space(referring.uri).embed("audio", sound), wanted, rtol=0, atol=SAME)
    promote(with_encoder(production, new("thermal", production), tmp_path / "wider"), "thermal", production.uri, PROOF)
    thermal = load_space(production.uri)
    again = dataclasses.replace(thermal, encoders={**thermal.encoders, "imu": new("imu", production, 7)})
    later = again.save(tmp_path / "later", refer_to=thermal)
    roll_back(production.uri)
    assert "thermal" not in load_space(production.uri).modalities
    assert load_space(later.uri).encoders["thermal"].fingerprint == thermal.encoders["thermal"].fingerprint


def test_roll_backs_walk_back_one_promotion_at_a_time_and_any_revision_can_be_asked_for(
    production: Space, tmp_path: Path
) -> None:
    prints = [production.encoders["audio"].fingerprint]
    for seed in (5, 6):
        bound = with_encoder(production, new("audio", production, seed), tmp_path / f"bound-{seed}")
        promote(bound, "audio", production.uri, PROOF)
        prints.append(bound.encoders["audio"].fingerprint)

    def now() -> str:
        return load_space(production.uri).encoders["audio"].fingerprint

    assert now() == prints[2]
    roll_back(production.uri)
    assert now() == prints[1]
    roll_back(production.uri)
    assert now() == prints[0]
    with pytest.raises(SpaceError, match="nothing to go back to"):
        roll_back(production.uri)
    assert roll_back(production.uri, 2).revision == 5
    assert now() == prints[2]
    with pytest.raises(SpaceError, match="keeps no revision 9"):
        roll_back(production.uri, 9)


def test_what_belongs_to_another_space_is_refused_and_nothing_is_written(production: Space, tmp_path: Path) -> None:
    document = (Path(production.uri) / "space.json").read_bytes()
    files = sorted(Path(production.uri).rglob("*"))
    elsewhere = make_space(tmp_path / "other", seed=3)
    bound = with_encoder(production, new("audio", production), tmp_path / "bound")
    stray = with_encoder(production, new("audio", production, frozen={"image": "0" * 32}), tmp_path / "stray")
    for candidate, modality, target, message in (
        (with_encoder(elsewhere, new("audio", elsewhere), tmp_path / "e"), "audio", production, "belongs to space"),
        (stray, "audio", production, "was trained against the image tower 00000000"),
        (bound, "image", production, "another one is another space"),
        (bound, "audio", bound, "promoted into itself"),
        (bound, "smell", production, "no encoder for 'smell'"),
    ):
        with pytest.raises(SpaceError, match=message):
            promote(candidate, modality, target.uri, PROOF)
    with pytest.raises(SpaceError, match=r"jobs\.convert demo --out DIR"):
        promote(bound, "audio", "demo", PROOF)
    assert (Path(production.uri) / "space.json").read_bytes() == document
    assert sorted(Path(production.uri).rglob("*")) == files


def test_one_promotion_at_a_time(production: Space, tmp_path: Path) -> None:
    bound = with_encoder(production, new("audio", production), tmp_path / "bound")
    with Lease(production.uri, "space", "somebody"), pytest.raises(LeaseHeldError):
        promote(bound, "audio", production.uri, PROOF)
    assert promote(bound, "audio", production.uri, PROOF).revision == 1


def test_a_promotion_that_dies_half_way_has_changed_nothing_and_the_next_one_goes_through(
    production: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = with_encoder(production, new("audio", production), tmp_path / "bound")
    other = with_encoder(production, new("audio", production, 6), tmp_path / "other")
    from encoders import space_files

    write = space_files.write_document

    def dies(root: str, document: Any, name: str = space_files.DOCUMENT) -> None:
        if name == space_files.DOCUMENT:
            raise KeyboardInterrupt
        write(root, document, name)

    monkeypatch.setattr(space_files, "write_document", dies)
    with pytest.raises(KeyboardInterrupt):
        promote(bound, "audio", production.uri, PROOF)
    monkeypatch.undo()
    assert load_space(production.uri).encoders["audio"].fingerprint == production.encoders["audio"].fingerprint
    assert promote(other, "audio", production.uri, PROOF).revision == 1
    assert load_space(production.uri).encoders["audio"].fingerprint == other.encoders["audio"].fingerprint
    roll_back(production.uri)
    assert load_space(production.uri).encoders["audio"].fingerprint == production.encoders["audio"].fingerprint


def test_a_space_on_s3_is_promoted_into_and_back_and_its_readers_go_on(
    production: Space, sound: list[Path], s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINDERY_CACHE", str(tmp_path / "cache"))
    remote = production.save(f"{s3}/space")
    bound = with_encoder(production, new("audio", production), tmp_path / "bound")
    reader = load_space(remote.uri)
    promote(bound, "audio", remote.uri, PROOF)
    np.testing.assert_allclose(reader.embed("audio", sound), production.embed("audio", sound), rtol=0, atol=SAME)
    np.testing.assert_allclose(load_space(remote.uri).embed("audio", sound), bound.embed("audio", sound), rtol=0, atol=SAME)
    roll_back(remote.uri)
    assert load_space(remote.uri).encoders["audio"].fingerprint == production.encoders["audio"].fingerprint
