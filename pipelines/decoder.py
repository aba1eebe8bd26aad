"""Decoding that cannot take its caller with it. In: sources. Out: features and facts of their segments, or rejects, in order.

The work is done in a spawned child (pipelines/decoder_child.py), which reads and decodes ahead while the caller's tower runs.
An item on which it dies, or stays silent past the deadline, becomes a reject; the rest go to a new child.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.reach import PUBLIC, Reach
from pipelines.replies import Reject, Reply, unpack
from pipelines.shared_pipe import OwnerEnd

ITEM_TIMEOUT_S = 120.0
LONGEST_ITEM_S = 86_400.0  # a day; beyond some weeks no clock can wait
START_TIMEOUT_S = 180.0
KILLED = "DecoderKilled"
READY = {"kind": "ready"}  # what a child says first
MEMORY_BYTES = 4 * 1024**3  # beyond what the child holds at its start
_NONSENSE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, MemoryError)  # of any JSON at all


@dataclass(frozen=True)
class Source:
    """One source to decode: its bytes inline, or where to read them (a whole object, or a range of a tar shard)."""

    modality: str
    uri: str
    location: str
    size_bytes: int | None
    offset: int | None
    media: bytes | None
    cut: str = "whole"  # how it is cut into segments (pipelines/segments.py)
    part: int | None = None  # of the work on a long source; None: all of it
    probe: bool = False  # only ask how many parts there are


class DecoderError(OSError):
    """The decoding process cannot start, or a child of it died without an item to blame."""


class Decoder:
    """A space's decoding child, replaced when it dies."""

    def __init__(self, space: str, item_timeout_s: float = ITEM_TIMEOUT_S, reach: Reach = PUBLIC) -> None:
        self._arguments = [space, str(MEMORY_BYTES), str(item_timeout_s), reach.to_json()]
        self._item_timeout_s = item_timeout_s
        self._start()

    def decode(self, sources: Sequence[Source]) -> Iterator[Reply]:
        """The results of each source, in order, the final one marked `last`; later sources are decoded meanwhile.

        Who does not read it to its end closes it: what the child still has to say is no answer to the next call.
        """
        pending = list(sources)
        excused: Source | None = None  # it was being decoded when somebody killed the child, and is tried once more
        try:
            while pending:
                self._send(pending)
                done, begun = 0, False
                while done < len(pending):
                    reply = self._reply()
                    died = self._pipe.closed  # not before all that the child has sent is read: it died on what comes next
                    if died:
                        self._restart()
                        if (
                            isinstance(reply, Reject)
                            and reply.error_type == KILLED
                            and not begun
                            and excused is not pending[done]
                        ):
                            excused = pending[done]
                            break
                    done, begun = done + reply.last, not reply.last
                    yield reply
                    if died:
                        break
                pending = pending[done:]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the child."""
        self._pipe.close()
        self._child.kill()
        self._child.wait()

    def _reply(self) -> Reply:
        try:
            if self._pipe.poll(self._item_timeout_s):
                return unpack(*self._pipe.receive())
        except (EOFError, OSError):  # OSError: it died in the middle of an answer
            self._pipe.close()
            return self._death()
        except _NONSENSE as error:  # something of a stranger's may have got hold of it
            self.close()
            return Reject("decode", "DecoderCrash", f"the decoder's answer makes no sense ({error!r:.200}); it was ended", True)
        self.close()
        return Reject("decode", "DecoderTimeout", f"no result within {self._item_timeout_s:.0f} s; the decoder was ended", True)

    def _death(self) -> Reject:
        """How the child ended; by SIGKILL or SIGTERM, not by itself."""
        try:
            code = self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            code = 0
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            why = "somebody killed the decoder while it worked on this item; the item may need too much memory"
            return Reject("decode", KILLED, f"{why}; --retry-rejects tries it again", True)
        how = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        return Reject("decode", "DecoderCrash", f"the decoder died on this item ({how}); the file is likely damaged", True)

    def _send(self, sources: list[Source]) -> None:
        """Hand sources to the child; one that died while it started, or was idle, is replaced first."""
        try:
            self._await_ready()
            self._pipe.send(sources)
        except OSError:
            self._restart()
            self._await_ready()
            self._pipe.send(sources)

    def _start(self) -> None:
        pipe = OwnerEnd()
        fds = ",".join(map(str, pipe.fds))
        command = [sys.executable, "-m", "pipelines.decoder_child", fds, *self._arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
        try:
            self._child = subprocess.Popen(command, pass_fds=pipe.fds, env=environment, stdin=subprocess.DEVNULL)
        finally:
            pipe.let_go_of_fds()
        self._pipe, self._ready = pipe, False

    def _await_ready(self) -> None:
        if self._ready:
            return
        try:
            if self._pipe.poll(START_TIMEOUT_S) and self._pipe.receive()[0] == READY:
                self._ready = True
                return
        except EOFError:
            pass
        self.close()
        raise DecoderError(f"the decoding process did not start ({' '.join(self._arguments)}); its last words are above")

    def _restart(self) -> None:
        if not self._pipe.closed:
            self.close()
        self._start()
