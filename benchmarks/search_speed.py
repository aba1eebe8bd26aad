"""How fast is a search, and how much does it find? In: rows, dimension. Out: benchmarks/results/search_speed.json.

    .venv/bin/python -m benchmarks.search_speed --rows 1000000 --dim 1024
    .venv/bin/python -m benchmarks.search_speed --scenes 36000

Makes a table of clustered vectors in three modalities, each in a cone of its own, builds the indices as `jobs.optimize` does,
and asks with vectors that the table does not hold: one client and eight, with and without a filter, from memory and from disk,
and with everything compared. Then the same queries against LanceDB's own default index on the same table. The time to embed a
query is measured apart, as a vector is what the rest is about. A cold search is the first of a newly opened index, the
operating system's pages of the table dropped before. --scenes: instead of synthetic vectors pictures and sounds of so many
scenes of the demo world, embedded by `jobs.embed`, and words and pictures of others to ask with.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import IvfPq

from benchmarks.synthetic import block, machine, space_of
from encoders.space import Space, load_space
from pipelines.demo_world import grid
from pipelines.demo_world.files import scene_files
from pipelines.index import Index, open_index
from pipelines.table import VECTOR, create_table, item_schema, table_uri, vectors_of
from pipelines.upkeep import UpkeepSettings, upkeep

RESULT = Path(__file__).parent / "results" / "search_speed.json"
MODALITIES = ("audio", "image", "text")
BLOCK_ROWS = 10_000
QUERIES, WARM_UP, CLIENTS, K = 200, 50, 8, 10
COLD_RUNS, EXACT_RUNS = 5, 5
CLUSTERS, INNER_DIM = 2000, 64  # a cluster's centre lies in a subspace of so many dimensions


class World:
    """Vectors like those of a trained space: uneven clusters in few dimensions, noise, a cone for each modality."""

    def __init__(self, dim: int) -> None:
        rng = np.random.default_rng(0)
        share = 1 / np.arange(1, CLUSTERS + 1) ** 0.7
        self.share = share / share.sum()
        self.centres = rng.normal(size=(CLUSTERS, INNER_DIM)).astype(np.float32)
        self.basis = (rng.normal(size=(INNER_DIM, dim)) / np.sqrt(INNER_DIM)).astype(np.float32)
        self.cones = {name: (0.6 * rng.normal(size=dim)).astype(np.float32) for name in MODALITIES}

    def vectors(self, seed: int, count: int, modality: str) -> np.ndarray:
        """float32 (count, D) of norm 1."""
        rng = np.random.default_rng(seed)
        inner = self.centres[rng.choice(CLUSTERS, count, p=self.share)]
        inner = inner + 0.5 * rng.standard_normal(inner.shape, np.float32)
        noise = 0.15 * rng.standard_normal((count, self.basis.shape[1]), np.float32)
        vectors = inner @ self.basis + noise + self.cones[modality]
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def make_table(db: Path, space: Space, world: World, rows: int) -> str:
    """A table of so many rows, modalities in turn, in fragments of a few commits."""
    uri = table_uri(str(db), "media")
    create_table(uri, item_schema(space, pa.schema([])))
    schema = lance.dataset(uri).schema

    def blocks(first: int, end: int) -> Any:
        for start in range(first, end, BLOCK_ROWS):
            count, modality = min(BLOCK_ROWS, end - start), MODALITIES[start // BLOCK_ROWS % len(MODALITIES)]
            made = block(space, start, count, world.vectors(start, count, modality))
            made = made.set_column(made.schema.get_field_index("modality"), "modality", pa.repeat(pa.scalar(modality), count))
            columns = [made[f.name] if f.name in made.column_names else pa.array(np.ones(count), f.type) for f in schema]
            yield from pa.table(columns, schema=schema).to_batches()

    for first in range(0, rows, 20 * BLOCK_ROWS):
        batches = pa.RecordBatchReader.from_batches(schema, blocks(first, min(rows, first + 20 * BLOCK_ROWS)))
        lance.write_dataset(batches, uri, mode="append")
        print(f"{first:,} rows", file=sys.stderr)
    return uri


def truth(uri: str, query_QD: np.ndarray, modality: str | None) -> list[set[str]]:
    """The K nearest by comparing all, by item id."""
    best = np.full((len(query_QD), 0), -2.0, np.float32)
    names = np.zeros((len(query_QD), 0), object)
    condition = f"modality = '{modality}'" if modality else None
    for batch in lance.dataset(uri).to_batches(columns=["item_id", VECTOR], filter=condition, batch_size=8192):
        cosine = query_QD @ vectors_of(batch).T
        some = min(K, cosine.shape[1])
        order = np.argpartition(-cosine, some - 1, axis=1)[:, :some]
        ids = np.array(batch["item_id"].to_pylist(), object)[order]
        best, names = np.hstack([best, np.take_along_axis(cosine, order, 1)]), np.hstack([names, ids])
        order = np.argsort(-best, axis=1)[:, :K]
        best, names = np.take_along_axis(best, order, 1), np.take_along_axis(names, order, 1)
    return [set(row.tolist()) for row in names]


def timed(
    search: Callable[[np.ndarray], list[str]], query_QD: np.ndarray, clients: int = 1
) -> tuple[dict[str, Any], list[set[str]]]:
    """Milliseconds of each search at 50, 95 and 99 per cent, searches a second, and what was found."""
    for query in query_QD[:WARM_UP]:
        search(query)

    def one(query: np.ndarray) -> tuple[float, set[str]]:
        began = time.perf_counter()
        found = set(search(query))
        return 1000 * (time.perf_counter() - began), found

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        done = list(pool.map(one, query_QD))
    seconds = time.perf_counter() - began
    p50, p95, p99 = np.percentile([ms for ms, _ in done], [50, 95, 99]).round(2).tolist()
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "per_second": round(len(done) / seconds, 1)}, [ids for _, ids in done]


def recall(found: list[set[str]], true: list[set[str]]) -> float:
    """The share of the nearest that was found."""
    return round(float(np.mean([len(f & t) / K for f, t in zip(found, true, strict=True)])), 4)


def drop_pages(uri: str) -> None:
    """Let the operating system forget the table's files."""
    for path in Path(uri).rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fdatasync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ours(db: Path, space: Space, query_QD: np.ndarray, uri: str) -> dict[str, Any]:
    """Searches by `Index.search`, in the ways that differ in cost."""
    index = open_index(str(db), space=space)

    def by(index: Index, **how: Any) -> Callable[[np.ndarray], list[str]]:
        return lambda query: index.search(vector=query, k=K, columns=["uri"], **how).to_arrow()["item_id"].to_pylist()

    image, everything = truth(uri, query_QD, "image"), truth(uri, query_QD, None)
    done: dict[str, Any] = {}
    for name, how, true in (
        ("all modalities, by the cosine", {"calibrated": False}, everything),
        ("one modality", {"modality": "image"}, image),
        ("all modalities, calibrated", {}, None),
        ("one modality, and a filter that one row in ten meets", {"modality": "image", "where": "uri LIKE '%7.%'"}, None),
    ):
        for clients in (1, CLIENTS):
            figures, found = timed(by(index, **how), query_QD, clients)
            done[f"{name}; {clients} client{'s' * (clients > 1)}"] = figures | ({"recall": recall(found, true)} if true else {})
            print(name, clients, figures, file=sys.stderr)
    figures, _ = timed(by(index, modality="image", exact=True), query_QD[:EXACT_RUNS])
    done["one modality, every vector compared; 1 client"] = figures
    cold = []
    for query in query_QD[:COLD_RUNS]:
        drop_pages(uri)
        new = open_index(str(db), space=space)
        began = time.perf_counter()
        by(new, modality="image")(query)
        cold.append(round(1000 * (time.perf_counter() - began), 1))
    return {"warm": done, "cold_first_search_ms": cold}


def plain_lancedb(db: Path, uri: str, query_QD: np.ndarray) -> dict[str, Any]:
    """The same queries by LanceDB with what it does by default: its own index, its own search."""
    dataset = lance.dataset(uri)
    dataset.drop_index("vector_idx")
    table: Any = lancedb.connect(db).open_table("media")
    began = time.perf_counter()
    table.create_index(VECTOR, config=IvfPq(distance_type="cosine"))
    table.wait_for_index(["vector_idx"], timedelta(hours=1))
    built_s = round(time.perf_counter() - began, 1)

    def search(query: np.ndarray) -> list[str]:
        found = table.search(query, vector_column_name=VECTOR).distance_type("cosine").limit(K).select(["item_id", "uri"])
        ids: list[str] = found.to_arrow()["item_id"].to_pylist()
        return ids

    true, done = truth(uri, query_QD, None), {}
    for clients in (1, CLIENTS):
        figures, found = timed(search, query_QD, clients)
        done[f"all modalities, by the cosine; {clients} client{'s' * (clients > 1)}"] = figures | {
            "recall": recall(found, true)
        }
    return {"index": table.list_indices()[-1].index_type, "build_s": built_s, "warm": done}


def query_embedding_ms() -> dict[str, float]:
    """How long the demo space takes for a text, at 50 per cent; ImageBind's towers take far longer (tower_speed.json)."""
    space, times = load_space("demo"), []
    for number in range(60):
        began = time.perf_counter()
        space.embed("text", [f"a dog in the rain {number}"])
        times.append(1000 * (time.perf_counter() - began))
    return {"demo, a text": round(float(np.median(times[10:])), 2)}


def make_synthetic(folder: Path, rows: int, dim: int) -> tuple[Path, str, Space, np.ndarray]:
    """A database, its table, its space, and vectors to ask with, half of them texts and half pictures."""
    space, world = space_of(folder / "space", dim), World(dim)
    uri = make_table(folder / "db", space, world, rows)
    asked = [world.vectors(10**9 + k, QUERIES // 2, name) for k, name in enumerate(("text", "image"))]
    return folder / "db", uri, space, np.concatenate(asked)


def make_demo(folder: Path, scenes: int) -> tuple[Path, str, Space, np.ndarray]:
    """The same of the demo world."""
    media, db, space = folder / "media", folder / "db", load_space("demo")
    make = ["make_demo", "--scenes", str(scenes), "--out", str(media), "--modalities", "image,audio"]
    for job in (make, ["embed", str(media), "--db", str(db), "--space", "demo"]):
        subprocess.run([sys.executable, "-m", f"jobs.{job[0]}", *job[1:]], check=True, stdout=subprocess.DEVNULL)
    others = grid(1)[: QUERIES // 2]
    asked = [space.embed(m, [_given(scene_files(one, [m])[m][1], m) for one in others]) for m in ("text", "image")]
    return db, table_uri(str(db), "media"), space, np.concatenate(asked)


def _given(file: bytes, modality: str) -> str | bytes:
    return file.decode() if modality == "text" else file


def index_bytes(uri: str) -> dict[str, int]:
    """Bytes of each index."""
    dataset, found = lance.dataset(uri), {}
    for index in dataset.describe_indices():
        folders = [Path(uri) / "_indices" / str(segment.uuid) for segment in index.segments]
        found[index.name] = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    return found


def main() -> None:
    """Measure, write the result, print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--scenes", type=int)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="search-speed-"))
    try:
        if options.scenes:
            db, uri, space, query_QD = make_demo(folder, options.scenes)
        else:
            db, uri, space, query_QD = make_synthetic(folder, options.rows, options.dim)
        rows = lance.dataset(uri).count_rows()
        table_mb = sum(path.stat().st_size for path in Path(uri).rglob("*.lance")) >> 20
        began = time.perf_counter()
        report = upkeep(UpkeepSettings(db=str(db), keep_versions_for="0s"))
        built = {"seconds": round(time.perf_counter() - began, 1), **report.tables["media"].search}
        print(json.dumps(built), file=sys.stderr)
        result = {
            "what": "one search in milliseconds and recall at 10, half the queries texts and half pictures, none in the table",
            **machine(),
            "table": "pictures and sounds of the demo world" if options.scenes else "synthetic vectors of three modalities",
            "rows": rows,
            "dim": space.dim,
            "table_mb": table_mb,
            "built": built,
            "index_bytes": index_bytes(uri),
            "bindery": ours(db, space, query_QD, uri),
            "lancedb_defaults": plain_lancedb(db, uri, query_QD),
            "query_embedding_ms": query_embedding_ms(),
        }
    finally:
        shutil.rmtree(folder)
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    name = "demo world" if options.scenes else f"synthetic, {rows} x {space.dim}"
    RESULT.write_text(json.dumps({**known, name: result}, indent=1) + "\n")
    print(json.dumps(result["bindery"]))


if __name__ == "__main__":
    main()
