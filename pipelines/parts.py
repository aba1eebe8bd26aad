"""Sources that are embedded in parts. In: blocks of rows as they come. Out: blocks whose sources are all there.

A reader must never see half a video, so a block with a part of one waits for the others. Workers look into the blocks; the
driver holds references and what was seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray


class Arrival(NamedTuple):
    """A source in a block: how many of its parts end there, of how many it has in all."""

    source_id: str
    ended: int
    parts: int


def arrivals(block: pa.Table) -> list[Arrival]:
    """The sources that a block has rows of."""
    ended = pc.cast(block["_last"], pa.int32())
    rows = pa.table({"source_id": block["source_id"], "ended": ended, "parts": block["_parts"]})
    found = rows.group_by("source_id").aggregate([("ended", "sum"), ("parts", "max")])
    return [Arrival(*row) for row in zip(*(found[n].to_pylist() for n in ("source_id", "ended_sum", "parts_max")), strict=True)]


@dataclass
class _Group:
    """Blocks that are staged together, as they share sources."""

    blocks: list[tuple[Any, int]]  # reference, bytes
    shared: set[str]  # sources of more than one block


@dataclass
class Parts:
    """Blocks that wait until each source in them is complete."""

    _looking: dict[Any, tuple[Any, int]] = field(default_factory=dict)  # a worker's answer to come -> block, size; in order
    _missing: dict[str, int] = field(default_factory=dict)  # parts to come, of sources that are incomplete
    _groups: list[_Group] = field(default_factory=list)

    def look(self, answer: Any, block: Any, size_bytes: int) -> None:
        """Take a block, and the reference to what a worker finds in it."""
        self._looking[answer] = block, size_bytes

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not (self._looking or self._groups)

    def complete(self, wait: bool) -> list[tuple[Any, int]]:
        """Blocks and sizes that need wait no more; with `wait`, all that was taken is looked into first."""
        answers = list(self._looking)
        done = ray.wait(answers, num_returns=len(answers), timeout=None if wait else 0)[0] if answers else []
        for answer in answers:  # in the order of the blocks: the end of a source comes after its start
            if answer not in done:
                break
            self._take(self._looking.pop(answer), ray.get(answer))
        complete = [group for group in self._groups if not group.shared & self._missing.keys()]
        self._groups = [group for group in self._groups if group.shared & self._missing.keys()]
        return [block for group in complete for block in group.blocks]

    def _take(self, block: tuple[Any, int], found: list[Arrival]) -> None:
        shared = {source_id for source_id, ended, parts in found if ended < parts or source_id in self._missing}
        for source_id, ended, parts in found:
            left = self._missing.pop(source_id, parts) - ended
            if left:
                self._missing[source_id] = left
        group = _Group([block], shared)
        for other in [g for g in self._groups if g.shared & shared]:
            group = _Group([*other.blocks, *group.blocks], group.shared | other.shared)
            self._groups.remove(other)
        self._groups.append(group)
