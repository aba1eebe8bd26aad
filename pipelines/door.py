"""What comes before the service. In: an ASGI app. Out: the same behind a token, with limits of size and time, and counted."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.decoder import LONGEST_ITEM_S

OPEN_PATHS = ("/healthz",)  # for probes, which carry no token
LEAST_TOKEN = 16  # characters
_HOST = re.compile(r"\[?(?P<name>[^\[\]]*?)\]?(:\d+)?")  # a Host header: name:port, [IPv6]:port


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    Attributes:
        body_bytes: of its body, files and all.
        seconds: from its headers to its answer; its media get half of that to be decoded.
    """

    body_bytes: int = 32 * 1024**2
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.body_bytes < 1 or not 0 < self.seconds <= LONGEST_ITEM_S:
            raise ValueError(
                f"a request of at most {self.body_bytes} bytes in {self.seconds} s: both must be above 0, and no more than a "
                f"day ({LONGEST_ITEM_S} s)"
            )


class Metrics:
    """Counts of one replica, for Prometheus."""

    def __init__(self, replica: str) -> None:
        self.registry = CollectorRegistry()
        self._replica, within = replica, self.registry
        labels = ("replica", "route", "status")
        self._answered = Counter("bindery_http_requests", "Requests answered.", labels, registry=within)
        self._seconds = Histogram("bindery_http_request_seconds", "From headers to answer.", labels[:2], registry=within)
        in_progress = Gauge("bindery_http_requests_in_progress", "Requests being answered.", labels[:1], registry=within)
        self.in_progress = in_progress.labels(replica)

    def count(self, route: str, status: int, seconds: float) -> None:
        """One request, answered."""
        self._answered.labels(self._replica, route, status).inc()
        self._seconds.labels(self._replica, route).observe(seconds)


def problem(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as every client of the service gets it: `{"error": {"type": ..., "message": ...}}`."""
    told = message.encode(errors="replace").decode()  # a lone surrogate cannot be sent
    return JSONResponse({"error": {"type": kind, "message": told}}, status, headers)


def digest(token: str) -> bytes:
    """What is kept of a token.

    Raises:
        ValueError: too short to be a secret, or not of printable ASCII.
    """
    if len(token) < LEAST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError(
            f"the token has {len(token)} characters; take at least {LEAST_TOKEN} of printable ASCII without spaces, such as "
            "`openssl rand -hex 32` makes"
        )
    return hashlib.sha256(token.encode()).digest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Door:
    """The app, and the door before it.

    Args:
        app: what answers.
        token: `digest` of the token that requests must carry; None lets everybody in.
        local: only requests that name this machine are answered: a web page could lead a browser here under another name.
        limits: of a request.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, token: bytes | None, local: bool, limits: Limits, metrics: Metrics) -> None:
        self._app, self._token, self._local, self._limits, self._metrics = app, token, local, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI event: a request, or the app's start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            with self._metrics.in_progress.track_inprogress():
                async with asyncio.timeout(self._limits.seconds):
                    await (self._refusal(scope) or self._app)(scope, receive, watched)
        except TimeoutError:
            if status:
                raise  # half an answer is out: cutting it off is all that is left
            message = f"no answer within {self._limits.seconds:g} s; ask for less, or again later"
            await problem(504, "TimeoutError", message)(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.count(route, status or 500, time.perf_counter() - began)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        """Why the request goes no further, before a byte of its body is read."""
        headers = Headers(scope=scope)
        named = _HOST.fullmatch(headers.get("host", ""))
        if self._local and not (named and is_loopback(named["name"].lower())):
            return problem(421, "MisdirectedRequest", "without a token the service answers to localhost only")
        if self._token is not None and scope["path"] not in OPEN_PATHS and not self._authorised(headers):
            message = "this service wants the header `Authorization: Bearer TOKEN` with its token"
            return problem(401, "Unauthorized", message, {"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.body_bytes:
            return too_large(self._limits)
        return None

    def _authorised(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        found = hashlib.sha256(given.strip().encode()).digest()
        return scheme.lower() == "bearer" and hmac.compare_digest(found, self._token or b"")


def too_large(limits: Limits) -> JSONResponse:
    """The answer to a body beyond its limit."""
    return problem(413, "TooLargeError", f"a request may have {limits.body_bytes:,} bytes; send a shorter or smaller medium")
