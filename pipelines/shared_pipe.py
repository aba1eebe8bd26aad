"""Arrays from a child to its owner through memory that both see. In: Python objects. Out: equal ones.

Through a socket the bytes of an array are copied four times, piece by piece. Here the child copies them into one of a few areas
of an anonymous file (memfd_create(2)) and the owner out of it; only what is left of a pickle whose arrays were taken out of it
(protocol 5, PEP 574) goes through the socket. An eventfd(2) counts the areas that are free: the child waits while none is.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
from collections.abc import Iterator, Sequence
from itertools import accumulate, cycle
from multiprocessing.connection import Connection
from typing import Any

_AREAS = 4
_AREA_BYTES = 1 << 32  # of addresses: memory is taken as it is written to
_ALIGNED = 64  # bytes, as processors fetch them


class OwnerEnd:
    """The end of the process that starts the child, whose file descriptors `fds` are. One thread at a time may receive."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._socket = Connection(ours.detach())
        memory = os.memfd_create("arrays")
        os.ftruncate(memory, _AREAS * _AREA_BYTES)
        self._areas = _areas(memory)
        self._free = os.eventfd(_AREAS, os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        self.fds = (theirs.detach(), memory, self._free)

    def inherited(self) -> None:
        """The child has its file descriptors: those that the owner does not need are closed, so that the child's end shows."""
        for fd in self.fds[:2]:
            os.close(fd)

    def send(self, message: Any) -> None:
        """Any object, to `ChildEnd.receive`."""
        self._socket.send(message)

    def poll(self, timeout_s: float) -> bool:
        """Whether there is something to receive, or the child has ended, within so many seconds."""
        return self._socket.poll(timeout_s)

    def receive(self) -> Any:
        """What the child sent next.

        Raises:
            EOFError, OSError: the child has ended.
        """
        sizes, message = self._socket.recv()
        if not sizes:
            return pickle.loads(message)  # noqa: S301 - of a child of ours
        area = next(self._areas)
        arrays = [bytearray(area[place]) for place in _places(sizes)]  # copies: the area is written to again
        os.eventfd_write(self._free, 1)
        return pickle.loads(message, buffers=arrays)  # noqa: S301

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._socket.closed

    def close(self) -> None:
        """Let go of it; what the child sends then fails."""
        if not self.closed:
            self._socket.close()
            os.close(self._free)


class ChildEnd:
    """The child's end, of the file descriptors that it has inherited. A context, which closes it."""

    def __init__(self, fds: Sequence[int]) -> None:
        end, memory, self._free = fds
        self._socket = Connection(end)
        self._areas = _areas(memory)

    def __enter__(self) -> ChildEnd:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def receive(self) -> Any:
        """What the owner sent next.

        Raises:
            EOFError: it has closed its end.
        """
        return self._socket.recv()

    def send(self, message: Any) -> None:
        """Any object; waits while the owner has not received what was sent before.

        Raises:
            BrokenPipeError: it has closed its end.
        """
        taken_out: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(message, protocol=5, buffer_callback=taken_out.append)
        arrays = [one.raw() for one in taken_out]
        sizes = [array.nbytes for array in arrays]
        if arrays:
            os.eventfd_read(self._free)
            area = next(self._areas)
            for array, place in zip(arrays, _places(sizes), strict=True):
                area[place] = array
        self._socket.send((sizes, pickled))


def _areas(memory: int) -> Iterator[memoryview]:
    """The areas in turn, without end: both ends go through them in the same order."""
    whole = memoryview(mmap.mmap(memory, _AREAS * _AREA_BYTES))
    return cycle([whole[k * _AREA_BYTES : (k + 1) * _AREA_BYTES] for k in range(_AREAS)])


def _places(sizes: Sequence[int]) -> list[slice]:
    """Where arrays of these sizes in bytes lie in an area."""
    starts = accumulate((-(-size // _ALIGNED) * _ALIGNED for size in sizes), initial=0)
    return [slice(start, start + size) for start, size in zip(starts, sizes, strict=False)]
