"""Search over HTTP, on Ray Serve: POST words or a file, get hits; /healthz, /metrics, /openapi.json.

BINDERY_TOKEN=$(openssl rand -hex 32) python -m jobs.serve --db s3://bucket/index --host 0.0.0.0
curl localhost:8000/search -H 'Content-Type: application/json' -d '{"text": "dog barking", "modality": ["audio"]}'
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import ApplicationStatus, LoggingConfig
from starlette.types import ASGIApp

from jobs.config import DryRun, JsonReport, planned, run_job
from pipelines.cluster import Resources, start_ray
from pipelines.door import Limits, digest, is_loopback
from pipelines.index import Index, open_index
from pipelines.log import say
from pipelines.service import ServiceSettings, make_app

TOKEN = "BINDERY_TOKEN"  # in the environment
APPLICATION = "bindery"
ONGOING, QUEUED = 32, 64  # requests of one replica; more are told to come again
PROXY_MARGIN_S = 10.0  # the proxy's own limit is for replicas that do not answer at all
LOOK_EVERY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class ServeConfig(DryRun):
    """Answer searches of a table over HTTP, until SIGTERM or Ctrl-C.

    Clients send `Authorization: Bearer TOKEN`, with the token from the environment's BINDERY_TOKEN. Without one only this
    machine is served.

    Args:
        db: where the LanceDB database is, a folder or URI.
        table: its table.
        space: what queries are embedded with; by default the space that the table names.
        host: the address to listen on.
        port: to listen on.
        replicas: processes that answer, each with a decoder of its own.
        gpus: of each replica.
        max_body_mb: of a request, in MiB.
        timeout_s: of a request; its media get half of that to be decoded.
        no_token: answer everybody beyond this machine too, where a proxy in front asks who they are.
    """

    db: str
    table: str = "media"
    space: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    gpus: float = 0.0
    max_body_mb: int = 32
    timeout_s: float = 30.0
    no_token: bool = False


def serve_table(config: ServeConfig) -> JsonReport:
    """Serve until told to stop, which ends it by StopRequestedError.

    Raises:
        ValueError: no such table, no token beyond this machine, the port is taken, or the cluster runs Serve already.
        OSError: Serve failed.
    """
    settings = _settings(config)
    _check_port(config)
    index = open_index(config.db, config.table, config.space)  # what is wrong with it is told here, before anything starts
    if config.dry_run:
        return planned("serve", _plan(config, settings, index))
    start_ray()
    _refuse_second_serve()
    say(f"starting, which takes half a minute; replicas: {config.replicas}")
    with _serving(config, settings):
        say(f"answering requests at http://{config.host}:{config.port}, {_who(settings)}; Ctrl-C ends it")
        while (ours := serve.status().applications.get(APPLICATION)) and ours.status != ApplicationStatus.DEPLOY_FAILED:
            time.sleep(LOOK_EVERY_S)
    why = f"gave up: {ours.status}; its log says why" if ours else "was told by somebody else to end this service"
    raise OSError(f"Ray Serve {why}. Run the same command again")


def _plan(config: ServeConfig, settings: ServiceSettings, index: Index) -> dict[str, Any]:
    """What would be served. Ray is not started; a cluster that RAY_ADDRESS names is asked for room and for another service."""
    resources, stats = Resources.at_hand(), index.stats()
    if ray.is_initialized():
        _refuse_second_serve()
    return {
        "url": f"http://{config.host}:{config.port}",
        "requests": _who(settings),
        "table": index.uri,
        "rows": stats.rows,
        "space": stats.space,
        "index": stats.index,
        "unindexed_rows": stats.unindexed_rows,
        "replicas": config.replicas,
        "needs": {"cpus": config.replicas, "gpus": config.replicas * config.gpus},
        "at_hand": {"cpus": resources.cpus, "gpus": resources.gpus},
    }


def _who(settings: ServiceSettings) -> str:
    """Whose requests are answered."""
    return "with the token" if settings.token else "this machine's own" if settings.local else "everybody's, without token"


def _refuse_second_serve() -> None:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if (running := serve.status()).applications or running.proxies:
        raise ValueError("Ray Serve runs on this cluster already, at an address of its own: stop it, or take another cluster")


@contextmanager
def _serving(config: ServeConfig, settings: ServiceSettings) -> Iterator[None]:
    """Replicas behind Serve's HTTP proxy, and at the end none."""
    quiet = LoggingConfig(log_level=logging.WARNING, enable_access_log=False)
    timeout_s = config.timeout_s + PROXY_MARGIN_S
    options = HTTPOptions(host=config.host, port=config.port, request_timeout_s=timeout_s)

    def app() -> ASGIApp:
        return make_app(settings)

    deployment = serve.deployment(
        name="search",
        num_replicas=config.replicas,
        ray_actor_options={"num_cpus": 1, "num_gpus": config.gpus},
        max_ongoing_requests=ONGOING,
        max_queued_requests=QUEUED,
        graceful_shutdown_timeout_s=timeout_s,
    )(serve.ingress(app)())
    try:
        serve.start(http_options=options, logging_config=quiet)
        serve.run(deployment.bind(), name=APPLICATION, logging_config=quiet)
        yield
    except (RuntimeError, ray.exceptions.RayError) as error:  # no replica can be started; later, the cluster is lost
        raise OSError(f"Ray Serve failed: {error}. Run the same command again") from error
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def _settings(config: ServeConfig) -> ServiceSettings:
    if config.replicas < 1 or config.gpus < 0:
        raise ValueError(f"--replicas {config.replicas} --gpus {config.gpus}: at least one replica, and no less than no GPU")
    token, local = os.environ.get(TOKEN, ""), is_loopback(config.host)
    if config.no_token and token:
        raise ValueError(f"--no-token, but {TOKEN} is set: unset the one or leave out the other")
    if not (token or local or config.no_token):
        raise ValueError(
            f"{config.host} can be reached from elsewhere: put a secret into the environment, such as "
            f"{TOKEN}=$(openssl rand -hex 32), or pass --no-token where a proxy in front asks who comes"
        )
    limits = Limits(config.max_body_mb * 1024**2, config.timeout_s)
    return ServiceSettings(config.db, config.table, config.space, digest(token) if token else None, local and not token, limits)


def _check_port(config: ServeConfig) -> None:
    try:
        with socket.create_server((config.host, config.port), reuse_port=False):
            pass
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot listen on {config.host}:{config.port}: {error}; choose another --host or --port") from error


def main(argv: Sequence[str] | None = None) -> int:
    """argv -> exit code."""
    return run_job(ServeConfig, serve_table, argv)


if __name__ == "__main__":
    sys.exit(main())
