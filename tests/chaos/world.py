"""A tiny world that every fault happens in. In: a folder. Out: a corpus in two versions, tables of it, what is right about one.

340 sources of three modalities. Between the first version and the second, sources change, come, break and are mended.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest
import soundfile
import victim
from PIL import Image

from pipelines.identity import source_id
from pipelines.storage import filesystem, lance_options

IMAGES, SOUNDS, TEXTS, BROKEN = 180, 60, 100, 6
SEGMENTS = "audio=0.25"  # two items a sound: its rows must come and go together
CHANGED = 3  # every third source changes
NEW_IMAGES = 20
SPOILT, MENDED = ("image/000.jpg", "image/003.jpg"), ("image/broken-0.jpg", "image/broken-1.jpg")
# On a machine that is busy with other tests Ray's workers, which are nice to others by default, would starve, and a node that
# answers late would be given up.
ENVIRONMENT = {
    "RAY_worker_niceness": "0",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}

# Drivers are forked from a process that has only imported the job: it costs as much as all the rest of a small run.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["light", "victim"])

Job = Callable[[dict[str, Any], list[str], dict[str, str], str], None]  # victim.run, or light.run


@dataclass
class State:
    """What a table and its rejects hold."""

    vectors: dict[str, np.ndarray] = field(default_factory=dict)  # by item id
    versions: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    rejects: dict[str, str] = field(default_factory=dict)  # error type by source id


@dataclass(frozen=True)
class Verdict:
    """How a table differs from one that nobody disturbed."""

    lost: int
    twice: int
    wrong: int  # another vector, another version, or an item that should not be there
    rejects_wrong: int

    @property
    def right(self) -> bool:
        """Whether it does not."""
        return not (self.lost or self.twice or self.wrong or self.rejects_wrong)


class World:
    """The corpus in its second version; a table of the first, to be copied; what the table of the second must hold."""

    def __init__(self, folder: Path, environment: dict[str, str], segment: str, job: Job = victim.run) -> None:
        _start_forks()
        self.folder = folder
        self._segment = segment
        self._job = job
        self._environment = environment
        self.corpus = folder / "corpus"
        self._before = folder / "before"
        self._tables = 0
        _write(self.corpus, 1)
        self._undisturbed(self._before)
        _write(self.corpus, 2)
        self._undisturbed(folder / "undisturbed")
        self.expected = state(str(folder / "undisturbed"))
        versions = set(state(str(self._before)).versions.values())
        changed = [item for item, version in self.expected.versions.items() if version not in versions]
        self.sources = len(self.expected.counts) + len(self.expected.rejects)  # rows that come through the towers
        self.changed = len(changed) + len(SPOILT)
        self.may_vanish = {source_id(str(self.corpus / path), "image") for path in SPOILT}

    def new_db(self, changed: bool, bucket: str = "") -> str:
        """An empty database, or with `changed` one that holds the corpus as it was before; in a bucket, or a folder of ours."""
        self._tables += 1
        db = f"{bucket or self.folder}/db-{self._tables}"
        if changed:
            fs, path = filesystem(db)
            if bucket:
                fs.put(f"{self._before}/", f"{path}/", recursive=True)
            else:
                shutil.copytree(self._before, db)
        return db

    def start(self, db: str, fault: dict[str, Any], environment: dict[str, str], *more: str) -> Any:
        """A process that runs the embed job on this corpus, with a fault of victim.py; `fault["log"]` says where it logs."""
        arguments = (
            fault,
            [str(self.corpus), "--db", db, "--segment", self._segment, *more],
            {**os.environ, **ENVIRONMENT, **environment},  # what drivers are forked from may be older than where the store is
            fault["log"] + ".said",
        )
        process = FORKS.Process(target=self._job, args=arguments)
        process.start()
        return process

    def _undisturbed(self, db: Path) -> None:
        log = f"{self.folder}/{db.name}.log"
        process = self.start(str(db), {"log": log}, self._environment)
        process.join()
        if process.exitcode:
            said = Path(log + ".said").read_text()
            raise RuntimeError(f"a run that nobody disturbed ended with {process.exitcode}: {said[-2000:]}")


def _start_forks() -> None:
    """Bring up the process that drivers are forked from; by itself it would not look for our modules where we do."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        forkserver.ensure_running()


def state(db: str) -> State:
    """What the table `media` of a database holds, and its rejects."""
    found = State()
    options = lance_options(db)
    for row in _rows(f"{db}/media.lance", ["item_id", "version", "vector"], options):
        found.counts[row["item_id"]] += 1
        found.versions[row["item_id"]] = row["version"]
        found.vectors[row["item_id"]] = np.array(row["vector"], np.float32)
    found.rejects = {
        r["source_id"]: r["error_type"] for r in _rows(f"{db}/media__rejects.lance", ["source_id", "error_type"], options)
    }
    return found


def compare(found: State, expected: State) -> Verdict:
    """Row by row: each item once, with the version and the vector (to 1e-6) that it should have; each reject for its reason."""
    known = expected.vectors.keys() & found.vectors.keys()
    wrong = sum(
        found.versions[i] != expected.versions[i] or not np.allclose(found.vectors[i], expected.vectors[i], rtol=0, atol=1e-6)
        for i in known
    )
    return Verdict(
        lost=len(expected.vectors.keys() - found.vectors.keys()),
        twice=sum(count - 1 for count in found.counts.values()),
        wrong=wrong + len(found.vectors.keys() - expected.vectors.keys()),
        rejects_wrong=len(found.rejects.items() ^ expected.rejects.items()),
    )


def _rows(uri: str, columns: list[str], options: dict[str, str]) -> list[dict[str, Any]]:
    try:
        return lance.dataset(uri, storage_options=options).to_table(columns=columns).to_pylist()  # type: ignore[no-any-return]
    except ValueError as error:
        if "not found" in str(error).lower():
            return []
        raise


def _write(corpus: Path, version: int) -> None:
    """The corpus as it is in a version; what does not change is not written again, so that it keeps its time."""
    media = {f"image/{k:03}.jpg": _image for k in range(IMAGES)} | {f"audio/{k:03}.wav": _sound for k in range(SOUNDS)}
    media |= {f"text/{k:03}.txt": _text for k in range(TEXTS)}
    if version == 1:
        for k in range(BROKEN):
            _put(corpus / f"image/broken-{k}.jpg", b"\xff\xd8\xff\xe0 is no picture")
        for k, (path, make) in enumerate(media.items()):
            _put(corpus / path, make(k))
        return
    time.sleep(0.05)  # past the grain of a file system's clock
    for k, (path, make) in enumerate(media.items()):
        if k % CHANGED == 0:
            _put(corpus / path, make(k + 1000))
    for k in range(NEW_IMAGES):
        _put(corpus / f"image/new-{k:03}.jpg", _image(k + 2000))
    for k, path in enumerate(MENDED):
        _put(corpus / path, _image(k + 3000))
    for path in SPOILT:
        _put(corpus / path, b"\xff\xd8\xff\xe0 once was a picture")


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _image(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def _sound(seed: int) -> bytes:
    buffer = io.BytesIO()
    wave = 0.1 * np.random.default_rng(seed).normal(size=8000).astype(np.float32)
    soundfile.write(buffer, wave, 16_000, format="WAV")
    return buffer.getvalue()


def _text(seed: int) -> bytes:
    return f"scene number {seed}, seen from afar".encode()
