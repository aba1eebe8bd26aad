"""A store that answers badly, or not at all: what was applied counts, and nothing is said of the store that is not true."""

import os
from collections.abc import Iterator

import fsspec
import lance
import pyarrow as pa
import pytest
from proxy import DROP, E503, HALF_ANSWER, HALF_REQUEST, LATE_500, Ambush, Proxy

from pipelines.lease import Lease, LeaseHeldError
from pipelines.ledger import Ledger
from pipelines.storage import lance_options
from pipelines.table import create_table

SCHEMA = pa.schema([pa.field("item_id", pa.string()), pa.field("source_id", pa.string())])


@pytest.fixture
def proxy(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Between this process and the real server."""
    with Proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        fsspec.filesystem("s3").clear_instance_cache()
        yield proxy
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("kind", [DROP, LATE_500, E503])
def test_a_lease_is_taken_though_an_answer_is_lost(s3: str, proxy: Proxy, kind: str, nth: int) -> None:
    proxy.rule = Ambush(kind, "PUT", "_bindery", (nth,))  # the probe's first put, its second, the lease itself

    with Lease(f"{s3}/db", "media", "run-1"):
        assert proxy.spoilt == {kind: 1}
        with pytest.raises(LeaseHeldError), Lease(f"{s3}/db", "media", "run-2"):
            pass


@pytest.mark.parametrize("kind", [DROP, LATE_500, E503, HALF_ANSWER, HALF_REQUEST])
def test_a_commit_is_made_once_whatever_happens_to_its_answer(s3: str, proxy: Proxy, kind: str) -> None:
    uri = f"{s3}/db/media.lance"
    create_table(uri, SCHEMA)
    with Lease(f"{s3}/db", "media", "run-1") as lease:
        ledger = Ledger(uri, lease, "run-1")
        for k in range(3):
            rows = pa.table({"item_id": [f"{k:032x}"], "source_id": [f"{k:032x}"]}, schema=SCHEMA)
            fragments = lance.fragment.write_fragments(
                rows, uri, schema=SCHEMA, mode="append", data_storage_version="2.2", storage_options=lance_options(uri)
            )
            proxy.rule = Ambush(kind, "PUT", "media.lance/_versions")
            ledger.commit(fragments, [])

    found = lance.dataset(uri, storage_options=lance_options(uri)).to_table()["item_id"].to_pylist()
    assert sorted(found) == [f"{k:032x}" for k in range(3)]
    assert proxy.spoilt == {kind: 3}
