"""Ray, in the process or on a cluster: no other code knows which. In: the environment. Out: a running Ray, its resources."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import ray
import torch
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from encoders.encoder import Encoder, list_encoders, package_of
from encoders.errors import SpaceError
from pipelines.log import say

FREE_WITHIN_S = 600.0  # how long a job waits for the first free CPU: autoscalers take minutes to add a node
SAY_AFTER_S = 30.0
LOOK_EVERY_S = 20.0


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS (or `ray job submit`) names; with none, start Ray in this process. Idempotent.

    Raises:
        OSError: it does not start, or does not answer; run the same command again.
    """
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")  # our own progress speaks of items
    if not ray.is_initialized():
        with Starting():
            if address := os.environ.get("RAY_ADDRESS"):
                _join(address)
            else:  # "local": never a stale cluster that a killed head has left behind
                # Ray 2.60's newer exporter leaks 20 MB a minute in Ray Data's statistics actor; the older one does not.
                os.environ.setdefault("RAY_enable_open_telemetry", "0")
                ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # else it is not told whether a store was away or our code is wrong
    context.print_on_execution_start = False
    for name in ("ray.data", "ray._private.worker"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _join(address: str) -> None:
    """Join a cluster that stays.

    Raises:
        OSError: none answers there.
    """
    # Tries of some 40 s each; Ray's own 20 of them are a quarter of an hour in which it hears no signal.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
    try:
        ray.init(logging_level=logging.ERROR)
    except ConnectionError as error:
        raise OSError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error}). Is it up? If it asks for a token, "
            "RAY_AUTH_MODE=token and the token have to be set here, too. Without RAY_ADDRESS the job runs on this machine alone"
        ) from error


def end_ray() -> None:
    """End the Ray that this process has started, or leave the cluster that it has joined, of which no more is to be told.

    Ray's own end of a process waits half a second for the last words of workers, and one for its autoscaler, which does not
    hear that it is to end once the server that it asks is gone.
    """
    if ray_worker._global_node is not None:
        ray_worker._global_node.kill_monitor(check_alive=False)
    ray.shutdown()


class Starting:
    """A context in which Ray starts, or fails to: its bare `Exception` on a machine under load is the infrastructure's.

    A SIGTERM waits until Ray has started: Ray's own handler would leave it half started, which crashes the process at its end.
    One that comes then sets Ray's alarm, too (abseil's failure handler), which aborts the process 3 s later: it is called off.
    """

    def __enter__(self) -> None:
        """Keep SIGTERM from Ray."""
        self._stopped = False
        self._in_main = threading.current_thread() is threading.main_thread()  # elsewhere Ray leaves signals alone
        if self._in_main:
            self._own = signal.signal(signal.SIGTERM, self._later)
            self._rays, ray_utils.set_sigterm_handler = ray_utils.set_sigterm_handler, lambda _handler: None

    def _later(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopped = True
        signal.alarm(0)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self._in_main:
            ray_utils.set_sigterm_handler = self._rays
            signal.signal(signal.SIGTERM, self._own or signal.SIG_DFL)  # None of one that C code has set
            if self._stopped:
                signal.alarm(0)
                os.kill(os.getpid(), signal.SIGTERM)
        if kind is Exception:  # this very class, and none that has a name
            raise OSError(f"Ray did not start: {error}; run the same command again when the machine is less busy") from error


@dataclass(frozen=True)
class Resources:
    """What the cluster holds, in whole CPUs and GPUs: Ray refuses nodes with a part of one."""

    cpus: int
    gpus: int

    @classmethod
    def of_cluster(cls) -> Resources:
        """Of the Ray that is running."""
        total = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return cls(max(1, int(total.get("CPU", 1))), int(total.get("GPU", 0)))

    @classmethod
    def at_hand(cls) -> Resources:
        """Of the cluster that RAY_ADDRESS names, which is joined; with none, what Ray would find here. It is not started."""
        if os.environ.get("RAY_ADDRESS"):
            start_ray()
        if ray.is_initialized():
            return cls.of_cluster()
        return cls(max(1, int(ray_utils.get_num_cpus())), torch.cuda.device_count())

    def __str__(self) -> str:
        return f"{self.cpus:,} CPUs and {self.gpus:,} GPUs"


class Growth:
    """What a run makes use of, while its cluster grows: its pools grow with it, but stay of the kind that they began as."""

    def __init__(self, used: Resources) -> None:
        self.used = used
        self._look_at_s = time.monotonic() + LOOK_EVERY_S
        self._told_of_gpus = False

    def news(self) -> str | None:
        """What there is to say, each thing once; Ray is asked now and then only."""
        if time.monotonic() < self._look_at_s:
            return None
        self._look_at_s = time.monotonic() + LOOK_EVERY_S
        now = Resources.of_cluster()
        if now.gpus and not self.used.gpus and not self._told_of_gpus:
            self._told_of_gpus = True
            return (
                f"the cluster now has {now}, but this run has begun without GPUs and uses none: to use them, stop it and run "
                "the same command again, which goes on where it stopped"
            )
        more = Resources(max(now.cpus, self.used.cpus), max(now.gpus, self.used.gpus) if self.used.gpus else 0)
        if more == self.used:
            return None
        self.used = more
        return f"the cluster has grown, and this run with it: embedding on {more}"


def await_free(gpus: int, wait_s: float = FREE_WITHIN_S) -> None:
    """Wait until a CPU is free, and a GPU where there are any: pools of actors would wait for ever, and in silence.

    Where nothing is booked there is nothing to wait for, not even for the start of a worker. Else it asks by tasks, so that an
    autoscaler sees what is wanted.

    Args:
        gpus: how many the cluster has.
        wait_s: for how long; on stderr it says so when it takes long.

    Raises:
        OSError: nothing became free.
    """
    free, total = ray.available_resources(), ray.cluster_resources()  # type: ignore[no-untyped-call]
    if total.get("CPU") and all(free.get(kind, 0) == total.get(kind, 0) for kind in ("CPU", "GPU")):
        return
    task: Any = ray.remote(lambda: None)  # sent by value: to find a function of this module a worker would import torch, too
    asked = {task.options(num_cpus=1).remote(): "CPU"}
    if gpus:
        asked[task.options(num_cpus=0, num_gpus=1).remote()] = "whole GPU"
    patience_s = min(SAY_AFTER_S, wait_s)
    late = ray.wait(list(asked), num_returns=len(asked), timeout=patience_s)[1]
    if late:
        names = " and a free ".join(asked[one] for one in late)
        say(f"waiting up to {wait_s:.0f} s for a free {names}: no node of the cluster has one", stage="start")
        late = ray.wait(late, num_returns=len(late), timeout=wait_s - patience_s)[1]
    for one in late:
        ray.cancel(one)
    if late:
        raise OSError(
            f"no node of the cluster had a free {' or a free '.join(asked[one] for one in late)} within {wait_s:.0f} s: other "
            "jobs hold them all, or no node could be added. Nothing is lost: run the same command again when there is room"
        )


def check_workers(encoders: Iterable[Encoder]) -> None:
    """Refuse a cluster on which a node lacks an installed package that an encoder comes from; asks nothing if none does.

    An encoder may be built on another one, whose architecture its settings name then.

    Raises:
        SpaceError: it names the package, the encoder and the node.
    """
    known = set(list_encoders())
    named = {str(name) for encoder in encoders for name in (encoder.architecture, *encoder.settings.values())} & known
    foreign = {architecture: package for architecture in sorted(named) if (package := package_of(architecture))}
    if not foreign:
        return
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]  # type: ignore[no-untyped-call]
    ask: Any = ray.remote(num_cpus=0)(_lacking)
    answers = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(list(foreign))
        for node in nodes
    ]
    for node, lacking in zip(nodes, ray.get(answers), strict=True):
        if lacking:
            raise SpaceError(
                f"encoder {lacking[0]!r} comes from package {foreign[lacking[0]]!r}, which node {node['NodeManagerAddress']} "
                "has not: install it in the image of every worker, or name it in the job's runtime_env"
            )


def _lacking(architectures: Sequence[str]) -> list[str]:
    """Runs on a worker: which of these are not registered there."""
    there = list_encoders()
    return [architecture for architecture in architectures if architecture not in there]
