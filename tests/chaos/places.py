"""Where faults strike. In: nothing. Out: a Ray of two simulated nodes, with a real S3 server behind a proxy if it is wanted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from gateway import Gateway
from points import GATEWAY, NODE, Place
from proxy import Proxy
from ray.cluster_utils import Cluster
from s3fs import S3FileSystem
from world import ENVIRONMENT

OBJECT_STORE_BYTES = 200 << 20
BUCKET = "chaos"
START_TRIES = 5


@contextmanager
def places(gateway: Gateway | None, with_ray: bool = True) -> Iterator[dict[str, Place]]:
    """Places by name: "local" (Ray in the driver), "cluster", and with a gateway "s3" (cluster, tables behind a proxy).

    Without Ray, for light.py: "light" and "light s3".

    Ray's workers inherit the environment that Ray is started in, so the proxy comes first.
    """
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in {**ENVIRONMENT, **(gateway.environment if gateway else {})}.items():
            environment.setenv(name, value)
        proxy = None
        if gateway:
            proxy = stack.enter_context(Proxy(gateway.environment["AWS_ENDPOINT_URL"]))
            environment.setenv("AWS_ENDPOINT_URL", proxy.url)
            S3FileSystem.clear_instance_cache()  # it keeps the endpoint of its first use: no other server's, and not ours later
            stack.callback(S3FileSystem.clear_instance_cache)
            S3FileSystem().mkdir(BUCKET)
        nodes = None
        if with_ray:
            nodes = Nodes()
            stack.callback(nodes.end)
        yield _places(gateway, proxy, nodes)


def _places(gateway: Gateway | None, proxy: Proxy | None, nodes: Nodes | None) -> dict[str, Place]:
    found: dict[str, Place] = {"local": Place()} if nodes else {"light": Place("light")}
    joined: dict[str, str] = {}
    strikes: dict[str, Callable[[], None]] = {}
    if nodes:
        joined, strikes = {"RAY_ADDRESS": nodes.address}, {NODE: nodes.pull}
        found["cluster"] = Place("cluster", joined, strikes=strikes, raylets=nodes.raylets)
    if gateway and proxy:
        past_the_proxy = {
            "aws_endpoint": gateway.environment["AWS_ENDPOINT_URL"],
            "allow_http": "true",
            "aws_virtual_hosted_style_request": "false",
        }
        strikes = {**strikes, GATEWAY: gateway.restart}
        name = "s3" if nodes else "light s3"
        raylets = nodes.raylets if nodes else None
        found[name] = Place(name, joined, f"s3://{BUCKET}", proxy, past_the_proxy, strikes, raylets)
    return found


class Nodes:
    """A head without CPUs and one node that does the work; pulled, it is replaced, as an autoscaler would."""

    def __init__(self) -> None:
        head = {"num_cpus": 0, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
        self._cluster = Cluster()
        self._start(**head)  # the first one is the head
        self._node: Any = self._add()

    @property
    def address(self) -> str:
        """For RAY_ADDRESS."""
        return str(self._cluster.address)

    def pull(self) -> None:
        """The node is gone, with all that ran on it; another one comes."""
        self._cluster.remove_node(self._node, allow_graceful=False)
        self._node = self._add()

    def raylets(self) -> list[int]:
        """The pids of both nodes: workers run below them."""
        return [node.all_processes["raylet"][0].process.pid for node in self._cluster.list_all_nodes()]

    def end(self) -> None:
        """Stop it all."""
        self._cluster.shutdown()

    def _add(self) -> Any:
        return self._start(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)

    def _start(self, **arguments: Any) -> Any:
        """A node; on a machine that is busy with other things it may take several tries, of 30 s each (Ray's limit)."""
        for _ in range(START_TRIES - 1):
            try:
                return self._cluster.add_node(**arguments)
            except Exception as error:  # noqa: BLE001 - Ray raises nothing narrower
                print(f"chaos: a node did not start, trying again: {error}", file=sys.stderr)
        return self._cluster.add_node(**arguments)
