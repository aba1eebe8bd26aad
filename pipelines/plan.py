"""What there is to do. In: a corpus, what the table and the rejects hold. Out: a stream of work, and counts of all the rest.

Each source of the corpus ends in exactly one place: skipped, duplicate, unchanged, rejected or to be embedded. Afterwards the
sources that the table has of this corpus, and the corpus has no more, can be asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.media.types import mime_of
from pipelines.corpus import Corpus, find_modalities
from pipelines.corpus.modality import extension
from pipelines.holdings import Holdings
from pipelines.identity import source_id
from pipelines.known import ABSENT, OTHER, SAME, Pair, Seen, id_words, state_hash, text_hash
from pipelines.labels import label_hash
from pipelines.rejects import Rejected
from pipelines.report import Tally

_OUR_COLUMNS = ("uri", "modality", "version", "size_bytes", "media", "container", "offset", "read_uri", "problem")
TODO_COLUMNS = pa.schema(  # a leading underscore marks what travels with a source but is no column of the table
    [
        pa.field("source_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("modality", pa.string()),
        pa.field("version", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("_location", pa.string()),  # where its bytes are: the object, or the shard that holds it
        pa.field("_offset", pa.int64()),
        pa.field("_media", pa.large_binary()),
        pa.field("_replaces", pa.bool_()),  # the table holds older rows of it
        pa.field("_was_rejected", pa.bool_()),  # the rejects table holds a row of it
        pa.field("_part", pa.int32()),  # of the work on a long source
        pa.field("_parts", pa.int32()),
    ]
)


@dataclass
class Work:
    """One batch of a plan: what to embed, by modality; new labels; what is rejected at once; which rejects are stale."""

    todo: dict[str, pa.Table] = field(default_factory=dict)
    relabelled: pa.Table | None = None  # source_id, then the corpus' own columns
    rejected: list[Rejected] = field(default_factory=list)
    stale_rejects: list[str] = field(default_factory=list)


class Planner:
    """Compares a corpus with what is held already, batch by batch, and counts.

    Args:
        corpus: what there should be.
        recipes: how each modality of the space is embedded now.
        holdings: what there is.
        tally: where the counts go.
        seen: what other listings of the same corpus have named before; grows.
    """

    def __init__(
        self, corpus: Corpus, recipes: Mapping[str, str], holdings: Holdings, tally: Tally, seen: Seen | None = None
    ) -> None:
        self._corpus = corpus
        self._recipes = recipes
        self._items = holdings.items
        self._rejects = holdings.rejects
        self._labels = holdings.labels
        self._deleted = holdings.deleted
        self._stored_recipes = holdings.recipes
        self._tally = tally
        self._seen = Seen() if seen is None else seen
        self._met: Counter[str] = Counter()  # remembered sources by modality
        self._problems: list[pa.Table] = []  # rows that are no sources

    def batches(self) -> Iterator[Work]:
        """The plan; the tally is complete when it ends."""
        for batch in self._corpus.batches():
            yield self._plan(batch)
        yield self._reject_problems()
        self._tally.found = self._corpus.found
        self._tally.skipped.update(self._corpus.skipped)

    def _plan(self, batch: pa.Table) -> Work:
        work = Work()
        batch = self._without_problems(batch)
        batch = self._with_modalities(batch, work)
        if batch.num_rows == 0:
            return work
        words = id_words(batch["source_id"])
        repeated = self._seen.add(*words)
        self._tally.duplicate += int(repeated.sum())
        buried = ~repeated & (self._deleted.compare(words, np.zeros(len(repeated), np.uint64)) == SAME)
        if buried.any():
            self._tally.skipped["deleted before"] += int(buried.sum())
        chosen = ~(repeated | buried)
        batch, words = batch.filter(pa.array(chosen)), _chosen(words, chosen)
        self._tally.listed += batch.num_rows
        recipes = pa.array([self._recipes[m] for m in batch["modality"].to_pylist()], pa.string())
        versions = text_hash(batch["version"])
        stored = self._items.compare(words, state_hash(versions, recipes))
        refused = self._rejects.compare(words, state_hash(versions, ""))
        ids = batch["source_id"]
        work.stale_rejects += self._once_ambiguous(batch.filter(pa.array(stored == SAME)))
        work.stale_rejects += ids.filter(pa.array((stored == SAME) & (refused != ABSENT))).to_pylist()
        self._tally.unchanged += int((stored == SAME).sum())
        work.relabelled = self._relabelled(batch, words, stored == SAME)
        self._reject_again(int(((stored != SAME) & (refused == SAME)).sum()))
        fresh = (stored != SAME) & (refused != SAME)
        self._count_reasons(batch.filter(pa.array(fresh)), _chosen(words, fresh), stored[fresh])
        todo = self._todo(batch.filter(pa.array(fresh)), stored[fresh] == OTHER, refused[fresh] != ABSENT)
        for modality in pc.unique(todo["modality"]).to_pylist():
            work.todo[modality] = todo.filter(pc.equal(todo["modality"], modality))
            counts = self._tally.of(modality)
            counts["planned"] += work.todo[modality].num_rows
            counts["bytes"] += pc.sum(work.todo[modality]["size_bytes"]).as_py() or 0
        return work

    def _relabelled(self, batch: pa.Table, words: Pair, unchanged: np.ndarray) -> pa.Table | None:
        """Unchanged sources whose labels in the table are others than the corpus' own columns."""
        own = self._corpus.columns.names
        if not own or not len(self._labels):
            return None
        other = unchanged & (self._labels.compare(words, label_hash(batch, own)) == OTHER)
        return batch.select(["source_id", *own]).filter(pa.array(other)) if other.any() else None

    def _count_reasons(self, batch: pa.Table, words: Pair, stored: np.ndarray) -> None:
        """Why sources are embedded: new, changed bytes, or stale (the bytes are the same, the encoder or the cut is not)."""
        stale, versions = np.zeros(len(stored), bool), text_hash(batch["version"])
        for old in self._stored_recipes:
            stale |= self._items.compare(words, state_hash(versions, old)) == SAME
        counts = {"new": stored == ABSENT, "changed": (stored == OTHER) & ~stale, "stale": (stored == OTHER) & stale}
        self._tally.planned.update({reason: int(chosen.sum()) for reason, chosen in counts.items() if chosen.any()})

    def _once_ambiguous(self, batch: pa.Table) -> list[str]:
        """Rejects from when it was not known what these sources are; the table holds them now."""
        if not len(self._rejects) or not batch.num_rows:
            return []
        nameless = pa.array([source_id(uri, "") for uri in batch["uri"].to_pylist()])
        there = self._rejects.compare(id_words(nameless), np.zeros(len(nameless), np.uint64)) != ABSENT
        return [str(i) for i in nameless.filter(pa.array(there)).to_pylist()]

    def _todo(self, batch: pa.Table, replaces: np.ndarray, was_rejected: np.ndarray) -> pa.Table:
        location = pc.coalesce(batch["container"], batch["read_uri"], batch["uri"])
        columns = {name: batch[name] for name in ("source_id", "uri", "modality", "version", "size_bytes")}
        columns |= {"_location": location, "_offset": batch["offset"], "_media": batch["media"]}
        columns |= {"_replaces": pa.array(replaces), "_was_rejected": pa.array(was_rejected)}
        columns |= {"_part": pa.nulls(batch.num_rows, pa.int32()).fill_null(0)}
        columns |= {"_parts": pa.nulls(batch.num_rows, pa.int32()).fill_null(1)}
        own = [f for f in batch.schema if f.name not in (*_OUR_COLUMNS, "source_id")]
        table = pa.table(columns).cast(TODO_COLUMNS)
        for column in own:
            table = table.append_column(column, batch[column.name])
        return table

    def _without_problems(self, batch: pa.Table) -> pa.Table:
        """Set rows of a manifest aside that cannot be read as sources: a good row that comes later may name the same source."""
        bad = batch.filter(pc.is_valid(batch["problem"]))
        if bad.num_rows:
            self._problems.append(bad.select(["uri", "modality", "version", "problem"]))
        return batch.filter(pc.is_null(batch["problem"]))

    def _reject_problems(self) -> Work:
        """Those that no good row makes up for become rejects."""
        work = Work()
        for bad in self._problems:
            self._tally.unreadable += bad.num_rows
            for row in bad.to_pylist():
                uri, modality, version = row["uri"] or "", row["modality"] or "", row["version"] or ""
                self._reject(work, Rejected("", uri, modality, version, "list", "UnreadableRow", row["problem"]))
        self._problems.clear()
        return work

    def _reject(self, work: Work, reject: Rejected) -> None:
        named = Rejected(**{**vars(reject), "source_id": source_id(reject.uri, reject.modality)})
        words = id_words(pa.array([named.source_id]))
        if self._seen.add(*words)[0]:
            self._tally.duplicate += 1
            return
        self._tally.listed += 1
        if self._rejects.compare(words, state_hash(pa.array([reject.version]), ""))[0] == SAME:
            self._reject_again(1)
        else:
            work.rejected.append(named)

    def _reject_again(self, count: int) -> None:
        self._tally.rejected += count
        self._tally.rejected_before += count

    def _with_modalities(self, batch: pa.Table, work: Work) -> pa.Table:
        """Give every row its modality and source_id; those that stay without one are skipped or rejected."""
        modalities: list[str | None] = batch["modality"].to_pylist()
        unclear = np.flatnonzero([m is None for m in modalities])
        if len(unclear):
            for k, modality in zip(unclear, self._remembered(batch.take(unclear)), strict=True):
                modalities[k] = modality
            unclear = np.flatnonzero([m is None for m in modalities])
        rows = batch.take(unclear)
        guesses = find_modalities(rows, self._corpus.reach) if len(unclear) else []
        for k, guess, row in zip(unclear, guesses, rows.select(["uri", "version"]).to_pylist(), strict=True):
            modalities[k] = guess.modality
            if guess.modality is None and guess.why == "unknown":
                self._tally.skipped[extension(row["uri"])] += 1
            elif guess.modality is None:
                told = f"{guess.detail}; --modality, a folder named like one, or a manifest's column `modality` tells which"
                self._reject(work, Rejected("", row["uri"], "", row["version"], "identify", "AmbiguousMedia", told))
        keep = np.array([m is not None and m in self._recipes for m in modalities], bool)
        for modality in modalities:
            if modality and modality not in self._recipes:
                self._tally.skipped[f"no encoder for {modality}"] += 1
        kept = [m for m, k in zip(modalities, keep, strict=True) if m is not None and k]
        batch = batch.filter(pa.array(keep))
        batch = batch.set_column(batch.schema.get_field_index("modality"), "modality", pa.array(kept, pa.string()))
        ids = [source_id(u, m) for u, m in zip(batch["uri"].to_pylist(), kept, strict=True)]
        return batch.append_column("source_id", pa.array(ids, pa.string()))

    def _remembered(self, rows: pa.Table) -> list[str | None]:
        """Modalities that the table or the rejects give for these very bytes, so that they need not be looked at again.

        The modality that was met most often is tried first, as each costs a hash of every source that is left.
        """
        found: list[str | None] = [None] * rows.num_rows
        uris: Sequence[str] = rows["uri"].to_pylist()
        versions, left = text_hash(rows["version"]), np.arange(rows.num_rows)
        for modality in sorted(self._recipes, key=self._met.__getitem__, reverse=True):
            words = id_words(pa.array([source_id(uris[k], modality) for k in left], pa.string()))
            same = self._items.compare(words, state_hash(versions[left], self._recipes[modality])) == SAME
            same |= self._rejects.compare(words, state_hash(versions[left], "")) == SAME
            if modality == "audio":  # a film's soundtrack is there because it was asked for: the film is still a film
                same &= np.array([not (mime_of(uris[k]) or "").startswith("video/") for k in left], bool)
            for k in left[same]:
                found[k] = modality
            self._met[modality] += int(same.sum())
            left = left[~same]
        return found


def _chosen(words: Pair, chosen: np.ndarray) -> Pair:
    return words[0][chosen], words[1][chosen]


def gone(batches: Iterable[pa.RecordBatch], modalities: Collection[str], listings: Iterable[Seen]) -> Iterator[str]:
    """Of rows with `source_id`, `uri` and `modality`, of a table or its rejects, the sources that no listing has named.

    A source that was listed without its modality being known, or of a modality without an encoder here, is not gone.

    Args:
        batches: the rows; of rejects, a modality may be "".
        modalities: of the space.
        listings: what each corpus of the run has named: a source may lie in two of them.
    """
    listings = list(listings)

    def unnamed(rows: pa.Table, ids: pa.Array | pa.ChunkedArray) -> pa.Table:
        words = id_words(ids)
        return rows.filter(pa.array(~np.logical_or.reduce([seen.holds(*words) for seen in listings])))

    for batch in batches:
        known = pa.array([m in modalities or not m for m in batch["modality"].to_pylist()], pa.bool_())
        rows = pa.table(batch).filter(known)
        if rows.num_rows:
            rows = unnamed(rows, rows["source_id"])
        if rows.num_rows:
            rows = unnamed(rows, pa.array([source_id(uri, "") for uri in rows["uri"].to_pylist()]))
            yield from rows["source_id"].to_pylist()
