"""An encoder into the space that tables use, and out again. In: a space, a candidate. Out: a new revision, what goes stale.

Adding an encoder changes neither the space nor any stored vector. Replacing one leaves the space as it is too, but the rows
that the old one has embedded are not comparable with the new one's until they are embedded again: those are stale.
Readers see the former space or the new one; one promotion at a time, by a lease beside `space.json`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from encoders.encoder import Encoder
from encoders.errors import SpaceError
from encoders.space import Space, load_space
from encoders.space_files import add_files, kept_document, publish_document, read_document, revision_of
from pipelines.filters import quoted
from pipelines.lease import Lease
from pipelines.table import check_space, open_table, table_uri

LEASE = "space"  # beside space.json


@dataclass(frozen=True)
class Promoted:
    """What a promotion or a roll back did.

    Attributes:
        space: where.
        revision: of the space now.
        former: the revision to go back to.
        added: modalities that it had not before.
        replaced: modality -> fingerprint of the encoder that made the rows which are stale now.
        removed: modalities that it has no more.
        stale_rows: modality -> rows of the table that are stale now; None if no table was named.
    """

    space: str
    revision: int
    former: int
    added: tuple[str, ...]
    replaced: Mapping[str, str]
    removed: tuple[str, ...]
    stale_rows: Mapping[str, int] | None


def check_joins(candidate: Space, modality: str, target: Space) -> Encoder:
    """The candidate's encoder, if the target may take it.

    Raises:
        SpaceError: it belongs to another space, is the image encoder, or the target is no directory.
    """
    encoder = candidate.encoder(modality)
    if "://" not in target.uri and not target.uri.startswith("/"):
        raise SpaceError(
            f"{target.uri or target.name!r} is no directory that can be added to; make one of it: "
            f"python -m jobs.convert {target.uri or 'SPACE'} --out DIR"
        )
    if target.uri == candidate.uri:
        raise SpaceError(f"{target.uri} is promoted into itself; name the space that tables use")
    if modality == "image":
        raise SpaceError("the image tower is what a space is: another one is another space, and its tables are made anew")
    if candidate.fingerprint != target.fingerprint or candidate.dim != target.dim:
        raise SpaceError(
            f"{modality} of {candidate.name!r} belongs to space {candidate.fingerprint[:8]}, {target.uri} is space "
            f"{target.fingerprint[:8]}: vectors of two spaces do not compare. Bind it anew: bindery bind {modality} --space "
            f"{target.uri}"
        )
    for name, tower in (encoder.card.get("frozen") or {}).items():
        theirs = target.encoders[name].fingerprint if name in target.encoders else "none"
        if theirs != tower:
            raise SpaceError(
                f"{modality} was trained against the {name} tower {tower[:8]}, {target.uri} has {theirs[:8]}: their vectors do "
                f"not compare. Bind it anew: bindery bind {modality} --space {target.uri}"
            )
    return encoder


def promote(
    candidate: Space, modality: str, target: str, proof: Mapping[str, Any], db: str = "", table: str = "media"
) -> Promoted:
    """Add an encoder to a space directory, or replace the one it has, in one step for readers.

    Args:
        candidate: a space that has it.
        modality: which.
        target: the space directory that tables use.
        proof: what says that it is good enough; goes onto its card.
        db, table: whose stale rows are counted; "" for none.

    Raises:
        SpaceError: as `check_joins`.
        OSError: somebody else is promoting there just now.
    """
    root = load_space(target).uri
    check_joins(candidate, modality, load_space(root))  # before anything is written there
    with Lease(root, LEASE, uuid.uuid4().hex) as lease:
        encoder = check_joins(candidate, modality, load_space(root))
        entry = add_files(root, replace(encoder, card={**encoder.card, "proof": dict(proof)}))
        before = read_document(root)
        after = {**before, "former": revision_of(before), "encoders": {**before["encoders"], modality: entry}}
        return _published(lease, root, before, after, db, table)


def roll_back(
    target: str, revision: int | None = None, db: str = "", table: str = "media", *, dry_run: bool = False
) -> Promoted:
    """Make a former revision the space's document again, as a new revision.

    Args:
        target: the space directory.
        revision: which; by default the one that the last promotion replaced, and the one before it the next time.
        db, table: whose stale rows are counted; "" for none.
        dry_run: only say what that would do.

    Raises:
        SpaceError: there is nothing to go back to.
        OSError: somebody else is promoting there just now.
    """
    root = load_space(target).uri
    before = read_document(root)
    after = _former(root, before, revision)  # before anything is written there
    if dry_run:
        return _changes(root, before, after, db, table)
    with Lease(root, LEASE, uuid.uuid4().hex) as lease:
        before = read_document(root)
        return _published(lease, root, before, _former(root, before, revision), db, table)


def _former(root: str, document: Mapping[str, Any], revision: int | None) -> dict[str, Any]:
    wanted = document.get("former") if revision is None else revision
    if wanted is None:
        raise SpaceError(f"{root} is as it was saved first: there is nothing to go back to")
    return kept_document(root, int(wanted))


def _published(lease: Lease, root: str, before: Mapping[str, Any], after: Mapping[str, Any], db: str, table: str) -> Promoted:
    changes = _changes(root, before, after, db, table)  # first: a table of another space ends it here
    lease.check()
    publish_document(root, after)
    return changes


def _changes(root: str, before: Mapping[str, Any], after: Mapping[str, Any], db: str, table: str) -> Promoted:
    """What becomes of a space whose document is replaced; nothing is written."""
    old, new = ({m: e["fingerprint"] for m, e in document["encoders"].items()} for document in (before, after))
    return Promoted(
        space=root,
        revision=revision_of(before) + 1,
        former=revision_of(before),
        added=tuple(sorted(new.keys() - old.keys())),
        replaced={m: old[m] for m in sorted(old.keys() & new.keys()) if old[m] != new[m]},
        removed=tuple(sorted(old.keys() - new.keys())),
        stale_rows=_stale_rows(load_space(root), new, db, table) if db else None,
    )


def _stale_rows(space: Space, encoders: Mapping[str, str], db: str, table: str) -> dict[str, int]:
    """Rows of each modality that another encoder than these of the space has embedded, or that it has none for."""
    uri = table_uri(db, table)
    dataset = open_table(uri)
    if dataset is None:
        return {}
    check_space(dataset, space, uri)
    counts: dict[str, int] = {}
    for modality in sorted({m for batch in dataset.to_batches(columns=["modality"]) for m in batch["modality"].to_pylist()}):
        filter_ = f"modality = {quoted(modality)}"
        if modality in encoders:
            filter_ += f" AND encoder != {quoted(encoders[modality])}"
        if count := dataset.count_rows(filter=filter_):
            counts[modality] = count
    return counts
