"""How the work of a run is cut: even ends, whatever the sizes, and nothing lost on the way."""

import threading
import time
from contextlib import closing
from itertools import chain
from typing import Any

import pyarrow as pa
import pytest
import ray

from pipelines.segments import TASK_BYTES
from pipelines.todo import BLOCK_SOURCES, Todo, entries

MB = 1_000_000


def _blocks(sizes: list[int | None], actors: int, inline: int = 0) -> list[list[tuple[int, int | None]]]:
    """The blocks of sources of these sizes, the first ones with their bytes: numbers and sizes."""
    media = [b"medium"] * inline + [None] * (len(sizes) - inline)
    sources = pa.table(
        {
            "number": range(len(sizes)),
            "size_bytes": pa.array(sizes, pa.int64()),
            "_media": pa.array(media, pa.large_binary()),
        }
    )
    todo = Todo()
    for first in range(0, len(sizes), 1000):
        todo.add(sources.slice(first, 1000))
    datasets = chain(*todo.datasets(actors))
    blocks = ray.get([ref for dataset in datasets for ref in dataset.to_arrow_refs()])
    return [list(zip(b["number"].to_pylist(), b["size_bytes"].to_pylist(), strict=True)) for b in blocks]


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(
    ("sizes", "inline"),
    [([100_000] * 9000 + [10 * MB] * 1000 + [300 * MB], 0), ([None, 5 * MB] * 200, 0), ([4 * MB] * 300, 30), ([None] * 3, 0)],
)
def test_every_source_is_in_one_block_and_no_block_is_more_work_than_a_large_source(
    sizes: list[int | None], inline: int
) -> None:
    blocks = _blocks(sizes, actors=2, inline=inline)
    assert sorted(number for block in blocks for number, _ in block) == list(range(len(sizes)))
    for block in blocks:
        assert len(block) <= BLOCK_SOURCES
        located = [size or 0 for number, size in block if number >= inline]
        assert sum(located) <= TASK_BYTES or len(located) == 1


@pytest.mark.usefixtures("ray_local")
def test_large_sources_come_first_though_they_are_listed_last() -> None:
    blocks = _blocks([100_000] * 10_000 + [10 * MB] * 40 + [300 * MB], actors=2)
    work = [sum(size or 0 for _, size in block) for block in blocks]
    assert blocks[0] == [(10_040, 300 * MB)]
    assert [size for block in blocks[1:8] for _, size in block] == [10 * MB] * 40
    assert max(work[8:]) < TASK_BYTES / 4


@pytest.mark.usefixtures("ray_local")
def test_a_few_large_sources_are_shared_out() -> None:
    assert [len(block) for block in _blocks([30 * MB] * 16, actors=2)] == [2] * 8
    assert [len(block) for block in _blocks([10_000] * 16, actors=2)] == [2] * 8


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(("taken", "rests_s"), [(0, 0), (1, 0), (20, 0), (1, 4)], ids=["none", "one", "twenty", "all wait"])
def test_an_execution_that_is_broken_off_leaves_no_thread_behind(taken: int, rests_s: float) -> None:
    def slowly(batch: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.2)
        return batch

    before = set(threading.enumerate())
    dataset = ray.data.range(200, override_num_blocks=100).map_batches(slowly)
    with closing(entries(dataset)) as found:
        for _ in range(taken):
            next(entry for entry in found if entry is not None)
        if not taken:
            next(found)
        time.sleep(rests_s)
        assert [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("StreamingExecutor")]
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert not [name for name in left if name.startswith(("dataset", "StreamingExecutor"))]
