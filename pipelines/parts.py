"""Sources that are embedded in parts. In: blocks of rows as they come. Out: blocks whose sources are all there.

A reader must never see half a video, so a block with a part of one waits for the others. Workers look into the blocks; the
driver holds references and what was seen.

Ray runs a task again whose worker or output was lost, and goes on with the blocks of the second try where those of the first
ended. If the second try comes out otherwise (a read that failed, say), rows are missing or come twice. Every row has an ordinal
in its part, so that `torn` finds such sources, whose next chance is the next run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipelines.known import Seen, id_words


class Arrival(NamedTuple):
    """A source in a block: which of its parts end there, of how many it has in all."""

    source_id: str
    ended: Sequence[int]
    parts: int


class Taken(NamedTuple):
    """A block that the writer has taken.

    Attributes:
        block: the reference to it.
        size_bytes: its size.
        late: sources that were complete before it came; its rows of them come from another try of the same task.
    """

    block: Any
    size_bytes: int
    late: Sequence[str] = ()


def arrivals(block: pa.Table) -> list[Arrival]:
    """The sources that a block has rows of."""
    ended = pc.if_else(block["_last"], block["_part"], pa.scalar(None, pa.int32()))
    rows = pa.table({"source_id": block["source_id"], "ended": ended, "parts": block["_parts"]})
    found = rows.group_by("source_id").aggregate([("ended", "distinct"), ("parts", "max")])
    columns = (found[name].to_pylist() for name in ("source_id", "ended_distinct", "parts_max"))
    return [
        Arrival(source_id, [k for k in ended if k is not None], parts) for source_id, ended, parts in zip(*columns, strict=True)
    ]


def without(rows: pa.Table, source_ids: pa.Array) -> pa.Table:
    """The rows, but for those of some sources."""
    return rows.filter(pc.invert(pc.is_in(rows["source_id"], source_ids))) if len(source_ids) else rows


def torn(rows: pa.Table) -> pa.Array:
    """The sources of which not every row is there once: of each part those up to its last one, in each part one last."""
    lone = pc.and_(rows["_last"], pc.equal(pc.add(rows["_ordinal"], rows["_parts"]), 1))
    if pc.all(lone).as_py() and pc.count_distinct(rows["source_id"]).as_py() == rows.num_rows:
        return pa.array([], pa.string())  # one row each, as in most runs: looked into no further
    none = pa.scalar(None, pa.int32())
    table = pa.table(
        {
            "source_id": rows["source_id"],
            "item_id": rows["item_id"],
            "place": pc.add(pc.multiply(pc.cast(rows["_part"], pa.int64()), 1 << 32), rows["_ordinal"]),
            "due": pc.if_else(rows["_last"], pc.add(pc.cast(rows["_ordinal"], pa.int64()), 1), 0),
            "ended": pc.if_else(rows["_last"], rows["_part"], none),
            "parts": rows["_parts"],
        }
    )
    asked = [("item_id", "count"), ("item_id", "count_distinct"), ("place", "count_distinct"), ("due", "sum")]
    asked += [("ended", "count"), ("ended", "count_distinct"), ("parts", "max")]
    found = table.group_by("source_id").aggregate(asked)
    count = found["item_id_count"]
    same = [pc.equal(count, found[name]) for name in ("item_id_count_distinct", "place_count_distinct", "due_sum")]
    same += [pc.equal(found["parts_max"], found[name]) for name in ("ended_count", "ended_count_distinct")]
    whole = same[0]
    for one in same[1:]:
        whole = pc.and_(whole, one)
    return found["source_id"].filter(pc.invert(whole)).combine_chunks()


@dataclass
class _Group:
    """Blocks that are staged together, as they share sources."""

    blocks: list[Taken]
    shared: set[str]  # sources of more than one block


@dataclass
class Parts:
    """Blocks that wait until each source in them is complete."""

    _looking: dict[Any, Taken] = field(default_factory=dict)  # a worker's answer to come -> block; in order
    _missing: dict[str, set[int]] = field(default_factory=dict)  # parts to come, of sources that are incomplete
    _complete: Seen = field(default_factory=Seen)  # sources, 16 bytes each
    _groups: list[_Group] = field(default_factory=list)

    def look(self, answer: Any, block: Any, size_bytes: int) -> None:
        """Take a block, and the reference to what a worker finds in it."""
        self._looking[answer] = Taken(block, size_bytes)

    def complete(self, wait: bool) -> list[Taken]:
        """Blocks that need wait no more; with `wait`, all that was taken is looked into first."""
        answers = list(self._looking)
        done = ray.wait(answers, num_returns=len(answers), timeout=None if wait else 0)[0] if answers else []
        for answer in answers:  # in the order of the blocks: the end of a source comes after its start
            if answer not in done:
                break
            self._take(self._looking.pop(answer), ray.get(answer))
        complete = [group for group in self._groups if not group.shared & self._missing.keys()]
        self._groups = [group for group in self._groups if group.shared & self._missing.keys()]
        return [block for group in complete for block in group.blocks]

    @property
    def sources(self) -> int:
        """How many are complete."""
        return len(self._complete)

    def rest(self) -> list[Taken]:
        """At the end, the blocks that still wait: a source in them has not all of its parts, and is torn."""
        groups, self._groups = self._groups, []
        self._missing.clear()
        return [block for group in groups for block in group.blocks]

    def _take(self, taken: Taken, found: Sequence[Arrival]) -> None:
        words = id_words(pa.array([one.source_id for one in found], pa.string()))
        come_late = self._complete.holds(*words)
        shared, late = set(), []
        for k, (source_id, ended, parts) in enumerate(found):
            if come_late[k]:
                late.append(source_id)
                continue
            waited_for = self._missing.pop(source_id, None)
            missing = (set(range(parts)) if waited_for is None else waited_for) - set(ended)
            if missing:
                self._missing[source_id] = missing
            if missing or waited_for is not None:
                shared.add(source_id)
        now = np.array([one.source_id not in self._missing for one in found], bool) & ~come_late
        self._complete.add(words[0][now], words[1][now])
        group = _Group([taken._replace(late=late)], shared)
        for other in [g for g in self._groups if g.shared & shared]:
            group = _Group([*other.blocks, *group.blocks], group.shared | other.shared)
            self._groups.remove(other)
        self._groups.append(group)
