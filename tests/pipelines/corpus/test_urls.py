"""Lists of http(s) URLs against a real server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from corpora import MEDIA, manifest_parquet, rows_of, write
from http_folder import HttpFolder

from pipelines.corpus import CorpusError, find_modalities, open_corpus
from pipelines.reach import Reach

SIGNATURE = "X-Amz-Signature=5ec4e7&X-Amz-Credential=me"


def listed(folder: Path, *lines: str) -> str:
    (folder / "urls.txt").write_text("\n".join(lines))
    return str(folder / "urls.txt")


@pytest.fixture
def odd_server() -> Iterator[str]:
    """A server without HEAD, ranges or etags; `/secret` wants its signature, `/endless` never ends."""

    async def get(request: web.Request) -> web.StreamResponse:
        if request.path == "/secret" and "X-Amz-Signature" not in request.query:
            raise web.HTTPForbidden
        if request.path == "/withheld":
            raise web.HTTPUnavailableForLegalReasons(link=None)
        if request.path == "/dated":
            return web.Response(body=b"words", headers={"Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT"})
        if request.path == "/endless":
            answer = web.StreamResponse(headers={"Content-Length": str(1 << 40)})
            await answer.prepare(request)
            while True:
                await answer.write(MEDIA["a.jpg"].ljust(1 << 16, b"\0"))
        return web.Response(body=MEDIA["a.jpg"])

    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_get("/{path}", get, allow_head=False)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(timeout=10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)
    loop.close()


def test_a_version_is_the_servers_etag_and_changes_with_the_file(http_folder: HttpFolder, tmp_path: Path) -> None:
    write(http_folder.path, MEDIA)
    uri = listed(tmp_path, f"{http_folder.url}/a.jpg")
    (before,) = rows_of(open_corpus(uri, allow_hosts=["127.0.0.1"]))
    assert before["size_bytes"] == len(MEDIA["a.jpg"])
    assert '"' not in before["version"]
    write(http_folder.path, {"a.jpg": b"other"})
    (after,) = rows_of(open_corpus(uri, allow_hosts=["127.0.0.1"]))
    assert after["version"] != before["version"]


def test_a_signature_is_used_and_never_stored(odd_server: str, tmp_path: Path) -> None:
    corpus = open_corpus(listed(tmp_path, f"{odd_server}/secret?{SIGNATURE}&page=1"), allow_hosts=["127.0.0.1"])
    (batch,) = corpus.batches()
    (row,) = batch.to_pylist()
    assert row["uri"] == f"{odd_server}/secret?page=1"
    assert row["read_uri"] == f"{odd_server}/secret?{SIGNATURE}&page=1"
    assert row["problem"] is None
    assert [guess.modality for guess in find_modalities(batch, Reach(("127.0.0.1",)))] == ["image"]


def test_what_the_server_refuses_is_a_problem_without_the_signature(
    odd_server: str, http_folder: HttpFolder, tmp_path: Path
) -> None:
    urls = [
        f"{http_folder.url}/gone.jpg",
        f"{odd_server}/secret?page=2&sig",
        f"{odd_server}/withheld?{SIGNATURE}",
        f"http://127.0.0.1:9/x?{SIGNATURE}",
    ]
    rows = rows_of(open_corpus(listed(tmp_path, *urls), allow_hosts=["127.0.0.1"]))
    assert [row["problem"] for row in rows] == [
        "not found",
        "the server answered with status 403",
        "the server answered with status 451",
        "the server does not answer (ClientConnectorError)",
    ]
    assert not any("5ec4e7" in f"{row['uri']}{row['problem']}" for row in rows)


def test_a_request_that_is_refused_while_sniffing_is_a_guess_without_the_signature(odd_server: str, tmp_path: Path) -> None:
    urls = [f"{odd_server}/withheld?{SIGNATURE}", f"http://127.0.0.1:9/x?{SIGNATURE}", f"{odd_server}/fine"]
    path = manifest_parquet(tmp_path / "m.parquet", {"uri": urls, "version": ["1", "2", "3"]})
    (batch,) = open_corpus(str(path), allow_hosts=["127.0.0.1"]).batches()
    refused, silent, fine = find_modalities(batch, Reach(("127.0.0.1",)))
    assert (refused.modality, refused.why, "451" in refused.detail) == (None, "ambiguous", True)
    assert (silent.modality, silent.why) == (None, "ambiguous")
    assert "cannot be read" in silent.detail
    assert "5ec4e7" not in refused.detail + silent.detail
    assert fine.modality == "image"


@pytest.mark.parametrize("uri", ["s3://", "http://[::1/x", "https:///x?X-Amz-Signature=5ec4e7"])
def test_a_place_that_is_none_is_refused(uri: str) -> None:
    with pytest.raises(CorpusError, match="is no place to read from") as refusal:
        open_corpus(uri)
    assert "5ec4e7" not in str(refusal.value)


def test_without_an_etag_time_and_size_are_the_version(odd_server: str, tmp_path: Path) -> None:
    (row,) = rows_of(open_corpus(listed(tmp_path, f"{odd_server}/dated"), allow_hosts=["127.0.0.1"]))
    assert row["version"] == "5-1700000000000000000"


def test_the_first_bytes_are_all_that_is_read(odd_server: str, tmp_path: Path) -> None:
    (batch,) = open_corpus(listed(tmp_path, f"{odd_server}/endless"), allow_hosts=["127.0.0.1"]).batches()
    assert [guess.modality for guess in find_modalities(batch, Reach(("127.0.0.1",)))] == ["image"]


def test_lines_that_are_no_url_cost_themselves_only(http_folder: HttpFolder, tmp_path: Path) -> None:
    write(http_folder.path, MEDIA)
    lines = [
        "# a list",
        "",
        f"{http_folder.url}/a.jpg",
        "file:///etc/passwd",
        "a.jpg",
        "http://[bad",
        f"  {http_folder.url}/sub/c.jpg#x ",
    ]
    rows = rows_of(open_corpus(listed(tmp_path, *lines), allow_hosts=["127.0.0.1"]))
    assert [row["problem"] is None for row in rows] == [True, False, False, False, True]
    assert rows[-1]["uri"] == f"{http_folder.url}/sub/c.jpg"
    assert "line 4: 'file:///etc/passwd' is no http(s) URL" in rows[1]["problem"]
    assert len({row["uri"] for row in rows}) == 5


def test_a_csv_of_urls_without_a_header_is_a_list_too(http_folder: HttpFolder, tmp_path: Path) -> None:
    write(http_folder.path, MEDIA)
    (tmp_path / "urls.csv").write_text(f'"{http_folder.url}/a.jpg"\n{http_folder.url}/sub/c.jpg,\n')
    assert [row["problem"] for row in rows_of(open_corpus(str(tmp_path / "urls.csv"), allow_hosts=["127.0.0.1"]))] == [
        None,
        None,
    ]


def test_a_text_of_other_words_is_a_source(tmp_path: Path) -> None:
    (row,) = rows_of(open_corpus(listed(tmp_path, "once upon a time"), allow_hosts=["127.0.0.1"]))
    assert row["uri"] == f"{tmp_path}/urls.txt"


def test_a_manifest_and_its_media_may_lie_on_a_server(http_folder: HttpFolder) -> None:
    write(http_folder.path, MEDIA)
    manifest_parquet(http_folder.path / "m.parquet", {"uri": ["a.jpg", "b b%231.png", "gone.jpg"], "n": [1, 2, 3]})
    (http_folder.path / "m.csv").write_text("uri,n\na.jpg,1\nb b%231.png,2\ngone.jpg,3\n")
    (http_folder.path / "m.jsonl").write_text(
        '{"uri": "a.jpg", "n": 1}\n{"uri": "b b%231.png", "n": 2}\n{"uri": "gone.jpg", "n": 3}\n'
    )
    for name in ("m.parquet", "m.csv", "m.jsonl"):
        rows = rows_of(open_corpus(f"{http_folder.url}/{name}"))
        assert [row["uri"] for row in rows] == [f"{http_folder.url}/{path}" for path in ("a.jpg", "b%20b%231.png", "gone.jpg")]
        assert [row["problem"] for row in rows] == [None, None, "not found"]
        assert [row["n"] for row in rows] == [1, 2, 3]


def test_shards_on_a_server_are_read_in_ranges(http_folder: HttpFolder) -> None:
    from corpora import tar

    write(http_folder.path, {f"s-{k}.tar": tar(MEDIA) for k in range(3)})
    batches = list(open_corpus(f"{http_folder.url}/s-{{0..2}}.tar").batches())
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert len(rows) == 3 * len(MEDIA)
    assert rows[0]["uri"] == f"{http_folder.url}/s-0.tar#a.jpg"
    assert {guess.modality for batch in batches for guess in find_modalities(batch, Reach(("127.0.0.1",)))} == {"image", "text"}


def test_a_server_that_is_not_there_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"http://127\.0\.0\.1:9/urls\.txt"):
        open_corpus("http://127.0.0.1:9/urls.txt")
