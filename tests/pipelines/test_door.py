"""The door of the service: who comes in, how much they may bring, how long they may stay; over real connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests
from fastapi import FastAPI, Request
from http_server import serving

from pipelines.door import Door, Limits, Metrics, digest, is_loopback

TOKEN = "correct-horse-battery-staple"
LIMITS = Limits(body_bytes=1000, seconds=0.5)
METRICS = Metrics("test")


@pytest.mark.parametrize("given", [{"body_bytes": 0}, {"seconds": 0.0}, {"seconds": float("nan")}, {"seconds": 1e7}])
def test_limits_that_nobody_can_keep_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"above 0, and no more than a day"):
        Limits(**given)  # type: ignore[arg-type]


def app() -> FastAPI:
    inner = FastAPI()

    @inner.get("/healthz")
    async def healthz() -> str:
        return "ok"

    @inner.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    @inner.get("/slow")
    async def slow() -> None:
        await asyncio.sleep(60)

    return inner


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    with serving(Door(app(), digest(TOKEN), False, LIMITS, METRICS)) as url:
        yield url


@pytest.fixture(scope="module")
def local() -> Iterator[str]:
    with serving(Door(app(), None, True, LIMITS, Metrics("local"))) as url:
        yield url


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
)
def test_without_the_token_nothing_is_answered(guarded: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = requests.post(f"{guarded}/length", headers=headers, data=b"12", timeout=5)
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["error"]["type"] == "Unauthorized" and TOKEN not in answer.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_the_token_opens_the_door_and_probes_need_none(guarded: str, scheme: str) -> None:
    answer = requests.post(f"{guarded}/length", headers={"Authorization": f"{scheme} {TOKEN}"}, data=b"12", timeout=5)
    assert answer.status_code == 200 and answer.json() == 2
    assert requests.get(f"{guarded}/healthz", timeout=5).status_code == 200


def test_who_may_not_come_in_is_told_so_before_the_body_is_read(guarded: str) -> None:
    address = urlsplit(guarded)
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        connection.sendall(b"POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


def test_a_body_of_more_than_it_may_have_is_refused(local: str) -> None:
    answer = requests.post(f"{local}/length", data=bytes(1001), timeout=5)
    assert answer.status_code == 413 and "1,000 bytes" in answer.json()["error"]["message"]
    assert requests.post(f"{local}/length", data=bytes(1000), timeout=5).json() == 1000


def test_an_answer_that_takes_too_long_is_given_up(local: str) -> None:
    answer = requests.get(f"{local}/slow", timeout=5)
    assert answer.status_code == 504 and answer.json()["error"]["type"] == "TimeoutError"


def test_a_body_that_never_ends_is_given_up(local: str) -> None:
    address = urlsplit(local)
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        connection.sendall(b"POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nabc")
        assert connection.recv(100).startswith(b"HTTP/1.1 504")


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1", "", "127.0.0.1.nip.io", "[::", "a b"])
def test_without_a_token_only_this_machines_own_names_are_answered(local: str, host: str) -> None:
    """A web page can make its reader's browser ask 127.0.0.1 under a name of the page's own."""
    assert requests.get(f"{local}/healthz", headers={"Host": host}, timeout=5).status_code in (400, 421)
    for name in ("localhost:9", "127.0.0.1", "[::1]:8000"):
        assert requests.get(f"{local}/healthz", headers={"Host": name}, timeout=5).status_code == 200


@pytest.mark.parametrize("token", ["", "short", "a" * 15, "with a space in it", "not-ascii-äöüäöüäöü", "new\nline" * 4])
def test_what_is_no_secret_is_no_token(token: str) -> None:
    with pytest.raises(ValueError, match="openssl rand"):
        digest(token)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("x", False),
    ],
)
def test_only_this_machine_reaches_a_loopback_address(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_requests_are_counted_by_route_and_status(guarded: str) -> None:
    def counted(route: str, status: str) -> float:
        labels = {"replica": "test", "route": route, "status": status}
        return METRICS.registry.get_sample_value("bindery_http_requests_total", labels) or 0.0

    before = counted("/healthz", "200"), counted("none", "401"), counted("none", "404")
    requests.get(f"{guarded}/healthz", timeout=5)
    requests.get(f"{guarded}/one", timeout=5)
    requests.get(f"{guarded}/two", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5)
    assert (counted("/healthz", "200"), counted("none", "401"), counted("none", "404")) == tuple(n + 1 for n in before)
    assert METRICS.registry.get_sample_value("bindery_http_requests_in_progress", {"replica": "test"}) == 0
