"""What there is to do. In: a corpus, what the table and the rejects hold. Out: a stream of work, and counts of all the rest.

Each source of the corpus ends in exactly one place: skipped, duplicate, unchanged, rejected or to be embedded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.space import Space
from pipelines.corpus import Corpus, find_modalities
from pipelines.corpus.modality import extension
from pipelines.identity import recipe, source_id
from pipelines.known import ABSENT, OTHER, SAME, Known, Seen, id_words, state_hash
from pipelines.rejects import Rejected
from pipelines.report import Tally

WHOLE = "whole"  # the segment setting: one item a source
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
    ]
)


@dataclass
class Work:
    """One batch of a plan: what to embed, by modality; what is rejected at once; which rejects are stale."""

    todo: dict[str, pa.Table] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    stale_rejects: list[str] = field(default_factory=list)


class Planner:
    """Compares a corpus with the table, batch by batch, and counts."""

    def __init__(self, corpus: Corpus, space: Space, items: Known, rejects: Known, tally: Tally) -> None:
        self._corpus = corpus
        self._space = space
        self._items = items
        self._rejects = rejects  # their states hash the version alone: a reject is tried again when its bytes change
        self._tally = tally
        self._recipes = {m: recipe(e.fingerprint, WHOLE) for m, e in space.encoders.items()}
        self._seen = Seen()

    def batches(self) -> Iterator[Work]:
        """The plan; the tally is complete when it ends."""
        for batch in self._corpus.batches():
            yield self._plan(batch)
        self._tally.found = self._corpus.found
        self._tally.skipped.update(self._corpus.skipped)

    def _plan(self, batch: pa.Table) -> Work:
        work = Work()
        batch = self._drop_problems(batch, work)
        batch = self._with_modalities(batch, work)
        if batch.num_rows == 0:
            return work
        high, low = id_words(batch["source_id"])
        repeated = self._seen.add(high, low)
        self._tally.duplicate += int(repeated.sum())
        batch, high = batch.filter(pa.array(~repeated)), high[~repeated]
        self._tally.listed += batch.num_rows
        recipes = pa.array([self._recipes[m] for m in batch["modality"].to_pylist()], pa.string())
        stored = self._items.compare(high, state_hash(batch["version"], recipes))
        refused = self._rejects.compare(high, state_hash(batch["version"], ""))
        ids = batch["source_id"]
        work.stale_rejects += self._once_ambiguous(batch.filter(pa.array(stored == SAME)))
        work.stale_rejects += ids.filter(pa.array((stored == SAME) & (refused != ABSENT))).to_pylist()
        self._tally.unchanged += int((stored == SAME).sum())
        self._reject_again(int(((stored != SAME) & (refused == SAME)).sum()))
        fresh = (stored != SAME) & (refused != SAME)
        chosen = pa.array(fresh)
        todo = self._todo(batch.filter(chosen), stored[fresh] == OTHER, refused[fresh] != ABSENT)
        for modality in pc.unique(todo["modality"]).to_pylist():
            work.todo[modality] = todo.filter(pc.equal(todo["modality"], modality))
            counts = self._tally.of(modality)
            counts["planned"] += work.todo[modality].num_rows
            counts["bytes"] += pc.sum(work.todo[modality]["size_bytes"]).as_py() or 0
        return work

    def _once_ambiguous(self, batch: pa.Table) -> list[str]:
        """Rejects from when it was not known what these sources are; the table holds them now."""
        if not len(self._rejects) or not batch.num_rows:
            return []
        nameless = pa.array([source_id(uri, "") for uri in batch["uri"].to_pylist()])
        there = self._rejects.compare(id_words(nameless)[0], np.zeros(len(nameless), np.uint64)) != ABSENT
        return [str(i) for i in nameless.filter(pa.array(there)).to_pylist()]

    def _todo(self, batch: pa.Table, replaces: np.ndarray, was_rejected: np.ndarray) -> pa.Table:
        location = pc.coalesce(batch["container"], batch["read_uri"], batch["uri"])
        columns = {name: batch[name] for name in ("source_id", "uri", "modality", "version", "size_bytes")}
        columns |= {"_location": location, "_offset": batch["offset"], "_media": batch["media"]}
        columns |= {"_replaces": pa.array(replaces), "_was_rejected": pa.array(was_rejected)}
        own = [f for f in batch.schema if f.name not in (*_OUR_COLUMNS, "source_id")]
        table = pa.table(columns).cast(TODO_COLUMNS)
        for column in own:
            table = table.append_column(column, batch[column.name])
        return table

    def _drop_problems(self, batch: pa.Table, work: Work) -> pa.Table:
        """Rows of a manifest that cannot be read as sources become rejects."""
        bad = batch.filter(pc.is_valid(batch["problem"]))
        for row in bad.select(["uri", "modality", "version", "problem"]).to_pylist():
            uri, modality, version = row["uri"] or "", row["modality"] or "", row["version"] or ""
            self._reject(work, Rejected("", uri, modality, version, "list", "UnreadableRow", row["problem"]))
        return batch.filter(pc.is_null(batch["problem"]))

    def _reject(self, work: Work, reject: Rejected) -> None:
        named = Rejected(**{**vars(reject), "source_id": source_id(reject.uri, reject.modality)})
        high, low = id_words(pa.array([named.source_id]))
        if self._seen.add(high, low)[0]:
            self._tally.duplicate += 1
            return
        self._tally.listed += 1
        if self._rejects.compare(high, state_hash(pa.array([reject.version]), ""))[0] == SAME:
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
        guesses = find_modalities(rows) if len(unclear) else []
        for k, guess, row in zip(unclear, guesses, rows.select(["uri", "version"]).to_pylist(), strict=True):
            modalities[k] = guess.modality
            if guess.modality is None and guess.why == "unknown":
                self._tally.skipped[extension(row["uri"])] += 1
            elif guess.modality is None:
                self._reject(work, Rejected("", row["uri"], "", row["version"], "identify", "AmbiguousMedia", guess.detail))
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
        """Modalities that the table or the rejects give for these very bytes, so that they need not be looked at again."""
        found: list[str | None] = [None] * rows.num_rows
        uris: Sequence[str] = rows["uri"].to_pylist()
        for modality, mark in self._recipes.items():
            high, _ = id_words(pa.array([source_id(u, modality) for u in uris]))
            same = self._items.compare(high, state_hash(rows["version"], mark)) == SAME
            same |= self._rejects.compare(high, state_hash(rows["version"], "")) == SAME
            for k in np.flatnonzero(same):
                found[k] = modality
        return found
