"""The pools of actors that embed. In: what there is to do, by modality. Out: blocks of rows, handed to the writer."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc
import ray

from encoders.space import load_space
from pipelines.cluster import Growth, Resources, await_free
from pipelines.progress import EmbedProgress
from pipelines.segments import WHOLE
from pipelines.stages import DecodeForGpu, DecodeThenEmbed, Embed, Job, Probe, row_bytes
from pipelines.todo import Todo, entries
from pipelines.writer import Writer

GPU_ROWS, GPU_BYTES = 512, 80 * 1024**2  # of features in one batch for a GPU: half a second's work, and no more than that


def embed_all(job: Job, todo: dict[str, Todo], writer: Writer, progress: EmbedProgress) -> Resources:
    """Blocks of sources in, references to blocks of rows out, handed to the writer; largest sources first.

    With GPUs a Dataset for each modality, one after the other: an actor a CPU decodes, one a GPU embeds
    (docs/decisions/0015-one-actor-a-gpu.md). With CPUs alone one Dataset for all: one pool of actors does it all, and seven
    modalities start it once (docs/decisions/0003-one-pool-on-cpus.md).

    Returns:
        What the pools were of in the end.

    Raises:
        OSError: the cluster has no room.
    """
    await_free(Resources.of_cluster().gpus)
    growth = Growth(Resources.of_cluster())  # an autoscaler may have added some
    progress.say(f"embedding on {growth.used}", stage="start", **vars(growth.used))
    writer.start(growth.used.cpus, in_parts=any(job.cuts[m] != WHOLE.name for m in todo))
    largest_first = sorted(todo, key=lambda m: todo[m].mean_bytes, reverse=True)
    for group in [[m] for m in largest_first] if growth.used.gpus else [largest_first]:
        with closing(entries(_embedded(job, {m: todo.pop(m) for m in group}, growth.used))) as embedded:
            for entry in embedded:
                if entry is not None:
                    writer.add(entry.ref, entry.metadata.size_bytes, entry.metadata.num_rows)
                writer.tick()
                progress.update(writer.sources)
                if (news := growth.news()) is not None:
                    progress.say(news, stage="embed", **vars(growth.used))
    return growth.used


def _embedded(job: Job, group: dict[str, Todo], resources: Resources) -> Any:
    """The Dataset of embedded rows of some modalities, not yet executed."""
    parts = []
    for modality, todo in group.items():
        located, inline = todo.datasets(resources.cpus)
        parts += located if job.cuts[modality] == WHOLE.name or not located else [_in_parts(located, job, resources)]
        parts += inline  # never in parts, each of which would carry the bytes of all
    dataset = parts[0].union(*parts[1:]) if len(parts) > 1 else parts[0]
    actors = min(resources.cpus, sum(part.num_blocks() for part in parts))
    if not resources.gpus:
        return _stage(dataset, DecodeThenEmbed, job, actors, num_cpus=1)
    dataset = _stage(dataset, DecodeForGpu, job, actors, num_cpus=1)
    rows = rows_for_a_gpu(job.space, next(iter(group)))
    # No CPU, which Ray takes for a GPU's actor if it is not told: those that decode have them all, and it would never start.
    return _stage(
        dataset, Embed, replace(job, batch_size=rows), resources.gpus, calls=2, batch_size=rows, num_gpus=1, num_cpus=0
    )


def rows_for_a_gpu(space: str, modality: str) -> int:
    """How many rows of a modality are handed over at once, of the space at a URI."""
    features = load_space(space).encoder(modality).features.values()
    return max(1, min(GPU_ROWS, GPU_BYTES // sum(row_bytes(feature) for feature in features)))


def _in_parts(located: list[Any], job: Job, resources: Resources) -> Any:
    """Sources as the parts that the work on them is cut into: each part of a longer one is a block of its own, and comes first.

    Headers are read for it, by a pool of its own that is gone before the towers come.
    """
    sources = located[0].union(*located[1:]) if len(located) > 1 else located[0]
    probed = _stage(sources, Probe, job, min(resources.cpus, sum(part.num_blocks() for part in located)), num_cpus=1)
    longer, short = [], []
    for block in probed.iter_batches(batch_size=None, batch_format="pyarrow"):
        several = pc.greater(block["_parts"], 1)
        rows = block.filter(several)
        longer += [rows.slice(k, 1) for k in range(rows.num_rows)]
        short += [rest for rest in [block.filter(pc.invert(several))] if rest.num_rows]
    return ray.data.from_blocks([*longer, *short])


def _stage(
    dataset: Any, stage: type, job: Job, actors: int, calls: int = 1, batch_size: int | None = None, **resources: float
) -> Any:
    """Add a pool of actors of full size from the start, as pools that ramp up one by one starve what follows.

    It grows with the cluster: while its actors have enough to do, Ray Data asks an autoscaler for nodes, and puts actors on
    those that come.

    Args:
        dataset: what goes in.
        stage: a class, made once an actor of `job`, called with blocks.
        job: the run.
        actors: how many, at first and at least.
        calls: at once in each actor, by as many threads.
        batch_size: rows a call; None: a block as it is.
        resources: of each actor, as `map_batches` names them.
    """
    return dataset.map_batches(
        stage,
        fn_constructor_args=(job,),
        batch_format="pyarrow",
        batch_size=batch_size,
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(
            min_size=actors, max_concurrent_calls_per_actor=calls, enable_true_multi_threading=calls > 1
        ),
        **resources,
    )
