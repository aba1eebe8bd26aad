"""Features of all pairs within a worker's reach. In: batches of a Dataset, in any order. Out: arrays on disk, row by row.

The arrays are files of the node that are mapped into memory, written once by one worker of each node and unlinked as soon as
all have mapped them: workers share what the page cache holds, sets larger than memory are read as they are needed, any row can
be reached at once, and nothing is left behind whatever dies.  N pairs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from encoders.encoder import Encoder

ROW = "row"


def bytes_of(encoders: Iterable[Encoder]) -> int:
    """What the features of one pair take."""
    shapes = [feature for encoder in encoders for feature in encoder.features.values()]
    return sum(int(np.prod(f.shape, dtype=int)) * np.dtype(f.dtype).itemsize for f in shapes)


def write_features(
    folder: Path, rows_N: np.ndarray, encoders: Iterable[Encoder], batches: Iterable[Mapping[str, np.ndarray]]
) -> None:
    """Write the features of these rows.

    Args:
        folder: of this node; made if it is not there.
        rows_N: rows of the manifest, rising; others among the batches are passed over.
        encoders: whose features.
        batches: columns `row` and `modality.feature`, as of `Pairs.features`.

    Raises:
        OSError: the disk is too small.
    """
    encoders = list(encoders)
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = len(rows_N) * bytes_of(encoders), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"the features of {len(rows_N):,} pairs take {needed / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free; set "
            "TMPDIR to a larger disk, or train on fewer pairs"
        )
    arrays = {
        f"{encoder.modality}.{name}": np.lib.format.open_memmap(
            folder / f"{encoder.modality}.{name}.npy", "w+", feature.dtype, (len(rows_N), *feature.shape)
        )
        for encoder in encoders
        for name, feature in encoder.features.items()
    }
    for batch in batches:
        place = np.searchsorted(rows_N, batch[ROW])
        place[place == len(rows_N)] = 0
        mine = np.flatnonzero(rows_N[place] == batch[ROW])
        for name, array in arrays.items():
            array[place[mine]] = batch[name][mine]
    for array in arrays.values():
        array.flush()


def map_features(folder: Path, encoders: Iterable[Encoder]) -> dict[str, dict[str, np.ndarray]]:
    """modality -> feature -> (N, ...), as `write_features` wrote them; private to this process should it write."""
    return {
        encoder.modality: {
            name: np.lib.format.open_memmap(folder / f"{encoder.modality}.{name}.npy", "c") for name in encoder.features
        }
        for encoder in encoders
    }
