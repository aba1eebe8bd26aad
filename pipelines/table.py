"""The table of items: its columns, its metadata, what is fixed at creation. In: a space, a manifest's columns. Out: a schema.

The reference of every column is docs/schema.md.
"""

from __future__ import annotations

import json
import re
import uuid
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.errors import SpaceError
from pipelines.identity import canonical_uri, is_local
from pipelines.storage import filesystem, has_rings, lance_options

if TYPE_CHECKING:
    from encoders.space import Space

SCHEMA_VERSION = 1
VECTOR = "vector"
_TABLE_ID = b"bindery.table_id"
_RINGS = "file+uring://"  # Lance's scheme for files that are read through io_uring
MOST_OPEN = 64  # fragments; a process may have 1,024 files open, and has other tables
_KEY = {b"lance-schema:unenforced-primary-key": b"true"}

ITEM_COLUMNS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False, metadata=_KEY),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("corpus", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),
        pa.field("segment_count", pa.int32(), nullable=False),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("size_bytes", pa.int64()),
        pa.field("mime", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("duration_s", pa.float64()),
        pa.field("text", pa.string()),
        pa.field("truncated", pa.bool_()),
        pa.field("preview", pa.binary()),
    ]
)
_AFTER_VECTOR = (
    pa.field("encoder", pa.string(), nullable=False),
    pa.field("embedded_at", pa.timestamp("us", "UTC"), nullable=False),
    pa.field("run_id", pa.string(), nullable=False),
)
REJECT_COLUMNS = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("corpus", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error_type", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("rejected_at", pa.timestamp("us", "UTC"), nullable=False),
    ]
)
QUERY_INDEX = "query_index"  # Lance's, of a batch of queries
SEARCH_COLUMNS = ("similarity", "score", QUERY_INDEX)  # what a search adds to its hits
RESERVED_COLUMNS = frozenset([*ITEM_COLUMNS.names, VECTOR, *(f.name for f in _AFTER_VECTOR)])


def table_uri(db: str, table: str) -> str:
    """Where LanceDB keeps a table of this name."""
    return f"{db.rstrip('/')}/{table}.lance"


def item_schema(space: Space, own_columns: pa.Schema) -> pa.Schema:
    """The table's schema: our columns, the vector, then the manifest's own (nullable), with the space in its metadata."""
    vector = pa.field(VECTOR, pa.list_(pa.float32(), space.dim), nullable=False)
    own = [field.with_nullable(True).remove_metadata() for field in own_columns]
    return pa.schema([*ITEM_COLUMNS, vector, *_AFTER_VECTOR, *own], metadata=_metadata(space))


def _metadata(space: Space) -> dict[str, str]:
    function = {"name": "bindery", "model": {"space": space.uri}, "source_column": "text", "vector_column": VECTOR}
    return {
        "bindery.space": space.name,
        "bindery.space_uri": space.uri,
        "bindery.space_fingerprint": space.fingerprint,
        "bindery.dim": str(space.dim),
        "bindery.metric": "cosine",
        "bindery.schema_version": str(SCHEMA_VERSION),
        "embedding_functions": json.dumps([function]),  # makes plain lancedb's table.search("words") work
    }


def vectors_of(rows: pa.Table | pa.RecordBatch) -> np.ndarray:
    """The vector column as float32 (N, D)."""
    column = rows[VECTOR]
    flat = np.asarray(pc.list_flatten(column), np.float32)
    return flat.reshape(len(column), column.type.list_size)


def open_table(uri: str) -> Any | None:
    """The newest version of a Lance dataset, or None where there is none.

    Raises:
        ValueError: a file lies in its place.
        OSError: it cannot be read.
    """
    try:
        return lance.dataset(uri, storage_options=lance_options(uri))
    except ValueError as error:  # lance says all it has to say by ValueErrors
        if "not found" in str(error).lower():
            return None
        if "not a directory" in str(error).lower():
            raise ValueError(f"{uri} cannot be a table: a file lies where a folder should be; choose another --db") from error
        why = re.sub(r", \S+\.rs:\d+:\d+", "", str(error))  # where in Lance's source
        raise OSError(
            f"cannot open table {uri}: check AWS_* or GOOGLE_* in the environment and who may read it ({why})"
        ) from error


def existing_table(db: str, table: str) -> Any:
    """The newest version of a table.

    Raises:
        ValueError: there is none, or a file lies in its place; it says which there are.
        OSError: it cannot be read.
    """
    dataset = open_table(table_uri(db, table))
    if dataset is None:
        there = f", which has {', '.join(names)}" if (names := _tables(db)) else ", nor any other"
        raise ValueError(
            f"there is no table {table!r} in {db}{there}; `bindery embed CORPUS --db {db} --table {table}` makes it"
        )
    return dataset


def _tables(db: str) -> list[str]:
    """The names of the tables of a database, as far as they can be listed; not those that belong to others."""
    store, folder = filesystem(db)
    with suppress(OSError):
        names = [PurePosixPath(path).name for path in store.ls(folder, detail=False)]
        return sorted(name.removesuffix(".lance") for name in names if name.endswith(".lance") and "__" not in name)
    return []


def through_rings(dataset: Any) -> Any:
    """The same version of a table, read through io_uring: a single row comes in half the time. Else the dataset itself.

    Lance keeps a file that it reads so open for a minute, under its name. Hence not where files are many, and never to learn
    which version is newest: names of versions come again when a table is made anew.
    """
    path = canonical_uri(uri_of(dataset))
    if not is_local(path) or not has_rings() or len(dataset.get_fragments()) > MOST_OPEN:
        return dataset
    with suppress(OSError, ValueError, RuntimeError):  # the kernel grants fewer than Lance asks for; another table is there now
        rings: Any = lance.dataset(_RINGS + quote(path), version=dataset.version, session=dataset.session())
        some = rings.head(1, columns=["modality"])
        if table_id(rings) == table_id(dataset) and len(some) == min(1, dataset.count_rows()):
            return rings
    return dataset


def uri_of(dataset: Any) -> str:
    """Where a dataset lies, as people write it."""
    uri = str(dataset.uri)
    return unquote(uri.removeprefix(_RINGS)) if uri.startswith(_RINGS) else uri


def create_table(uri: str, schema: pa.Schema) -> Any:
    """A new, empty dataset with the options that are fixed at creation.

    Raises:
        OSError: another writer has created it meanwhile.
    """
    named = schema.with_metadata({**(schema.metadata or {}), _TABLE_ID: uuid.uuid4().hex.encode()})
    return lance.write_dataset(
        named.empty_table(),
        uri,
        mode="create",
        storage_options=lance_options(uri),
        data_storage_version="2.2",
        enable_stable_row_ids=True,
        enable_v2_manifest_paths=True,
    )


def table_id(dataset: Any) -> bytes:
    """What tells a table from another one that was made under its name later; b"" for one that is not ours."""
    return bytes((dataset.schema.metadata or {}).get(_TABLE_ID, b""))


def check_columns(dataset: Any, schema: pa.Schema, uri: str) -> None:
    """Refuse columns that the table has with another type.

    Raises:
        ValueError: by the column's name.
    """
    present = {field.name: field.type for field in dataset.schema}
    for field in schema:
        if present.get(field.name, field.type) != field.type:
            raise ValueError(
                f"column {field.name!r} is {present[field.name]} in {uri} but {field.type} in this corpus; cast it in the "
                "manifest, or give it another name"
            )


def check_space(dataset: Any, space: Space, uri: str) -> None:
    """Refuse a table of another space, or one that is not ours.

    Raises:
        SpaceError: vectors of two spaces are never mixed.
    """
    metadata = {k.decode(): v.decode() for k, v in (dataset.schema.metadata or {}).items()}
    theirs = metadata.get("bindery.space_fingerprint")
    if theirs is None:
        raise SpaceError(f"{uri} is a Lance table, but not one of Bindery's (no bindery.* metadata): choose another --table")
    if metadata.get("bindery.schema_version") != str(SCHEMA_VERSION):
        raise SpaceError(
            f"{uri} has schema version {metadata.get('bindery.schema_version')}, this program writes {SCHEMA_VERSION}: upgrade "
            "bindery, or choose another --table"
        )
    if theirs != space.fingerprint:
        raise SpaceError(
            f"{uri} holds vectors of space {metadata.get('bindery.space')!r} (fingerprint {theirs[:8]}), not of {space.name!r} "
            f"({space.fingerprint[:8]}); vectors of two spaces cannot share a table: choose another --table or --space"
        )
