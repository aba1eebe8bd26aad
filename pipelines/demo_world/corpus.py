"""A corpus of scenes, written. In: scenes, modalities, a folder or URI. Out: files, `pairs.parquet`, `manifest.parquet`.

The manifest comes last: where it is, the corpus is complete. Files are made in parallel processes and are the same whichever
process makes them; what is in memory at a time is a few blocks of scenes.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.demo_world.files import MODALITIES, scene_files
from pipelines.demo_world.scene import Scene, caption
from pipelines.storage import filesystem

BLOCK_SCENES = 24
BLOCKS_AHEAD = 3  # per process
ROW_GROUP_SCENES = 8192
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MANIFEST, PAIRS = "manifest.parquet", "pairs.parquet"

_LABELS = [pa.field(name, pa.string(), nullable=False) for name in ("thing", "place", "colour", "motion", "caption")]
_SCENE = pa.field("scene", pa.int64(), nullable=False)
_MANIFEST_FIELDS = [
    pa.field("uri", pa.string(), nullable=False),
    pa.field("modality", pa.string(), nullable=False),
    _SCENE,
    *_LABELS,
]


def write_corpus(
    out: str, scenes: Iterable[Scene], modalities: Sequence[str], *, metadata: Mapping[str, str] | None = None
) -> int:
    """Write scenes as files, with what is known of them in `manifest.parquet` (a row per file) and `pairs.parquet` (per scene).

    Args:
        out: a local folder, or a URI that fsspec can write to.
        scenes: any number; they are drawn as they are needed.
        modalities: what to write of each scene.
        metadata: goes into the metadata of both Parquet files; see `corpus_metadata`.

    Returns:
        The number of media files.

    Raises:
        ValueError: no scenes, or modalities that are not in this world.
        OSError: the files cannot be written.
    """
    check_modalities(modalities)
    store, root = filesystem(out)
    scene_blocks = _in_blocks(scenes, BLOCK_SCENES)
    start = list(islice(scene_blocks, 2))
    if not start:
        raise ValueError("no scenes: a corpus has at least one")
    with tempfile.TemporaryDirectory() as folder:
        manifest, pairs = Path(folder, MANIFEST), Path(folder, PAIRS)
        if len(start) == 1:  # not worth a pool
            blocks = iter([_write_block(out, start[0], tuple(modalities))])
        else:
            blocks = _written_blocks(out, chain(start, scene_blocks), tuple(modalities))
        files = _write_tables(manifest, pairs, blocks, modalities, metadata or {})
        for table in (pairs, manifest):
            _publish(store, table, f"{root.rstrip('/')}/{table.name}")
    return files


def process_count() -> int:
    """The cores this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )  # macOS has only the latter


def check_modalities(modalities: Sequence[str]) -> None:
    """Raises ValueError for modalities that cannot be written."""
    if not modalities or len(set(modalities)) < len(modalities):
        raise ValueError(f"modalities are {list(modalities)}: name at least one of {', '.join(MODALITIES)}, each once")
    for modality in modalities:
        if modality not in MODALITIES:
            raise ValueError(f"modality {modality!r} is not in this world; choose from {', '.join(MODALITIES)}")


def corpus_metadata(out: str) -> dict[str, str] | None:
    """The metadata of a complete corpus; None where there is none."""
    store, root = filesystem(out)
    try:
        with store.open(f"{root.rstrip('/')}/{MANIFEST}", "rb") as file:
            found = pq.read_schema(file).metadata or {}
    except FileNotFoundError:
        return None
    return {key.decode(): value.decode() for key, value in found.items()}


Item = TypeVar("Item")


def _in_blocks(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    rest = iter(items)
    while block := tuple(islice(rest, size)):
        yield block


Block = list[tuple[Scene, dict[str, str]]]  # of each scene: modality -> path within the corpus


def _write_block(out: str, scenes: tuple[Scene, ...], modalities: tuple[str, ...]) -> Block:
    """Runs in a worker process."""
    store, root = filesystem(out)
    contents: dict[str, bytes] = {}
    block: Block = []
    for scene in scenes:
        files = scene_files(scene, modalities)
        contents |= {f"{root.rstrip('/')}/{path}": data for path, data in files.values()}
        block.append((scene, {modality: path for modality, (path, _) in files.items()}))
    store.pipe(contents)
    return block


def _written_blocks(out: str, scene_blocks: Iterator[tuple[Scene, ...]], modalities: tuple[str, ...]) -> Iterator[Block]:
    """Blocks in order, after their files are written; a few are under way at any time."""
    processes = process_count()
    underway: deque[Future[Block]] = deque()
    with _single_threaded(), ProcessPoolExecutor(processes, get_context("spawn"), _start_worker) as pool:
        try:
            for scenes in scene_blocks:
                underway.append(pool.submit(_write_block, out, scenes, modalities))
                if len(underway) >= BLOCKS_AHEAD * processes:
                    yield underway.popleft().result()
            while underway:
                yield underway.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Processes started meanwhile use one thread each: they are as many as the cores."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start_worker() -> None:
    """A worker leaves Ctrl-C to its parent, and never outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _write_tables(
    manifest: Path, pairs: Path, blocks: Iterator[Block], modalities: Sequence[str], metadata: Mapping[str, str]
) -> int:
    """Write the two tables to local files, in row groups; the number of media files."""
    manifest_schema = pa.schema(_MANIFEST_FIELDS, dict(metadata))
    paths = [pa.field(modality, pa.string(), nullable=False) for modality in modalities]
    pairs_schema = pa.schema([_SCENE, *_LABELS, *paths], dict(metadata))
    files = 0
    with pq.ParquetWriter(manifest, manifest_schema) as to_manifest, pq.ParquetWriter(pairs, pairs_schema) as to_pairs:
        for written in _in_blocks(chain.from_iterable(blocks), ROW_GROUP_SCENES):
            pair_rows = [_labels(scene) | uris for scene, uris in written]
            file_rows = [
                _labels(scene) | {"uri": uri, "modality": modality} for scene, uris in written for modality, uri in uris.items()
            ]
            to_pairs.write_table(pa.Table.from_pylist(pair_rows, pairs_schema))
            to_manifest.write_table(pa.Table.from_pylist(file_rows, manifest_schema))
            files += len(file_rows)
    return files


def _labels(scene: Scene) -> dict[str, Any]:
    known = asdict(scene)
    return {"scene": known.pop("seed"), **known, "caption": caption(scene)}


def _publish(store: Any, file: Path, path: str) -> None:
    """Put a local file where it belongs, all at once."""
    if "file" in store.protocol:
        store.put_file(str(file), f"{path}.part")
        os.replace(f"{path}.part", path)  # noqa: PTH105 - both are the store's paths
    else:
        store.put_file(str(file), path)  # an object appears when it is whole
