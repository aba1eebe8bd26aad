"""The policies of infra/aws/iam allow what the jobs ask of the store, and nothing that they do not ask."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from PIL import Image
from proxy import FINE, Proxy

from encoders import load_space
from pipelines.storage import filesystem

ROOT = Path(__file__).parents[2]
IAM = ROOT / "infra" / "aws" / "iam"
PART = {"uploads", "uploadId", "partNumber"}
# Nobody asks for these in this test, but what asks for them is real: a write that breaks off, and a resumed one.
UNASKED = {"s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}


class Asked(NamedTuple):
    """One request as IAM sees it."""

    action: str
    arn: str
    prefix: str


def as_iam(method: str, path: str) -> Asked:
    """The action and resource of a request in path style."""
    parts = urlsplit(path)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    if not key:
        action = {"GET": "ListBucket", "HEAD": "ListBucket", "POST": "DeleteObject"}[method]
        if "versioning" in query:
            action = "GetBucketVersioning"
        if action != "DeleteObject":
            return Asked(f"s3:{action}", f"arn:aws:s3:::{bucket}", query.get("prefix", [""])[0])
        return Asked("s3:DeleteObject", f"arn:aws:s3:::{bucket}/index/*", "")  # POST ?delete: the keys are in its body
    action = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "POST": "PutObject", "DELETE": "DeleteObject"}[
        method
    ]
    if method == "DELETE" and "uploadId" in query:
        action = "AbortMultipartUpload"
    return Asked(f"s3:{action}", f"arn:aws:s3:::{bucket}/{key}", "")


class Recorder:
    """A rule of the proxy: nothing is spoilt, everything is written down."""

    def __init__(self) -> None:
        self.asked: set[Asked] = set()

    def __call__(self, method: str, path: str) -> str:
        self.asked.add(as_iam(method, path))
        return FINE


def statements(name: str, bucket: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((IAM / name).read_text().replace("BUCKET", bucket))["Statement"]
    return found


def allows(statement: dict[str, Any], asked: Asked) -> bool:
    """Whether a statement allows a request, as IAM evaluates these simple ones."""
    prefixes = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix", ["*"])
    return (
        asked.action in statement["Action"]
        and any(fnmatchcase(asked.arn, resource) for resource in statement["Resource"])
        and any(fnmatchcase(asked.prefix, prefix) for prefix in prefixes)
    )


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def watched(s3: str) -> Iterator[tuple[Recorder, str]]:
    """A recorder of all requests to the store, and the bucket with media and a space in it."""
    space = load_space("demo")
    store, path = filesystem(s3)
    store.pipe({f"{path}/media/image/{k}.png": picture(k) for k in range(4)})
    store.pipe({f"{path}/media/text/{k}.txt": b"a dog in the rain" for k in range(4)})
    space.save(f"{s3}/spaces/demo")
    recorder = Recorder()
    with Proxy(os.environ["AWS_ENDPOINT_URL"], recorder) as proxy, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield recorder, s3


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_jobs_ask_for_no_more_than_the_policies_allow(watched: tuple[Recorder, str]) -> None:
    recorder, s3 = watched
    db = ["--db", f"{s3}/index"]
    said = run("jobs.embed", f"{s3}/media", *db, "--space", f"{s3}/spaces/demo", "--segment", "whole")
    said += run("jobs.optimize", *db, "--keep-versions-for", "0s", "--keep-orphans-for", "0s")
    said += run("jobs.delete", *db, "--where", "modality = 'text'", "--purge")
    written = frozenset(recorder.asked)
    recorder.asked.clear()
    said += run("jobs.search", "a dog in the rain", *db, "--k", "3")
    read = frozenset(recorder.asked)
    missing, useless = {}, {}
    for name, asked in (("writer.json", written), ("reader.json", read)):
        own = statements(name, s3.removeprefix("s3://"))
        missing[name] = sorted(one for one in asked if not any(allows(statement, one) for statement in own))
        useless[name] = {a for statement in own for a in statement["Action"]} - {one.action for one in asked} - UNASKED
    assert missing == {"writer.json": [], "reader.json": []}
    assert useless == {"writer.json": set(), "reader.json": set()}
    assert not any(one.action in ("s3:PutObject", "s3:DeleteObject") for one in read)
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    store, path = filesystem(s3)
    assert secret not in said
    assert [name for name in store.find(path) if secret.encode() in store.cat_file(name)] == []


def test_a_policy_refuses_what_it_does_not_name() -> None:
    reader, writer = statements("reader.json", "b"), statements("writer.json", "b")
    for forbidden in (
        as_iam("PUT", "/b/index/media.lance/data/x.lance"),
        as_iam("DELETE", "/b/index/media.lance/_versions/1.manifest"),
        as_iam("GET", "/b/media/private.jpg"),
        as_iam("GET", "/b?list-type=2&prefix=media%2F"),
        as_iam("GET", "/other/index/x"),
    ):
        assert not any(allows(statement, forbidden) for statement in reader)
    for forbidden in (
        as_iam("PUT", "/b/media/a.jpg"),
        as_iam("DELETE", "/b/spaces/demo/space.json"),
        as_iam("PUT", "/c/index/x"),
    ):
        assert not any(allows(statement, forbidden) for statement in writer)
