"""Arrays from a child to its owner through memory that both see. In: values that JSON knows, and buffers. Out: the same.

Through a socket the bytes of an array are copied four times, piece by piece. Here the child copies them into one of a few areas
of an anonymous file (memfd_create(2)) and the owner out of it; only the values go through the socket, as JSON. In a pipe of
its own lies a byte for each area that is free: the child waits while none does, and finds out when the owner is gone.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate, cycle
from multiprocessing.connection import Connection
from typing import Any

_AREAS = 4
_AREA_BYTES = 1 << 28  # of addresses: memory is taken as it is written to; what is larger goes through the socket
_ALIGNED = 64  # bytes, as processors fetch them
_CLOSE_ON_EXEC = 1  # MFD_CLOEXEC of linux/memfd.h

Buffer = bytes | memoryview  # of bytes


class OwnerEnd:
    """The end of the process that starts the child, whose file descriptors are `fds`. One thread at a time may receive."""

    def __init__(self) -> None:
        memory = _anonymous_file(_AREAS * _AREA_BYTES)
        ours, theirs = socket.socketpair()
        free, freed = os.pipe()
        self._areas = _areas(memory)
        self._socket, self._freed = Connection(ours.detach()), os.fdopen(freed, "wb", buffering=0)
        self._freed.write(bytes(_AREAS))
        self.fds: tuple[int, ...] = (theirs.detach(), memory, free)

    def let_go_of_fds(self) -> None:
        """The child has its own, or never came: only once they are closed here does it show when it ends."""
        for fd in self.fds:
            os.close(fd)
        self.fds = ()

    def send(self, message: Any) -> None:
        """Any object that can be pickled, to `ChildEnd.receive`."""
        self._socket.send(message)

    def poll(self, timeout_s: float) -> bool:
        """Whether there is something to receive, or the child has ended, within so many seconds."""
        return self._socket.poll(timeout_s)

    def receive(self) -> tuple[dict[str, Any], list[bytearray]]:
        """The values and the buffers that the child sent next.

        Raises:
            EOFError, OSError: the child has ended.
        """
        message = json.loads(self._socket.recv_bytes())
        if not message["shared"]:
            return message["values"], [bytearray(self._socket.recv_bytes()) for _ in message["sizes"]]
        area = next(self._areas)
        buffers = [bytearray(area[place]) for place in _places(message["sizes"])]  # copies: the area is written to again
        with suppress(BrokenPipeError, ValueError):  # the child has ended, or the owner has closed it meanwhile
            self._freed.write(b"\0")
        return message["values"], buffers

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._socket.closed

    def close(self) -> None:
        """Let go of it; what the child sends then fails."""
        self._socket.close()
        self._freed.close()


class ChildEnd:
    """The child's end, of the file descriptors that it has inherited. A context, which closes it."""

    def __init__(self, fds: Sequence[int]) -> None:
        end, memory, free = fds
        self._socket, self._free = Connection(end), os.fdopen(free, "rb", buffering=0)
        self._areas = _areas(memory)
        os.close(memory)

    def __enter__(self) -> ChildEnd:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._free.close()

    def receive(self) -> Any:
        """What the owner sent next.

        Raises:
            EOFError: it has closed its end.
        """
        return self._socket.recv()

    def send(self, values: Mapping[str, Any], buffers: Sequence[Buffer] = ()) -> None:
        """Values that JSON knows, and buffers; waits while the owner has not received what was sent before.

        Raises:
            BrokenPipeError: it has closed its end.
        """
        sizes = [len(buffer) for buffer in buffers]
        shared = 0 < sum(sizes) <= _AREA_BYTES - len(sizes) * _ALIGNED
        message = json.dumps({"values": values, "sizes": sizes, "shared": shared}, default=_plain).encode()
        if shared:
            if not self._free.read(1):
                raise BrokenPipeError("the owner has closed its end")
            area = next(self._areas)
            for buffer, place in zip(buffers, _places(sizes), strict=True):
                area[place] = buffer
        self._socket.send_bytes(message)
        if not shared:
            for buffer in buffers:
                self._socket.send_bytes(buffer)


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's; what else JSON does not know as text."""
    return getattr(value, "item", lambda: str(value))()


def _anonymous_file(size_bytes: int) -> int:
    """A file of memory, by the C library itself: `os.memfd_create` is missing from Pythons that were built with older ones.

    Raises:
        OSError: the system has none.
    """
    fd: int = ctypes.CDLL(None, use_errno=True).memfd_create(b"arrays", _CLOSE_ON_EXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "memfd_create: no memory to share with a decoding child")
    os.ftruncate(fd, size_bytes)
    return fd


def _areas(memory: int) -> Iterator[memoryview]:
    """The areas in turn, without end: both ends go through them in the same order."""
    whole = memoryview(mmap.mmap(memory, _AREAS * _AREA_BYTES))
    return cycle([whole[k * _AREA_BYTES : (k + 1) * _AREA_BYTES] for k in range(_AREAS)])


def _places(sizes: Sequence[int]) -> list[slice]:
    """Where buffers of these sizes in bytes lie in an area."""
    starts = accumulate((-(-size // _ALIGNED) * _ALIGNED for size in sizes), initial=0)
    return [slice(start, start + size) for start, size in zip(starts, sizes, strict=False)]
