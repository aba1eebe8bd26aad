"""One writer a table: a lease of put-if-absent objects beside it. In: a table's folder. Out: an epoch, or a refusal.

A holder owns the highest epoch. Epoch and renewals are new objects (`epoch-N/renewal-M`), each put only if absent, because
compare-and-swap is not reliable on every S3. Ages are read off the store's own clock, so clocks of writers may differ. The
lease alone cannot stop a writer that was paused past its end: commits are fenced besides (pipelines/ledger.py).
"""

from __future__ import annotations

import errno
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pipelines.holder import Process
from pipelines.log import say
from pipelines.storage import INFRASTRUCTURE_ERRORS, filesystem

TIME_TO_LIVE_S = 60.0
RENEW_EVERY_S = 15.0
STORE_TICK_S = 1.0  # what stores tell times to
ASK_AGAIN_S = 2.0  # while another writer is waited for


class LeaseHeldError(OSError):
    """Another writer holds the table; run the same command again when it is done."""


class LeaseLostError(OSError):
    """The lease ran out and another writer took it; nothing more may be committed by this one."""


class UnsafeStoreError(ValueError):
    """The store overwrites what must not be overwritten: Lance would lose commits on it."""


def put_if_absent(fs: Any, path: str, data: bytes) -> bool:
    """Write an object unless there is one of that name; True if it was written, or holds these very bytes already.

    The latter is what a lost answer leaves: the store's client tries again and is refused by its own first try. So different
    writers must not write the same bytes.
    """
    try:
        with fs.open(path, "xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    except OSError as error:  # s3fs has no word of its own for HTTP 412, nor for 409 (two conditional puts at once)
        answer = getattr(error.__cause__, "response", {}).get("Error", {})
        if answer.get("Code") in ("PreconditionFailed", "ConditionalRequestConflict"):
            return bool(fs.cat_file(path) == data)
        raise
    return True


class Lease:
    """The right to write one table, renewed in the background while it is held; a context manager.

    With `only_writer` the caller vouches that nobody else writes, so that a store without conditional writes will do.

    Raises, when entered:
        LeaseHeldError: another writer's lease has not run out.
        UnsafeStoreError: the store does not honour conditional writes.
    """

    def __init__(
        self,
        db: str,
        table: str,
        run_id: str,
        ttl_s: float = TIME_TO_LIVE_S,
        renew_s: float = RENEW_EVERY_S,
        only_writer: bool = False,
    ) -> None:
        self._fs, root = filesystem(db)
        self._folder = f"{root.rstrip('/')}/_bindery/{table}"
        self._table = table
        self._run_id = run_id
        self._ttl_s = ttl_s
        self._renew_s = renew_s
        self._only_writer = only_writer
        self._epoch = 0
        self._renewal = 0
        self._renewed = 0.0  # our monotonic clock's time before the last renewal
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._renewer: threading.Thread | None = None
        self._ahead_s = 0.0  # of the store's clock to ours
        self.took_over = False  # the last holder did not give its lease back: its commits must be fenced off, see `fenced`

    def __enter__(self) -> Lease:
        before = time.time()
        now = self._probe()
        self._ahead_s = _ahead(now, before, time.time())
        epoch = self._newest_epoch()
        if epoch:
            self.took_over = not self._released(epoch)
            if self.took_over:
                self._refuse_if_alive(epoch, now)
        self._renewed = time.monotonic()
        if not put_if_absent(self._fs, self._path(epoch + 1, 0), self._document()):
            raise LeaseHeldError(f"another writer took table {self._table!r} just now; run the same command again later")
        self._epoch = epoch + 1
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._renewer is not None
        self._renewer.join()
        if not self._lost.is_set() and not self.took_over:  # else the next holder must fence off what this one did not
            put_if_absent(self._fs, f"{self._folder}/epoch-{self._epoch:08d}/released", b"released")
            self._sweep()

    def fenced(self) -> None:
        """Say that no commit of the last holder can come any more."""
        self.took_over = False

    def store_time(self) -> float:
        """What the store's clock says now, seconds since 1970."""
        return time.time() + self._ahead_s

    def left_s(self) -> float:
        """How long others have to leave the table alone, seconds, were it not renewed again; 0 when it is lost."""
        return 0.0 if self._lost.is_set() else max(0.0, self._ttl_s - (time.monotonic() - self._renewed))

    def check(self) -> None:
        """Ask the store whether the lease is still ours.

        Raises:
            LeaseLostError: a higher epoch exists.
        """
        newest = self._newest_epoch()
        if newest > self._epoch or self._lost.is_set():
            self._lost.set()
            raise LeaseLostError(
                f"this run was paused or cut off for more than {self._ttl_s:.0f} s and another writer took table "
                f"{self._table!r}; what was committed stays, run the same command again"
            )

    def _probe(self) -> float:
        """Refuse a store that overwrites; return the store's time, seconds since 1970."""
        path = f"{self._folder}/probe-{uuid.uuid4().hex}"
        try:
            first = put_if_absent(self._fs, path, b"first")
        except FileNotFoundError as error:
            raise ValueError(f"cannot write to {self._folder}: its bucket does not exist; make it, or mend --db") from error
        except OSError as error:
            if not isinstance(error, PermissionError) and error.errno != errno.EROFS:
                raise
            raise ValueError(
                f"no permission to write to {self._folder} ({error}): it is read-only, or these credentials may not write "
                "there or have expired; mend that, or choose another --db"
            ) from error
        second = put_if_absent(self._fs, path, b"second")
        content = self._fs.cat_file(path)
        now = _modified(self._fs, path)
        self._fs.rm_file(path)
        if not self._only_writer and (not first or second or content != b"first"):
            raise UnsafeStoreError(
                f"the store of {self._folder} does not honour conditional writes (a put-if-absent replaced an object): two "
                "writers would lose each other's commits. Use a store that does (AWS S3, Google Cloud Storage, Azure, Ceph, "
                "a local disk). If surely nothing else writes there meanwhile: embed and reindex take --only-writer"
            )
        return now

    def _refuse_if_alive(self, epoch: int, now: float) -> None:
        paths = sorted(p for p in self._list(f"{self._folder}/epoch-{epoch:08d}") if "/renewal-" in p)
        try:
            holder = json.loads(self._fs.cat_file(paths[-1]))
            process = Process(**holder["process"])
            run, dead = holder["run_id"], process.dead()
            who = f"process {process.pid} on {process.host.partition(' ')[0]}"
        except (json.JSONDecodeError, FileNotFoundError, IndexError):  # its writer died between creating and filling it
            run, dead, who = "unknown", False, "a process that died early"
        age_s = now - _modified(self._fs, paths[-1]) if paths else self._ttl_s
        if not dead and age_s < self._ttl_s:
            raise LeaseHeldError(
                f"table {self._table!r} is being written by run {run} ({who}; renewed {age_s:.0f} s ago). Wait for it; if it "
                f"is dead, its lease runs out in {self._ttl_s - age_s:.0f} s: run the same command again then"
            )

    def _renew(self) -> None:
        while not self._stop.wait(self._renew_s):
            try:
                self.check()
                self._renewal += 1
                began = time.monotonic()
                put_if_absent(self._fs, self._path(self._epoch, self._renewal), self._document())
                self._renewed = began
                if self._renewal > 1:
                    self._fs.rm_file(self._path(self._epoch, self._renewal - 2))
            except LeaseLostError:
                return
            except INFRASTRUCTURE_ERRORS:  # the store is away for now: the next round tries again, and commits are fenced
                continue

    def _document(self) -> bytes:
        return json.dumps({"run_id": self._run_id, "process": vars(Process.own())}).encode()

    def _path(self, epoch: int, renewal: int) -> str:
        return f"{self._folder}/epoch-{epoch:08d}/renewal-{renewal:08d}"

    def _list(self, folder: str) -> list[str]:
        self._fs.invalidate_cache()
        try:
            return [str(p) for p in self._fs.ls(folder, detail=False)]
        except FileNotFoundError:
            return []

    def _newest_epoch(self) -> int:
        names = (p.rstrip("/").rpartition("/")[2] for p in self._list(self._folder))
        return max((int(n.removeprefix("epoch-")) for n in names if n.startswith("epoch-")), default=0)

    def _released(self, epoch: int) -> bool:
        return any(p.endswith("/released") for p in self._list(f"{self._folder}/epoch-{epoch:08d}"))

    def _sweep(self) -> None:
        """Forget epochs before this one; theirs can never be the newest again."""
        for path in self._list(self._folder):
            name = path.rstrip("/").rpartition("/")[2]
            if name.startswith("epoch-") and int(name.removeprefix("epoch-")) < self._epoch:
                self._fs.rm(path, recursive=True)


@contextmanager
def held(lease: Lease, wait_s: float) -> Iterator[Lease]:
    """Hold the lease, and wait for another writer to give it back rather than be refused.

    Raises:
        LeaseHeldError: it still holds it after `wait_s` seconds.
    """
    deadline = time.monotonic() + wait_s
    waiting = False
    while True:
        try:
            lease.__enter__()
            break
        except LeaseHeldError as error:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise
            if not waiting:
                say(f"waiting up to {wait_s:.0f} s: {error}", stage="lease")
            waiting = True
            time.sleep(min(ASK_AGAIN_S, left_s))
    try:
        yield lease
    finally:
        lease.__exit__()


def _ahead(store_time: float, before: float, after: float) -> float:
    """By how much the clock of a store, which wrote an object between two moments of ours, is ahead: 0 if they may agree."""
    if store_time > after:
        return store_time - after
    return min(0.0, store_time + STORE_TICK_S - before)


def _modified(fs: Any, path: str) -> float:
    """When the store says it wrote an object, seconds since 1970."""
    when = fs.modified(path)
    return when.timestamp() if isinstance(when, datetime) else float(when)
