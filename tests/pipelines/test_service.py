"""Search over real HTTP: it finds what the index finds, and nothing that is sent to it ends it or makes it open a file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import schemathesis
from http_server import serving
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from searchable import make_media, make_space, rows_of, write_table
from test_decoder import HOSTILE

from pipelines.door import Limits
from pipelines.index import Index, open_index
from pipelines.service import ServiceSettings, make_app

LIMITS = Limits(body_bytes=2_000_000, seconds=60)
QUIETLY: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}
EXCLUDED = [positive_data_acceptance]  # a string that the schema allows may be no item, no condition, no medium


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A table of pictures, texts, sounds and traces; its space has one more encoder, which kills the process it runs in."""
    folder = tmp_path_factory.mktemp("served")
    space = make_space(folder)
    write_table(folder, rows_of(space, make_media(folder / "media", 4)))
    site = folder / "site"
    (site / "hostile-1.0.dist-info").mkdir(parents=True)
    (site / "hostile.py").write_text(HOSTILE)
    (site / "hostile-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
    (site / "hostile-1.0.dist-info" / "entry_points.txt").write_text("[bindery.encoders]\nhostile = hostile\n")
    card = json.loads((Path(space.uri) / "space.json").read_text())
    card["encoders"]["hostile"] = {**card["encoders"]["image"], "architecture": "hostile", "settings": {}}
    (Path(space.uri) / "space.json").write_text(json.dumps(card))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        __import__("hostile")
        yield folder


@pytest.fixture(scope="module")
def url(db: Path) -> Iterator[str]:
    with serving(make_app(ServiceSettings(str(db), limits=LIMITS))) as address:
        yield address


@pytest.fixture(scope="module")
def index(db: Path) -> Index:
    return open_index(str(db))


def ask(url: str, **query: Any) -> requests.Response:
    return requests.post(f"{url}/search", json=query, timeout=60)


def ask_by_files(url: str, files: dict[str, Any], **fields: Any) -> requests.Response:
    return requests.post(f"{url}/search/files", files=files, data=fields, timeout=60)


def ids(answer: requests.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["item_id"] for hit in answer.json()["hits"]]


def test_words_items_and_vectors_find_what_the_index_finds(url: str, index: Index) -> None:
    item = index.search("dog", k=1).to_arrow()["item_id"][0].as_py()
    vector = np.arange(128, dtype=np.float64)
    asked = {"text": "dog barking", "item_id": item, "weights": {"text": 0.5, "item_id": -1.0}}
    asked |= {"modality": ["image", "audio"], "k": 5, "where": "rating < 0.25"}
    assert ids(ask(url, **asked)) == index.search(**asked).to_arrow()["item_id"].to_pylist()
    page = {"text": "dog", "offset": 2, "k": 3, "diversity": 0.5, "collapse": 0.99, "centred": True}
    assert ids(ask(url, **page)) == index.search(**page).to_arrow()["item_id"].to_pylist()
    assert ids(ask(url, vector=vector.tolist())) == index.search(vector=vector).to_arrow()["item_id"].to_pylist()


def test_a_file_finds_itself_and_adds_up_with_words(url: str, index: Index, db: Path) -> None:
    for modality, name in (("image", "2.png"), ("audio", "2.wav"), ("imu", "2.npy")):
        hit = ask_by_files(url, {modality: (db / "media" / name).read_bytes()}, k=1).json()["hits"][0]
        assert hit["uri"].endswith(name) and hit["similarity"] == pytest.approx(1, abs=1e-5)
    image, audio = db / "media" / "0.png", db / "media" / "1.wav"
    weights = {"text": -0.5, "image": 2.0}
    expected = index.search("sea", image=image, audio=audio, weights=weights, modality=["audio", "text"], k=6)
    files = {"image": image.read_bytes(), "audio": audio.read_bytes()}
    found = ask_by_files(url, files, text="sea", weights=json.dumps(weights), modality=["audio", "text"], k=6)
    assert ids(found) == expected.to_arrow()["item_id"].to_pylist()


def test_hits_hold_the_tables_columns_and_previews_if_wanted(url: str, index: Index) -> None:
    hit = ask(url, text="dog", modality=["image"], k=1).json()["hits"][0]
    assert set(hit) == {"similarity", "score", *index.columns} - {"vector", "preview"}
    assert hit["duration_s"] is None and hit["embedded_at"].startswith("2026-01-01T00:00:00")
    (hit,) = ask(url, text="dog", modality=["image"], k=1, previews=True).json()["hits"]
    assert hit["preview"].startswith("data:image/jpeg;base64,") and "vector" not in hit


def test_a_string_is_never_opened_as_a_path_or_url(url: str, index: Index, db: Path) -> None:
    path = str(db / "media" / "0.png")
    assert ids(ask(url, text=path)) == index.search(path).to_arrow()["item_id"].to_pylist()
    for name in (path, "/etc/passwd", "http://127.0.0.1:9/a.png", "s3://bucket/a.png"):
        answer = requests.post(f"{url}/search/files", files={"image": (None, name)}, timeout=60)
        assert answer.status_code == 422 and "image" in answer.json()["error"]["message"]
        assert ask_by_files(url, {"image": (name, b"not a picture")}).status_code == 422


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({}, 400, "nothing to search for"),
        ({"text": "dog", "where": "nosuch = 1"}, 400, "the columns are"),
        ({"text": "dog", "where": "true) OR (true"}, 400, "parentheses"),
        ({"text": "dog", "modality": ["smell"]}, 400, "this space has"),
        ({"text": "dog", "hybrid": True}, 400, "needs a full-text index"),
        ({"item_id": "x"}, 400, "media.lance has no item"),
        ({"vector": [1.0]}, 400, "shape"),
        ({"text": "dog", "weights": {"image": 1}}, 400, "weights names"),
        ({"text": "dog", "k": 0}, 422, "k: "),
        ({"text": "dog", "k": 10**9}, 422, "k: "),
        ({"text": "dog" * 10_000}, 422, "text: "),
        ({"text": "\ud800"}, 422, "text: "),
        ({"texts": "dog"}, 422, "texts: "),
        ({"text": ["dog"]}, 422, "text: "),
        ({"vector": [float("nan")] * 128}, 422, "vector."),
        ({"text": "dog", "vector": "0"}, 422, "vector: "),
    ],
)
def test_a_bad_query_is_told_what_is_wrong_with_it(url: str, db: Path, query: Any, status: int, message: str) -> None:
    answer = requests.post(f"{url}/search", data=json.dumps(query), headers={"Content-Type": "application/json"}, timeout=60)
    assert answer.status_code == status and message in answer.json()["error"]["message"]
    assert str(db) not in answer.text and "Traceback" not in answer.text


def test_a_body_that_is_no_json_is_refused(url: str) -> None:
    for body in (b"", b"{", b"[" * 100_000, b"\xff\xfe"):
        answer = requests.post(f"{url}/search", data=body, headers={"Content-Type": "application/json"}, timeout=60)
        assert answer.status_code in (400, 422) and answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("media", "message"), [(b"", "empty"), (b"no picture at all", "picture"), (b"\x89PNG\r\n\x1a\n", "picture")]
)
def test_a_bad_file_is_told_what_is_wrong_with_it(url: str, media: bytes, message: str) -> None:
    answer = ask_by_files(url, {"image": ("a.png", media)})
    assert answer.status_code == 422 and message in answer.json()["error"]["message"]


def test_a_file_that_kills_its_decoder_costs_itself(url: str, db: Path) -> None:
    answer = ask_by_files(url, {"hostile": b"abort"})
    assert answer.status_code == 422 and "the decoder died" in answer.json()["error"]["message"]
    assert ask_by_files(url, {"image": (db / "media" / "0.png").read_bytes()}, k=1).status_code == 200


def test_a_bug_is_not_told_to_strangers(url: str) -> None:
    answer = ask_by_files(url, {"hostile": b"bug"})
    assert answer.status_code == 500
    assert answer.json() == {"error": {"type": "InternalError", "message": "a fault of the service; its log says more"}}


def test_an_upload_without_a_length_is_cut_off_at_the_limit(url: str) -> None:
    endless = (bytes(100_000) for _ in range(1000))
    try:
        answer = requests.post(f"{url}/search", data=endless, headers={"Content-Type": "application/json"}, timeout=60)
    except requests.ConnectionError:  # it hung up while we were still sending
        return
    assert answer.status_code == 413 and answer.json()["error"]["type"] == "TooLargeError"


def test_health_metrics_and_openapi_are_there(url: str) -> None:
    assert requests.get(f"{url}/healthz", timeout=60).json() == {"status": "ok"}
    assert "bindery_http_requests_total" in requests.get(f"{url}/metrics", timeout=60).text
    paths = requests.get(f"{url}/openapi.json", timeout=60).json()["paths"]
    assert set(paths) == {"/search", "/search/files", "/healthz", "/metrics"}


def fuzz(url: str, examples: int) -> None:
    """Requests made from the service's own schema, half of them against it: no answer is a fault, each keeps to the schema."""
    operations = [found.ok() for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations()]
    assert len(operations) == 4
    for operation, mode in itertools.product(operations, (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)):
        if mode is GenerationMode.POSITIVE or operation.body:

            @settings(
                max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def answers(case: schemathesis.Case) -> None:
                case.call_and_validate(excluded_checks=EXCLUDED, timeout=60)

            answers()


def test_whatever_is_sent_the_answer_keeps_to_the_schema(url: str) -> None:
    fuzz(url, 6)


@pytest.mark.slow
def test_much_is_sent_and_every_answer_keeps_to_the_schema(url: str) -> None:
    fuzz(url, 300)
