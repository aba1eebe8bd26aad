"""What a corpus may name: a manifest is data, and makes nobody read what only the workers can reach."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web

from encoders.errors import MediaError
from pipelines.corpus import open_corpus
from pipelines.decoder import Decoder, Source
from pipelines.hits import Hits
from pipelines.reach import PUBLIC, Reach, RefusedError
from pipelines.replies import Reject
from pipelines.stages import _ABSENT
from pipelines.video_pairs import _cut

METADATA = "http://169.254.169.254/latest/meta-data/iam/security-credentials/"


class Listener:
    """A server that remembers what it was asked for, and answers `/hop` with a redirect to where it is told."""

    def __init__(self, to: str = "") -> None:
        self.asked: list[str] = []
        self.to = to
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.path == "/hop":
            raise web.HTTPFound(self.to)
        return web.Response(body=b"a secret")


@contextmanager
def listening(host: str, to: str = "") -> Iterator[Listener]:
    """A listener on a loopback address of this machine."""
    listener, loop, app = Listener(to), asyncio.new_event_loop(), web.Application()
    app.router.add_route("*", "/{path:.*}", listener.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, host, 0).start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    listener.url = f"http://{host}:{runner.addresses[0][1]}"
    yield listener
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(timeout=10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)
    loop.close()


@pytest.fixture
def inside() -> Iterator[Listener]:
    """What only this machine can reach."""
    with listening("127.0.0.1") as listener:
        yield listener


def problems(folder: Path, *uris: str, **options: object) -> list[str | None]:
    """What a manifest's rows are told."""
    pq.write_table(pa.table({"uri": list(uris)}), folder / "m.parquet")
    corpus = open_corpus(str(folder / "m.parquet"), **options)  # type: ignore[arg-type]
    return [row["problem"] for batch in corpus.batches() for row in batch.to_pylist()]


@pytest.mark.parametrize(
    "uri",
    [
        METADATA,
        "http://127.0.0.1:8265/api/jobs/",
        "https://10.0.0.7/a.jpg",
        "http://192.168.1.1/a.jpg",
        "http://[::1]:8265/",
        "http://[fd00:ec2::254]/latest/",
        "http://[::ffff:169.254.169.254]/latest/",
        "http://[64:ff9b::a9fe:a9fe]/latest/",
        "http://[2002:7f00:1::]/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "ftp://example.org/a.jpg",
        "memory://a.jpg",
        "github://owner:repo@main/a.jpg",
    ],
)
def test_private_addresses_and_other_schemes_are_refused_unasked(uri: str, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, uri)
    assert problem is not None and ("no public address" in problem or "may not be named" in problem)
    with pytest.raises(RefusedError):
        PUBLIC.store(uri)


def test_public_addresses_and_names_are_not_refused_by_how_they_look() -> None:
    for uri in ("https://example.org/a.jpg", "http://93.184.216.34/a.jpg", "s3://bucket/a.jpg", "gs://bucket/a.jpg", "/a.jpg"):
        assert PUBLIC.refusal(uri) is None


@pytest.mark.parametrize("host", ["localhost", "2130706433", "127.1", "0x7f000001"])
def test_a_name_is_judged_by_the_address_it_has(host: str, inside: Listener, tmp_path: Path) -> None:
    uri = inside.url.replace("127.0.0.1", host) + "/secret.txt"
    (problem,) = problems(tmp_path, uri)
    assert problem is not None
    with pytest.raises((RefusedError, aiohttp.InvalidURL)) as refusal:  # the latter: no odd spellings at all
        PUBLIC.store(uri).cat_file(uri)
    assert host != "localhost" or (refusal.type is RefusedError and "localhost (" in problem and "no public address" in problem)
    assert inside.asked == []


def test_a_redirect_is_judged_anew(inside: Listener, tmp_path: Path) -> None:
    with listening("127.0.0.2", to=f"{inside.url}/secret.txt") as outside:
        only = {"allow_hosts": ["127.0.0.2"]}
        (problem,) = problems(tmp_path, f"{outside.url}/hop", **only)
        assert problem is not None and "127.0.0.1" in problem
        with pytest.raises(RefusedError):
            Reach(("127.0.0.2",)).store(outside.url).cat_file(f"{outside.url}/hop")
        assert outside.asked and inside.asked == []
        assert problems(tmp_path, f"{outside.url}/hop", allow_hosts=["127.0.0.*"]) == [None]


def test_hosts_that_are_allowed_are_the_only_ones(inside: Listener, tmp_path: Path) -> None:
    assert problems(tmp_path, f"{inside.url}/a.txt", allow_hosts=["127.0.0.1"]) == [None]
    assert inside.asked
    (problem,) = problems(tmp_path, "https://example.org/a.jpg", allow_hosts=["127.0.0.1", "*.example.com"])
    assert problem == "host 'example.org' is not among --allow-hosts 127.0.0.1 *.example.com"


def test_the_host_that_the_operator_named_himself_is_allowed(inside: Listener) -> None:
    home = Reach(home=f"{inside.url}/list.txt")
    assert home.store(inside.url).cat_file(f"{inside.url}/a.txt") == b"a secret"
    assert home.refusal("http://127.0.0.2/a.txt") is not None


def test_a_corpus_in_a_store_names_no_files_of_this_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    with fsspec.open("memory://theirs/m.csv", "w") as file:
        file.write(f"uri\n{secret}\nfile://{secret}\nmemory://theirs/m.csv\n")
    corpus = open_corpus("memory://theirs/m.csv")
    told = [row["problem"] for batch in corpus.batches() for row in batch.to_pylist()]
    assert ["may not name files of this machine" in (problem or "") for problem in told] == [True, True, False]


def test_a_worker_refuses_what_the_plan_did_not_look_at(inside: Listener) -> None:
    """A manifest that tells versions is believed, so that nobody asks before the decoder does."""
    decoder = Decoder("demo", reach=PUBLIC)
    uris = [f"{inside.url}/a.txt", f"{inside.url.replace('127.0.0.1', 'localhost')}/b.txt"]
    found = list(decoder.decode([Source("text", uri, uri, 8, None, None) for uri in uris]))
    decoder.close()
    assert [(r.stage, r.error_type, r.expected) for r in found if isinstance(r, Reject)] == [("read", "RefusedError", True)] * 2
    assert inside.asked == []
    assert RefusedError.__name__ in _ABSENT and issubclass(RefusedError, MediaError)  # a reject, no outage


def test_the_films_that_bind_cuts_are_judged_too(inside: Listener, tmp_path: Path) -> None:
    uris = [f"{inside.url}/a.mp4?sig=secret", f"{inside.url.replace('127.0.0.1', 'localhost')}/b.mp4?sig=secret"]
    rows = [{"uri": uri.partition("?")[0], "place": uri, "version": "1", "media": None, "problem": ""} for uri in uris]
    problems = _cut(pa.Table.from_pylist(rows), str(tmp_path), 2.0, PUBLIC)["problem"].to_pylist()
    assert problems[0].startswith("RefusedError") and problems[1] and "secret" not in "".join(problems)
    assert inside.asked == []


def test_a_page_of_hits_asks_no_private_host(inside: Listener) -> None:
    for uri in (f"{inside.url}/a.wav", inside.url.replace("http", "webhdfs") + "/a.wav"):
        row = {"similarity": 0.5, "uri": uri, "modality": "audio", "mime": "audio/wav", "size_bytes": 8}
        assert "<audio" not in Hits(pa.Table.from_pylist([row]), "a query")._repr_html_()
    assert inside.asked == []
