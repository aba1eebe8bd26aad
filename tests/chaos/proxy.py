"""A proxy that spoils answers. In: the address of an S3 server, a rule. Out: an address of the same server, gone bad.

Requests and answers pass byte for byte, `Host` included, because it is signed. One connection serves one request.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

STALL_S = 3.0
DROP, LATE_500 = "drop the answer", "500 though applied"  # the request has been applied
E500, E503 = "500", "503"  # it has not
STALL, HALF_ANSWER, HALF_REQUEST = "stall", "truncate the answer", "truncate the request"
KINDS = (DROP, LATE_500, E500, E503, STALL, HALF_ANSWER, HALF_REQUEST)
FINE = ""
Rule = Callable[[str, str], str]  # (method, path with query) -> one of KINDS, or FINE


def fine(_method: str, _path: str) -> str:
    """A rule: nothing is spoilt."""
    return FINE


class Storm:
    """A rule: each request is spoilt with the same probability, by a kind drawn from some."""

    def __init__(self, seed: int, rate: float, kinds: tuple[str, ...] = KINDS) -> None:
        self._random = random.Random(seed)
        self._rate = rate
        self._kinds = kinds

    def __call__(self, method: str, path: str) -> str:
        spoil, kind = self._random.random() < self._rate, self._random.choice(self._kinds)
        return kind if spoil else FINE


@dataclass
class Ambush:
    """A rule: of the requests of a method whose path holds some words, the `nths` (counted from 1) are spoilt."""

    kind: str
    method: str
    words: str
    nths: tuple[int, ...] = (1,)
    _count: int = field(default=0, init=False)

    def __call__(self, method: str, path: str) -> str:
        if method != self.method or self.words not in path:
            return FINE
        self._count += 1
        return self.kind if self._count in self.nths else FINE


class Proxy:
    """The proxy, in a thread of its own; a context manager."""

    def __init__(self, server: str, rule: Rule = fine) -> None:
        parts = urlsplit(server)
        self._server = parts.hostname or "", parts.port or 80
        self.rule = rule  # may be replaced at any time
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.spoilt: Counter[str] = Counter()
        self.requests = 0
        self.url = ""

    def __enter__(self) -> Proxy:
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop).result(10)
        self.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    async def _serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        try:
            await self._one_request(client, answer)
        except (OSError, asyncio.IncompleteReadError):  # either side has gone; the other one notices
            pass
        finally:
            answer.close()

    async def _one_request(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        head = await client.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
        if "expect" in headers:
            answer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await client.readexactly(int(headers.get("content-length", "0")))
        kept = [line for line in lines if line.partition(":")[0].lower() not in ("connection", "expect")]
        request = "\r\n".join([first, *kept, "Connection: close", "", ""]).encode("latin-1")
        self.requests += 1
        kind = self.rule(method, path)
        if kind:
            self.spoilt[kind] += 1
        if kind in (E500, E503):
            answer.write(_error(int(kind)))
            return await answer.drain()
        if kind == STALL:
            await asyncio.sleep(STALL_S)
        if kind == HALF_REQUEST:
            await self._forward(request + body[: len(body) // 2], cut=True)
            return None
        reply = await self._forward(request + body, cut=False)
        if kind == DROP:
            return None
        answer.write({LATE_500: _error(500), HALF_ANSWER: reply[: len(reply) // 2]}.get(kind, reply))
        return await answer.drain()

    async def _forward(self, request: bytes, cut: bool) -> bytes:
        """The server's whole answer, or nothing where the request is cut short."""
        server, to_server = await asyncio.open_connection(*self._server)
        try:
            to_server.write(request)
            await to_server.drain()
            return b"" if cut else await server.read()
        finally:
            to_server.close()


def _error(status: int) -> bytes:
    body = f"<Error><Code>{'InternalError' if status == 500 else 'SlowDown'}</Code></Error>"
    return f"HTTP/1.1 {status} Bad\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
