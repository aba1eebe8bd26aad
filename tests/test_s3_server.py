"""The S3 server of the tests keeps the promise that commits stand on: of all who put the same absent key, one wins."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import fsspec
import pytest

from pipelines.lease import put_if_absent

WRITERS = 8
ROUNDS = 5


def test_a_second_put_if_absent_is_refused_and_changes_nothing(s3: str) -> None:
    store = fsspec.filesystem("s3")
    assert put_if_absent(store, f"{s3}/key", b"first")
    assert not put_if_absent(store, f"{s3}/key", b"second")
    assert store.cat_file(f"{s3}/key") == b"first"


def test_of_many_simultaneous_puts_if_absent_one_wins(s3: str) -> None:
    barrier = Barrier(WRITERS, timeout=60)

    def wins(writer: int) -> list[bool]:
        store = fsspec.filesystem("s3", skip_instance_cache=True)  # a connection of its own, as another process has
        won = []
        for key in range(ROUNDS):
            barrier.wait()
            won.append(put_if_absent(store, f"{s3}/{key}", str(writer).encode()))
        return won

    with ThreadPoolExecutor(WRITERS) as threads:
        won = list(threads.map(wins, range(WRITERS)))
    for key in range(ROUNDS):
        winners = [writer for writer in range(WRITERS) if won[writer][key]]
        assert len(winners) == 1
        assert fsspec.filesystem("s3").cat_file(f"{s3}/{key}") == str(winners[0]).encode()


def test_a_wrong_secret_is_refused(s3: str) -> None:
    store = fsspec.filesystem("s3", key="testkey123", secret="not the secret")
    with pytest.raises(PermissionError):
        store.pipe_file(f"{s3}/key", b"never")
