"""The policies of infra/aws/iam allow what the jobs and the manifests ask of the store, and nothing that they do not ask."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from kustomize import render
from PIL import Image
from proxy import FINE, Proxy

from encoders import load_space
from pipelines.demo_world import scene, write_corpus
from pipelines.storage import filesystem

ROOT = Path(__file__).parents[2]
IAM = ROOT / "infra" / "aws" / "iam"
AWS = ROOT / "infra" / "kuberay" / "overlays" / "aws"
WRITTEN = {"db", "out", "cache", "promote", "report"}  # settings of jobs that name what is written; it is read too
PART = {"uploads", "uploadId", "partNumber"}
# Nobody asks for these in this test, but what asks for them is real: a write that breaks off, and a resumed one.
UNASKED = {"s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}


class Asked(NamedTuple):
    """One request as IAM sees it."""

    action: str
    arn: str
    prefix: str


def as_iam(method: str, path: str, deleted: str = "index") -> Asked:
    """The action and resource of a request in path style; `deleted` is the prefix of what a bulk deletion names in its body."""
    parts = urlsplit(path)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    if not key:
        action = {"GET": "ListBucket", "HEAD": "ListBucket", "POST": "DeleteObject"}[method]
        if "versioning" in query:
            action = "GetBucketVersioning"
        if action != "DeleteObject":
            return Asked(f"s3:{action}", f"arn:aws:s3:::{bucket}", query.get("prefix", [""])[0])
        return Asked("s3:DeleteObject", f"arn:aws:s3:::{bucket}/{deleted}/*", "")  # POST ?delete
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
        self.deleted = "index"

    def __call__(self, method: str, path: str) -> str:
        self.asked.add(as_iam(method, path, self.deleted))
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


def uris(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The s3:// URIs of a parsed config file, each with the setting that names it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from uris(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from uris(inner, name)
    elif isinstance(value, str) and value.startswith("s3://"):
        yield name, value


def uris_of(command: str, configs: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The s3:// URIs of a job's command, and of the config file that it names."""
    words = shlex.split(command)
    for before, word in zip(["", *words], words, strict=False):
        name = before.removeprefix("--") if before.startswith("--") else ""
        yield from uris(word, name)
        if name == "config":
            yield from uris(yaml.safe_load(configs[Path(word).name]))


def needs(setting: str, uri: str) -> Iterator[Asked]:
    """What a job asks at least of a URI that it reads, or writes."""
    place = uri.removeprefix("s3:/")
    bucket, _, key = place.lstrip("/").partition("/")
    thing = place if Path(key).suffix else f"{place}/a"
    yield as_iam("GET", thing)
    yield as_iam("GET", f"/{bucket}?list-type=2&prefix={key}")
    if setting in WRITTEN:
        for method, query in (("PUT", ""), ("POST", "?uploads"), ("DELETE", ""), ("DELETE", "?uploadId=1")):
            yield as_iam(method, thing + query)


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


@pytest.fixture
def pairs(s3: str, tmp_path: Path) -> str:
    """A pairs manifest at the top of the bucket, of pictures and depths below `media`."""
    write_corpus(str(tmp_path / "media"), [scene(1_700_000 + k) for k in range(40)], ["image", "depth"])
    store, path = filesystem(s3)
    store.put(f"{tmp_path}/media/", f"{path}/media/", recursive=True)
    rows = pq.read_table(tmp_path / "media" / "pairs.parquet", columns=["image", "depth"]).to_pylist()
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{name: f"media/{uri}" for name, uri in row.items()} for row in rows]), out)
    store.pipe_file(f"{path}/pairs.parquet", out.getvalue())
    return f"{s3}/pairs.parquet"


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


@pytest.mark.slow
def test_bind_asks_for_no_more_than_its_policy_allows(pairs: str, watched: tuple[Recorder, str]) -> None:
    recorder, s3 = watched
    recorder.deleted = "spaces"
    flags = ["--epochs", "1", "--batch-size", "16", "--held-out", "16", "--min", "depth.image.R@10=0"]
    places = ["--pairs", pairs, "--space", f"{s3}/spaces/demo", "--out", f"{s3}/spaces/bound"]
    assert '"promoted"' in run("jobs.bind", "depth", *places, *flags, "--promote", f"{s3}/spaces/demo")
    own = statements("binder.json", s3.removeprefix("s3://"))
    assert sorted(one for one in recorder.asked if not any(allows(statement, one) for statement in own)) == []
    asked = {one.action for one in recorder.asked}
    assert {action for statement in own for action in statement["Action"]} - asked - UNASKED == set()


def test_the_role_of_every_job_in_the_manifests_allows_what_its_command_names() -> None:
    objects = render(AWS)
    roles = {
        one["metadata"]["name"]: one["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].rpartition("/bindery-")[2]
        for one in objects
        if one["kind"] == "ServiceAccount"
    }
    configs = {name: text for one in objects if one["kind"] == "ConfigMap" for name, text in one["data"].items()}
    jobs = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] in ("RayJob", "RayCronJob")}
    refused, named = [], {}
    for name, spec in jobs.items():
        job = spec.get("jobTemplate", spec)
        cluster = job["rayClusterSpec"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        (account,) = {group["template"]["spec"]["serviceAccountName"] for group in groups}
        named[name] = sorted(setting for setting, _ in uris_of(job["entrypoint"], configs))
        for setting, uri in uris_of(job["entrypoint"], configs):
            own = statements(f"{roles[account]}.json", uri.split("/")[2])
            refused += [(name, one) for one in needs(setting, uri) if not any(allows(statement, one) for statement in own)]
    assert named == {
        "bindery-embed": ["", "db", "space"],
        "bindery-bind": ["out", "pairs", "space"],
        "bindery-reindex": ["corpus", "db", "space"],
    }
    assert refused == []


def test_a_policy_refuses_what_it_does_not_name() -> None:
    reader, writer, binder = (statements(name, "b") for name in ("reader.json", "writer.json", "binder.json"))
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
    for forbidden in (
        as_iam("PUT", "/b/media/a.jpg"),
        as_iam("DELETE", "/b/pairs.parquet"),
        as_iam("PUT", "/b/index/media.lance/data/x.lance"),
        as_iam("GET", "/b/index/media.lance/data/x.lance"),
        as_iam("PUT", "/c/spaces/x"),
    ):
        assert not any(allows(statement, forbidden) for statement in binder)
