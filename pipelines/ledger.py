"""The table as the only record of what is done. In: staged fragments and the sources they replace. Out: fenced, atomic commits.

A commit makes items, and with them the proof that they are done, visible in one step. Every commit is a Lance `Update` that
names the table's oldest fragment as touched: two such commits from the same version conflict in Lance itself, on any store. So
a writer that was paused past its lease cannot commit after another one has (docs/decisions/0002-fenced-commits.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance.fragment import FragmentMetadata

from pipelines.compaction import MEMORY_MB, Tidied, compact
from pipelines.damage import rows_where
from pipelines.lease import Lease, LeaseLostError
from pipelines.storage import lance_options
from pipelines.table import check_columns, create_table, open_table, table_id

ATTEMPTS = 5
IDS_PER_FILTER = 1000
DELETIONS = 16  # at once: each is a small object to be written


class Ledger:
    """The one writer's hand on a table, while it holds the lease."""

    def __init__(self, uri: str, lease: Lease, run_id: str) -> None:
        self.uri = uri
        self._lease = lease
        self._run_id = run_id
        self._sequence = 0
        self.commits = 0
        self.rows_removed = 0  # older rows of replaced sources
        self.dataset: Any | None = open_table(uri)
        if lease.took_over:
            if self.dataset is not None:
                self._fence_off(self.dataset)
            lease.fenced()

    def prepare(self, schema: pa.Schema) -> None:
        """Make the table, or add columns to it that `schema` has and it has not (nullable, filled with null).

        Raises:
            ValueError: a column is there with another type.
        """
        if self.dataset is None:
            self.dataset = create_table(self.uri, schema)
            return
        check_columns(self.dataset, schema, self.uri)
        added = [f for f in schema if f.name not in self.dataset.schema.names]
        if added:
            self._lease.check()
            self.dataset.add_columns(added)
            self.dataset = self._newest()

    def commit(self, fragments: Sequence[FragmentMetadata], replaced: Collection[str]) -> None:
        """Append staged fragments and remove every older row of the `replaced` sources, in one step.

        Args:
            fragments: staged by workers under this table; each is committed here once, or never.
            replaced: source ids whose older rows go.

        Raises:
            LeaseLostError: another writer has taken over, or put another table in the place of this one; nothing was committed.
        """
        self._commit(lambda base: _operation(base, fragments, replaced))

    def fill(self, values: Mapping[int, pa.Table]) -> None:
        """Write values into columns of some rows, in one step; other columns and rows are not rewritten.

        Args:
            values: by fragment, `item_id` and the columns to write; rows that have gone meanwhile are passed over.

        Raises:
            LeaseLostError: as for `commit`.
        """
        self._commit(lambda base: (_filling(base, values), 0))

    def _commit(self, build: Callable[[Any], tuple[Any, int]]) -> None:
        self._sequence += 1
        token = {"bindery.run_id": self._run_id, "bindery.sequence": str(self._sequence)}
        for attempt in range(1, ATTEMPTS + 1):
            self._lease.check()
            base = self.dataset
            assert base is not None, "prepare() comes first"
            self._newest()  # raises if another table stands here now: fragments of this one would damage it
            operation, removed_rows = build(base)
            transaction = lance.Transaction(base.version, operation, transaction_properties=token)
            try:
                self.dataset = lance.LanceDataset.commit(
                    self.uri, transaction, max_retries=0, storage_options=lance_options(self.uri)
                )
                break
            except (
                OSError,
                ValueError,
            ) as error:  # a conflict, or an answer that was lost on its way: look before trying again
                newest = self._newest()
                self._lease.check()  # raises if another took over, who may have cleared the versions that are looked through
                if _holds(newest, base.version, token):
                    self.dataset = newest
                    break
                if attempt == ATTEMPTS:
                    raise OSError(f"cannot commit to {self.uri} after {ATTEMPTS} attempts: {error}") from error
                self.dataset = newest
                time.sleep(0.2 * 2**attempt)
        self.commits += 1
        self.rows_removed += removed_rows

    def check_lease(self) -> None:
        """Before anything beside the table is written.

        Raises:
            LeaseLostError: another writer has taken over.
        """
        self._lease.check()

    def lease_left_s(self) -> float:
        """How long the lease still holds, seconds, were it not renewed again; 0 when it is lost."""
        return self._lease.left_s()

    def store_time(self) -> float:
        """What the store's clock says now, seconds since 1970."""
        return self._lease.store_time()

    def refresh(self) -> None:
        """Look at the newest version, after something else than `commit` has written."""
        self.dataset = self._newest()

    def rows(self) -> int:
        """How many rows the table has now."""
        return self.dataset.count_rows() if self.dataset is not None else 0

    def compact(self, least: int, small_rows: int) -> None:
        """Merge small fragments if there are at least so many of them."""
        dataset = self._newest()
        if sum(f.metadata.num_rows < small_rows for f in dataset.get_fragments()) >= least:
            self._lease.check()
            compact(self.uri, MEMORY_MB, self._lease.check, Tidied())
            self.refresh()

    def _fence_off(self, base: Any) -> None:
        """Commit nothing, so that a commit the dead or paused holder still has in hand conflicts with it.

        Every fragment is named as touched: a paused compaction need not touch the oldest one.
        """
        if base.get_fragments():
            self._commit(lambda base: _operation(base, [], [], touch_all=True))
            return
        empty = lance.LanceOperation.Overwrite(base.schema, [])  # conflicts with every append from before it
        self.dataset = lance.LanceDataset.commit(
            self.uri, empty, read_version=base.version, max_retries=0, storage_options=lance_options(self.uri)
        )

    def _newest(self) -> Any:
        dataset = open_table(self.uri)
        if dataset is None:
            raise LeaseLostError(f"{self.uri} was dropped by someone else during the run; run the same command again")
        if self.dataset is not None and _another(dataset, self.dataset):
            raise LeaseLostError(
                f"{self.uri} was dropped or overwritten by someone else during the run; another table stands there now, which "
                "was left as it is. See to it that only Bindery writes there, then run the same command again"
            )
        return dataset


def _operation(
    base: Any, fragments: Sequence[FragmentMetadata], replaced: Collection[str], touch_all: bool = False
) -> tuple[Any, int]:
    """The Lance operation of one commit, and how many older rows it removes."""
    current = base.get_fragments()
    if not current:  # an empty table: a writer that takes over one overwrites it, which a stale append cannot follow
        return lance.LanceOperation.Append(list(fragments)), 0
    updated: dict[int, FragmentMetadata] = {}
    removed: list[int] = []
    removed_rows = 0
    rows = _rows_of(base, sorted(set(replaced)))

    def without_dead(fragment_id: int) -> FragmentMetadata | None:
        dead = ", ".join(map(str, rows[fragment_id]))
        rest: FragmentMetadata | None = base.get_fragment(fragment_id).delete(f"_rowaddr IN ({dead})")
        return rest

    with ThreadPoolExecutor(DELETIONS) as pool:
        rests = list(pool.map(without_dead, rows))
    for fragment_id, rest in zip(rows, rests, strict=True):
        removed_rows += len(rows[fragment_id])
        if rest is None:
            removed.append(fragment_id)
        else:
            updated[fragment_id] = rest
    for fragment in current if touch_all else [min(current, key=lambda fragment: fragment.fragment_id)]:
        if fragment.fragment_id not in removed:
            updated.setdefault(fragment.fragment_id, fragment.metadata)
    update = lance.LanceOperation.Update(
        removed_fragment_ids=removed,
        updated_fragments=list(updated.values()),
        new_fragments=list(fragments),
        # Every field: else Lance, with stable row ids, takes the new rows for moved ones that each index holds already, and an
        # indexed search or filter would never find them.
        fields_for_preserving_frag_bitmap=list(range(base.max_field_id + 1)),
        update_mode="rewrite_rows",
    )
    return update, removed_rows


def _filling(base: Any, values: Mapping[int, pa.Table]) -> Any:
    """The Lance operation that writes columns of some fragments; what was compacted away meanwhile is left to the next run."""
    current = {fragment.fragment_id: fragment for fragment in base.get_fragments()}
    updated, fields = {min(current): current[min(current)].metadata}, set()
    for fragment_id, rows in values.items():
        if fragment_id in current:
            updated[fragment_id], modified = current[fragment_id].update_columns(rows, left_on="item_id")
            fields.update(modified)
    return lance.LanceOperation.Update(
        updated_fragments=list(updated.values()), fields_modified=sorted(fields), update_mode="rewrite_columns"
    )


def _another(dataset: Any, expected: Any) -> bool:
    """Whether this is not a later version of the expected table, but one that was put in its place."""
    return table_id(dataset) != table_id(expected) or dataset.version < expected.version


def _holds(newest: Any, since: int, token: dict[str, str]) -> bool:
    """Whether one of the versions after `since` carries the token of a commit."""
    for version in range(since + 1, newest.version + 1):
        try:
            transaction = newest.read_transaction(version)
        except TypeError:  # pylance 14 cannot read back a compaction that moved an index: never one of ours
            continue
        if transaction is not None and token.items() <= transaction.transaction_properties.items():
            return True
    return False


def _rows_of(dataset: Any, source_ids: Sequence[str]) -> dict[int, list[int]]:
    """Where the rows of sources lie: fragment id -> the addresses of these rows in it."""
    found: dict[int, list[int]] = {}
    for addresses in _addresses(dataset, source_ids):
        for address in addresses.to_pylist():
            found.setdefault(address >> 32, []).append(address)
    return found


def _addresses(dataset: Any, source_ids: Sequence[str]) -> Iterator[pa.Array]:
    """A few sources are looked up, through an index if there is one; for many the column is read once."""
    if not source_ids:
        return
    if len(source_ids) <= IDS_PER_FILTER:
        yield from rows_where(dataset, any_of(source_ids), columns=[], with_row_address=True)["_rowaddr"].chunks
        return
    wanted = pa.array(source_ids, pa.string())
    for batch in dataset.to_batches(columns=["source_id"], with_row_address=True):
        yield batch["_rowaddr"].filter(pc.is_in(batch["source_id"], value_set=wanted))


def in_slices(source_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Ids in portions that one filter can hold."""
    for start in range(0, len(source_ids), IDS_PER_FILTER):
        yield source_ids[start : start + IDS_PER_FILTER]


def any_of(source_ids: Sequence[str]) -> str:
    """The SQL filter that chooses rows of these sources."""
    return "source_id IN (" + ", ".join(f"'{i}'" for i in source_ids) + ")"  # hex digits only: nothing to escape
