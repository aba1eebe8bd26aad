"""Deleted bytes made unreachable, and the proof. In: a table whose deleted rows are committed. Out: one version without them.

Deleting a row only hides it: older versions, the files of its fragment, indices and files of killed runs still hold its bytes.
Here fragments with deleted rows and all indices are written anew, then every other version and file goes. The proof reads back
what is left in the store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.file import LanceFileReader
from lance.optimize import CompactionOptions

from pipelines.byte_search import ByteSearch
from pipelines.compaction import Tidied, compaction_options, rewrite
from pipelines.filters import quoted
from pipelines.storage import filesystem, lance_options
from pipelines.table import VECTOR, open_table
from pipelines.upkeep import remove_orphans

CHUNK_BYTES = 16 * 1024**2
_REBUILT_SCALARS = ("BTREE", "BITMAP", "LABELLIST", "INVERTED", "NGRAM", "ZONEMAP", "BLOOMFILTER")


@dataclass
class Proof:
    """What was read back, and what was found that should not be there.

    Attributes:
        files: files of the tables that were read, byte by byte; `bytes` in all.
        rows: rows in data files whose source id was decoded and compared, hidden ones included.
        strings: ids, URIs and vectors that were searched for in the bytes of every file.
        failures: what speaks against the purge; empty when it is proved.
    """

    files: int = 0
    bytes: int = 0
    rows: int = 0
    strings: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass
class Purged:
    """What a purge did to one table."""

    fragments_rewritten: int = 0
    indices_rebuilt: list[str] = field(default_factory=list)
    indices_dropped: list[str] = field(default_factory=list)
    versions_removed: int = 0
    orphans_removed: int = 0
    tags_dropped: list[str] = field(default_factory=list)


def refuse_pinned(uri: str, drop_tags: bool) -> None:
    """Refuse a table of which a tag or branch keeps older versions.

    Raises:
        ValueError: there is a branch, or a tag and not `drop_tags`.
    """
    dataset: Any = open_table(uri)
    if branches := sorted(dataset.branches.list()):
        raise ValueError(f"{uri} has branches ({', '.join(branches)}), which keep deleted bytes: delete them first")
    if (tags := sorted(dataset.tags.list())) and not drop_tags:
        raise ValueError(f"{uri} has tags ({', '.join(tags)}), which keep deleted bytes: delete them, or give --drop-tags")


def purge(uri: str, memory_mb: int, check: Callable[[], None]) -> Purged:
    """Leave one version of a table, without a byte of the rows deleted from it.

    Args:
        uri: of the table.
        memory_mb: bound for rewriting fragments.
        check: raises when the lease is lost.
    """
    done, tidied = Purged(), Tidied()
    dataset: Any = open_table(uri)
    for tag in sorted(dataset.tags.list()):
        dataset.tags.delete(tag)
        done.tags_dropped.append(tag)
    rewrite(uri, lambda dataset: _deletions_only(dataset, memory_mb), check, tidied)
    done.fragments_rewritten = tidied.fragments_removed
    _rebuild_indices(uri, check, done)
    check()
    done.versions_removed = open_table(uri).cleanup_old_versions(timedelta(0)).old_versions  # type: ignore[union-attr]
    remove_orphans(uri, math.inf, check, tidied)
    done.orphans_removed = tidied.orphans_removed
    return done


def _deletions_only(dataset: Any, memory_mb: int) -> CompactionOptions:
    whole = [f.fragment_id for f in dataset.get_fragments() if f.metadata.deletion_file is None]
    options = compaction_options(dataset, memory_mb)
    return {**options, "materialize_deletions_threshold": 0.0, "excluded_fragment_ids": whole}


def _rebuild_indices(uri: str, check: Callable[[], None], done: Purged) -> None:
    """Train every index on the rows that are left, or drop it: one that is brought up to date keeps what it holds of others."""
    dataset: Any = open_table(uri)
    for index in dataset.describe_indices():
        if index.name.startswith("__"):
            continue
        check()
        _rebuild(open_table(uri), index)
        if _segments(index).isdisjoint(*(_segments(i) for i in open_table(uri).describe_indices() if i.name == index.name)):  # type: ignore[union-attr]
            done.indices_rebuilt.append(index.name)
        else:  # of a kind that Lance keeps as it is, or of a table that is empty now
            open_table(uri).drop_index(index.name)  # type: ignore[union-attr]
            done.indices_dropped.append(index.name)


def _rebuild(dataset: Any, index: Any) -> None:
    kind = index.index_type.upper()
    if kind.startswith("IVF"):
        dataset.optimize.optimize_indices(index_names=[index.name], retrain=True)
    elif kind in _REBUILT_SCALARS:
        statistics = dataset.stats.index_stats(index.name)["indices"][0]
        settings = {k: v for k, v in statistics.get("params", {}).items() if k != "lance_tokenizer"}
        dataset.create_scalar_index(index.field_names[0], kind.replace("LABELLIST", "LABEL_LIST"), index.name, **settings)


def _segments(index: Any) -> set[str]:
    return {str(segment.uuid) for segment in index.segments}


def prove(uri: str, source_ids: pa.Array, strings: Collection[bytes], proof: Proof) -> None:
    """Read back all that is left of a table and add what is found to the proof.

    Args:
        uri: of the table.
        source_ids: purged sources; no row of theirs may be in any data file.
        strings: bytes that no file may hold, unless a row that stays has the same in it.
        proof: is added to.
    """
    dataset: Any = open_table(uri)
    name = uri.rpartition("/")[2]
    files = dataset.all_files().read_all()["path"].to_pylist()
    if (versions := len(dataset.versions())) != 1 or dataset.tags.list() or dataset.branches.list():
        proof.failures.append(f"{name} has {versions} versions, or tags, or branches: something was written meanwhile")
    if any(f.metadata.deletion_file is not None for f in dataset.get_fragments()):
        proof.failures.append(f"{name} has fragments that hide deleted rows")
    for path in files:
        if path.startswith("data/") and path.endswith(".lance"):
            proof.rows += (found := _rows_in(f"{uri}/{path}", source_ids))[0]
            if found[1]:
                proof.failures.append(f"{name}/{path} holds {found[1]} rows of purged sources")
    if uri.startswith("s3://") and filesystem(uri)[0].is_bucket_versioned(uri.split("/")[2]):
        proof.failures.append(f"the bucket of {uri} keeps old versions of its objects: expire them by a lifecycle rule")
    search = ByteSearch(strings)
    fs, root = filesystem(uri)
    for path in files:
        hits = search.found_in(_chunks(fs, f"{root.rstrip('/')}/{path}", proof))
        if hits := _not_of_others(dataset, hits):
            proof.failures.append(f"{name}/{path} holds {len(hits)} of the ids, URIs or vectors")
    proof.files += len(files)
    proof.strings = max(proof.strings, len(strings))


def _rows_in(path: str, source_ids: pa.Array) -> tuple[int, int]:
    """How many rows a data file has, hidden ones included, and how many of them are of these sources."""
    options = lance_options(path) or None
    if "source_id" not in LanceFileReader(path, options).metadata().schema.names:
        return 0, 0
    rows = bad = 0
    for batch in LanceFileReader(path, options, columns=["source_id"]).read_all(batch_size=65_536).to_batches():
        rows += batch.num_rows
        bad += pc.sum(pc.is_in(batch["source_id"], value_set=source_ids)).as_py() or 0
    return rows, bad


def _chunks(fs: Any, path: str, proof: Proof) -> Iterator[bytes]:
    with fs.open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            proof.bytes += len(chunk)
            yield chunk


def _not_of_others(dataset: Any, hits: set[bytes]) -> set[bytes]:
    """Hits less those that a row that stays explains: the same vector, or a longer URI that begins alike."""
    text_columns = [f.name for f in dataset.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    left = set()
    for hit in hits:
        try:
            text = quoted(hit.decode())
        except UnicodeDecodeError:
            left.add(hit)
            continue
        if not dataset.count_rows(filter=" OR ".join(f"contains(`{column}`, {text})" for column in text_columns)):
            left.add(hit)
    if left and VECTOR in dataset.schema.names:
        for batch in dataset.to_batches(columns=[VECTOR]):
            left -= set(vector_bytes(batch[VECTOR]))
    return left


def vector_bytes(vectors: pa.FixedSizeListArray) -> list[bytes]:
    """Each vector as the bytes that a file holds."""
    rows: np.ndarray = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(vectors), -1)
    return [row.tobytes() for row in rows]
