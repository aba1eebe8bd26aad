"""What sources cost, measured on a sample of them. In: samples by modality. Out: seconds a source, and what would be rejected.

They go through the stages of a real run, in this process and without Ray: first their decoding, then the tower alone, so that
each is timed by itself, however many cores the machine has.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipelines.cluster import Resources
from pipelines.forecast import CPU, PRICES, Cost, Forecast, Machine
from pipelines.heap import keep_freed_memory
from pipelines.media_rates import one_thread
from pipelines.plan import Planner
from pipelines.pools import GPU_ROWS, rows_for_a_gpu
from pipelines.sample import Sample
from pipelines.stages import TENSOR_BYTES, Decode, Embed, Job

BUDGET_S = 10.0  # for the decoding of a modality's sample, and again for its tower; what has begun is finished
PIECE = 16  # sources at once, at most
TOWER_ROWS = 64  # that are kept for the tower; on a GPU again and again, as its batches are larger


@dataclass
class _Tried:
    """Sums over the sources of one size class that were decoded."""

    sources: int = 0
    rows: int = 0  # segments, and rejects: all that goes through the tower
    read_s: float = 0.0  # of the last piece alone, as only many at once are read ahead
    last_piece: int = 0
    decode_s: float = 0.0
    other_s: float = 0.0  # of the processor, to take over what was decoded
    rejects: Counter[str] = field(default_factory=Counter)


def foresee(planner: Planner, job: Job, prices: Sequence[Machine]) -> Forecast:
    """Plan, and try some of what there is to do, 20 s a modality at most, to tell what all of it takes.

    Nothing is written and no Ray is started; a cluster that RAY_ADDRESS names is asked for its resources.

    Args:
        planner: of the run.
        job: of the run.
        prices: of machines; PRICES without any.
    """
    began = time.monotonic()
    samples: dict[str, Sample] = {}
    for work in planner.batches():
        for modality, sources in work.todo.items():
            samples.setdefault(modality, Sample()).add(sources)
    plan_s, resources = time.monotonic() - began, Resources.at_hand()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else CPU
    costs, load_s = _measured(samples, replace(job, batch_size=GPU_ROWS) if device != CPU else job, device)
    return Forecast(
        corpus=job.corpus,
        costs=costs,
        cpus=resources.cpus,
        gpus=resources.gpus,
        device=device,
        plan_s=plan_s,
        load_s=load_s,
        prices=prices or PRICES,
    )


def _measured(samples: Mapping[str, Sample], job: Job, device: str) -> tuple[dict[str, Cost], float]:
    """What sources cost, by modality, and how long a decoder takes to start."""
    if not samples:
        return {}, 0.0
    with one_thread(), closing(_Trial(job, device)) as trial:
        keep_freed_memory(TENSOR_BYTES)
        return {modality: trial.cost(sample) for modality, sample in sorted(samples.items())}, trial.load_s


class _Trial:
    """The stages of a run. `load_s`: from the start of a decoder to its first answer, once one has been tried."""

    def __init__(self, job: Job, device: str) -> None:
        self.load_s = 0.0
        self._decode, self._embed = Decode(job), Embed(job)
        self._job, self._device = job, device

    def close(self) -> None:
        """End the decoding process."""
        self._decode.close()

    def cost(self, sample: Sample) -> Cost:
        """Of one modality, each size class weighted by the number of its sources."""
        tried, rows = self._decoded(sample)
        row_tower_s, row_other_s = self._tower(rows)
        a_source = sample.mean({number: one.rows / one.sources for number, one in tried.items()})
        return Cost(
            sources=sample.sources,
            bytes=sample.bytes,
            tried=sum(one.sources for one in tried.values()),
            would_reject=dict(sum((one.rejects for one in tried.values()), Counter[str]())),
            rows=a_source,
            read_s=sample.mean({number: one.read_s / one.last_piece for number, one in tried.items()}),
            decode_s=sample.mean({number: one.decode_s / one.sources for number, one in tried.items()}),
            tower_s=a_source * row_tower_s,
            other_s=a_source * row_other_s + sample.mean({n: one.other_s / one.sources for n, one in tried.items()}),
        )

    def _decoded(self, sample: Sample) -> tuple[dict[int, _Tried], pa.Table]:
        """Sums by size class, and rows with features for the tower to be measured with."""
        chosen = sample.to_try()
        tried = {number: _Tried() for number in chosen}
        kept: list[pa.Table] = []
        first = chosen[min(chosen)].slice(0, 1)
        if not self.load_s:
            self._start_anew(first)
        else:
            list(self._decode(first))  # what a decoder loads when it is first used is no cost of a source
        began, size = time.monotonic(), 1
        while any(tried[number].sources < todo.num_rows for number, todo in chosen.items()):
            for number, todo in chosen.items():
                if kept and time.monotonic() - began > BUDGET_S and size > 1:
                    return tried, pa.concat_tables(kept)
                piece = todo.slice(tried[number].sources, size)
                if piece.num_rows:
                    room = TOWER_ROWS - sum(rows.num_rows for rows in kept)
                    kept += self._piece(piece, tried[number], room)
            size = min(2 * size, PIECE)
        return tried, pa.concat_tables(kept)

    def _start_anew(self, first: pa.Table) -> None:
        """Start a second decoder, and time it: the first may have waited for the disk."""
        list(self._decode(first))
        self._decode.close()
        began = time.monotonic()
        self._decode = Decode(self._job)
        list(self._decode(first))
        self.load_s = time.monotonic() - began

    def _piece(self, piece: pa.Table, tried: _Tried, room: int) -> list[pa.Table]:
        """Decode some sources, add them to the sums, give back up to `room` of their rows."""
        busy = time.process_time()
        kept: list[pa.Table] = []
        tried.sources += piece.num_rows
        tried.read_s, tried.last_piece = 0.0, piece.num_rows
        for rows in self._decode(piece):
            tried.rows += rows.num_rows
            tried.read_s += pc.sum(rows["_read_s"]).as_py()
            tried.decode_s += pc.sum(rows["_decode_s"]).as_py()
            tried.rejects.update(rows["_reject_type"].drop_null().to_pylist())
            kept.append(rows.slice(0, max(0, room - sum(one.num_rows for one in kept))))
        tried.other_s += time.process_time() - busy
        return kept

    def _tower(self, rows: pa.Table) -> tuple[float, float]:
        """Seconds of the tower a row of a full batch, and seconds of this process beside it."""
        full, few, on_gpu = self._job.batch_size, rows.slice(0, 1), self._device != CPU
        if on_gpu:
            full = rows_for_a_gpu(self._job.space, str(rows["modality"][0]))
            few = rows = rows.take(np.arange(full) % rows.num_rows)
        self._embed(few)  # loads the weights; a GPU tries how many rows at once are best
        began = time.perf_counter()
        self._embed(few)
        size = min(full, max(1, int(BUDGET_S * few.num_rows / (time.perf_counter() - began))))
        tower_s = other_s = slots = done = 0.0
        for first in range(0, max(1, rows.num_rows - size + 1), size):
            busy, began = time.process_time(), time.perf_counter()
            batch = self._embed(rows.slice(first, size))
            in_tower_s = pc.sum(batch["_tower_s"]).as_py()
            other_s += max(0.0, min(time.perf_counter() - began, time.process_time() - busy) - in_tower_s)
            tower_s += in_tower_s
            done += batch.num_rows
            slots += pc.sum(batch["_slots"]).as_py() if on_gpu else batch.num_rows  # on CPUs a batch is not filled up
            if tower_s > BUDGET_S:
                break
            if first == 0 and rows.num_rows >= 2 * size:
                tower_s = other_s = slots = done = 0.0  # the first of its size makes what the others use again
        return tower_s / slots, other_s / done
