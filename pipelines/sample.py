"""A sample of what a run has to do, of bounded size. In: tables of sources, as the plan streams them. Out: counts, and some.

Sources are sorted by size into classes, each of which spans a factor of four and is drawn from uniformly: where a few large
sources are most of the work, a plain sample of the same size has too few of them to tell what they cost.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TRIED = 64  # sources of a modality, about
KEPT_BYTES = 256 * 1024**2  # of the sources kept of one class, whose bytes may have come with the corpus
LEAST_KEPT = 4
UNKNOWN = -1  # the class of sources whose size the corpus does not tell


class SizeClass:
    """The sources of about one size: how many, how many bytes, and a uniform sample of them in random order."""

    def __init__(self, number: int) -> None:
        self.sources = self.bytes = 0
        self.kept: pa.Table | None = None
        self._most = int(np.clip(KEPT_BYTES >> 2 * (number + 1), LEAST_KEPT, TRIED))
        self._keys = np.empty(0)

    def add(self, sources: pa.Table, keys: np.ndarray) -> None:
        """Take some sources, and keep those whose random keys in [0, 1) are among the smallest of all."""
        self.sources += sources.num_rows
        self.bytes += pc.sum(sources["size_bytes"]).as_py() or 0
        bar = self._keys[-1] if len(self._keys) == self._most else 1.0
        low = np.flatnonzero(keys < bar)
        low = low[np.argsort(keys[low])][: self._most]
        if len(low):
            keys = np.concatenate([self._keys, keys[low]])
            rows = sources.take(low)
            rows = rows if self.kept is None else pa.concat_tables([self.kept, rows])
            order = np.argsort(keys)[: self._most]
            self._keys, self.kept = keys[order], rows.take(order)


class Sample:
    """The sources of one modality, counted; of each size class some are kept."""

    def __init__(self, seed: int = 0) -> None:
        self.classes: dict[int, SizeClass] = {}
        self._random = np.random.default_rng(seed)

    def add(self, sources: pa.Table) -> None:
        """Take some sources, a table of plan.TODO_COLUMNS."""
        sizes = pc.fill_null(sources["size_bytes"], 0).to_numpy()
        numbers = np.where(sizes > 0, np.log2(np.maximum(sizes, 1)) // 2, UNKNOWN).astype(int)
        keys = self._random.random(len(numbers))
        for number in np.unique(numbers).tolist():
            chosen = numbers == number
            self.classes.setdefault(number, SizeClass(number)).add(sources.filter(pa.array(chosen)), keys[chosen])

    @property
    def sources(self) -> int:
        """In all."""
        return sum(one.sources for one in self.classes.values())

    @property
    def bytes(self) -> int:
        """In all, of those whose size is known."""
        return sum(one.bytes for one in self.classes.values())

    def mean(self, of_class: Mapping[int, float]) -> float:
        """Over all sources, of something whose mean over the sources of each size class is given."""
        return sum(self.classes[number].sources * mean for number, mean in of_class.items()) / self.sources

    def to_try(self) -> dict[int, pa.Table]:
        """By size class as many as its share of the sources and of the bytes asks for, TRIED in all; but no fewer than two."""
        found = {}
        for number, one in sorted(self.classes.items()):
            assert one.kept is not None, "a class has a source"
            share = (one.sources / self.sources + one.bytes / max(1, self.bytes)) / 2
            found[number] = one.kept.slice(0, max(2, round(TRIED * share)))
        return found
