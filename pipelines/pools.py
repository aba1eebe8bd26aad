"""The pools of actors that embed. In: what there is to do, by modality. Out: blocks of rows, handed to the writer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow.compute as pc
import ray

from pipelines.cluster import Resources, await_free
from pipelines.progress import EmbedProgress
from pipelines.segments import WHOLE
from pipelines.stages import Decode, DecodeThenEmbed, Embed, Job, Probe
from pipelines.todo import Todo, entries
from pipelines.writer import Writer

GPU_BATCH = 256


def embed_all(job: Job, todo: dict[str, Todo], writer: Writer, progress: EmbedProgress) -> None:
    """Blocks of sources in, references to blocks of rows out, handed to the writer; largest sources first.

    With GPUs a Dataset for each modality, one after the other: CPU actors decode, GPU actors embed. With CPUs alone one Dataset
    for all: one pool of actors does it all, and seven modalities start it once (docs/decisions/0003-one-pool-on-cpus.md).

    Raises:
        OSError: the cluster has no room.
    """
    await_free(Resources.of_cluster().gpus)
    resources = Resources.of_cluster()  # an autoscaler may have added some
    writer.start(resources.cpus, in_parts=any(job.cuts[m] != WHOLE.name for m in todo))
    largest_first = sorted(todo, key=lambda m: todo[m].mean_bytes, reverse=True)
    done = 0
    for group in [[m] for m in largest_first] if resources.gpus else [largest_first]:
        for entry in entries(_embedded(job, {m: todo.pop(m) for m in group}, resources)):
            if entry is not None:
                done += entry.metadata.num_rows
                writer.add(entry.ref, entry.metadata.size_bytes)
            writer.tick()
            progress.update(done)


def _embedded(job: Job, group: dict[str, Todo], resources: Resources) -> Any:
    """The Dataset of embedded rows of some modalities, not yet executed."""
    job = replace(job, batch_size=GPU_BATCH) if resources.gpus else job
    parts = []
    for modality, todo in group.items():
        located, inline = todo.datasets(resources.gpus or resources.cpus)
        parts += located if job.cuts[modality] == WHOLE.name else [_in_parts(part, job, resources) for part in located]
        parts += inline  # never in parts, each of which would carry the bytes of all
    dataset = parts[0].union(*parts[1:]) if len(parts) > 1 else parts[0]
    actors = min(resources.cpus, sum(part.num_blocks() for part in parts))
    if resources.gpus:
        dataset = _stage(dataset, Decode, job, actors, num_cpus=1)
        return _stage(dataset, Embed, job, resources.gpus, num_gpus=1, batch_size=job.batch_size)
    return _stage(dataset, DecodeThenEmbed, job, actors, num_cpus=1)


def _in_parts(sources: Any, job: Job, resources: Resources) -> Any:
    """Sources as the parts that the work on them is cut into: each part of a longer one is a block of its own, and comes first.

    Headers are read for it, by a pool of its own that is gone before the towers come.
    """
    probed = _stage(sources, Probe, job, min(resources.cpus, sources.num_blocks()), num_cpus=1)
    longer, short = [], []
    for block in probed.iter_batches(batch_size=None, batch_format="pyarrow"):
        several = pc.greater(block["_parts"], 1)
        rows = block.filter(several)
        longer += [rows.slice(k, 1) for k in range(rows.num_rows)]
        short += [rest for rest in [block.filter(pc.invert(several))] if rest.num_rows]
    return ray.data.from_blocks([*longer, *short])


def _stage(dataset: Any, stage: type, job: Job, actors: int, batch_size: int | None = None, **resources: float) -> Any:
    """Add a pool of actors of full size from the start: pools that ramp up one by one starve what follows."""
    return dataset.map_batches(
        stage,
        fn_constructor_args=(job,),
        batch_format="pyarrow",
        batch_size=batch_size,
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(size=actors),
        **resources,
    )
