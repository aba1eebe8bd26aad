"""What a user would write instead of Bindery. In: PEER FOLDER LANCE SPACE. Out: a Lance dataset of uri and vector.

Each is the program that the library's own documentation teaches for this work, with the same tower (a forward of the module in
inference mode) and batch size, and with a worker a core: Ray Data reads pictures, resizes them in a `map`, and embeds in a pool
of actors; Daft downloads, decodes, resizes and calls a batch UDF of a class; PyTorch's DataLoader decodes in worker processes
and one loop embeds. Every picture becomes 224 x 224 pixels by a bicubic (Daft: its own) filter. None of them looks at what is
there already, rejects bad files, or survives a crash. Run by benchmarks/peers.py.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from benchmarks.plain_tower import PlainTower
from encoders.space import load_space

BATCH, SIDE = 32, 224
CORES = os.cpu_count() or 1


class Tower:
    """The tower, on one thread a process."""

    def __init__(self, space: str, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        encoder = load_space(space).encoder("image")
        self._forward = PlainTower(encoder)
        (self._feature,) = encoder.features

    def __call__(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        """uint8 (B, 224, 224, 3) to float32 (B, D)."""
        return self._forward({self._feature: np.ascontiguousarray(pixels_BHWC.transpose(0, 3, 1, 2))})


def resized(picture: Image.Image) -> np.ndarray:
    """uint8 (224, 224, 3)."""
    return np.array(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def write(tables: Iterable[pa.Table], out: str, dim: int) -> None:
    """A Lance dataset of all of them, written as they come."""
    schema = pa.schema([("uri", pa.string()), ("vector", pa.list_(pa.float32(), dim))])
    batches = (batch for table in tables for batch in _plain(table, schema).to_batches())
    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches), out)


def _plain(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Ray's tensors are an extension type."""
    vectors = table["vector"].combine_chunks()
    vectors = vectors.storage if isinstance(vectors.type, pa.ExtensionType) else vectors
    return pa.table([table["uri"], vectors], names=schema.names).cast(schema)


def ray_data(folder: str, out: str, space: str) -> None:
    """Ray Data, as "Working with images" and "Batch inference" of its guide do it; its `write_lance` fails with this Lance."""
    import ray

    class Embed:
        def __init__(self) -> None:
            self.tower = Tower(space)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {"uri": batch["path"], "vector": self.tower(np.stack(list(batch["image"])))}

    def shrink(row: dict[str, Any]) -> dict[str, Any]:
        return {"path": row["path"], "image": resized(Image.fromarray(row["image"]))}

    ray.init(logging_level=logging.ERROR, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.read_images(folder, include_paths=True, mode="RGB").map(shrink)
    dataset = dataset.map_batches(Embed, batch_size=BATCH, compute=ray.data.ActorPoolStrategy(size=CORES), num_cpus=0.5)
    write(dataset.iter_batches(batch_size=None, batch_format="pyarrow"), out, load_space(space).dim)


def daft(folder: str, out: str, space: str) -> None:
    """Daft, as its guide to embedding pictures does it."""
    import daft
    from daft import DataType, Series, col

    dim = load_space(space).dim

    @daft.cls(max_concurrency=CORES, use_process=True)
    class Embed:
        def __init__(self) -> None:
            self.tower = Tower(space)

        @daft.method.batch(return_dtype=DataType.fixed_size_list(DataType.float32(), dim), batch_size=BATCH)  # type: ignore[untyped-decorator]
        def embed(self, pictures: Series) -> Any:
            pixels = np.stack([np.asarray(picture) for picture in pictures.to_pylist()])
            return pa.FixedSizeListArray.from_arrays(pa.array(self.tower(pixels).reshape(-1)), dim)

    frame = daft.from_glob_path(f"{folder}/**/*.jpg").select(col("path").alias("uri"))
    pictures = col("uri").download().decode_image(mode="RGB").resize(SIDE, SIDE)
    frame = frame.with_column("vector", Embed().embed(pictures))
    frame.write_lance(out)


class Pictures(torch.utils.data.Dataset[tuple[np.ndarray, str]]):
    """Files of a folder, decoded."""

    def __init__(self, folder: str) -> None:
        self._paths = [str(path) for path in sorted(Path(folder).rglob("*.jpg"))]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, k: int) -> tuple[np.ndarray, str]:
        with Image.open(self._paths[k]) as picture:
            return resized(picture), self._paths[k]


def data_loader(folder: str, out: str, space: str) -> None:
    """PyTorch's DataLoader with a worker a core, one loop, Lance's writer at the end of each batch."""
    tower = Tower(space, CORES)
    dim = load_space(space).dim

    def batches() -> Iterator[pa.Table]:
        for pixels, uris in torch.utils.data.DataLoader(Pictures(folder), BATCH, num_workers=CORES):
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(tower(pixels.numpy()).reshape(-1)), dim)
            yield pa.table({"uri": list(uris), "vector": vectors})

    write(batches(), out, dim)


PEERS: dict[str, Callable[[str, str, str], None]] = {"ray_data": ray_data, "daft": daft, "data_loader": data_loader}

if __name__ == "__main__":
    PEERS[sys.argv[1]](*sys.argv[2:])
    print(json.dumps({"rows": lance.dataset(sys.argv[3]).count_rows()}))
