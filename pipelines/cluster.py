"""Ray, in the process or on a cluster: no other code knows which. In: the environment. Out: a running Ray, its resources."""

from __future__ import annotations

import logging
import os
import signal
import threading
from dataclasses import dataclass

import ray


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS (or `ray job submit`) names; with none, start Ray in this process. Idempotent."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")  # our own progress speaks of items
    if not ray.is_initialized():
        handler = signal.getsignal(signal.SIGTERM)
        if os.environ.get("RAY_ADDRESS"):
            ray.init(logging_level=logging.ERROR)
        else:  # "local": never a stale cluster that a killed head has left behind
            ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own would end the process before its lease is given back
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray._private.worker"):
        logging.getLogger(name).setLevel(logging.ERROR)


@dataclass(frozen=True)
class Resources:
    """What the cluster holds, in whole CPUs and GPUs."""

    cpus: int
    gpus: int

    @classmethod
    def of_cluster(cls) -> Resources:
        """Of the Ray that is running."""
        total = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return cls(max(1, int(total.get("CPU", 1))), int(total.get("GPU", 0)))
