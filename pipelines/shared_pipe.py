"""Arrays from a child to its owner through memory that both see. In: values that JSON knows, and buffers. Out: the same.

Through a socket the bytes of an array are copied four times, piece by piece. Here the child copies them into an anonymous file
(memfd_create(2)), round and round, and the owner out of it; only the values go through the socket, as JSON. For each message
that the owner has taken it puts a byte into a pipe: the child waits there while it has no room, and finds out when the owner
is gone. So a child works ahead of its owner by what memory and socket hold, and no thread of the owner's has to wait for it.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import select
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from multiprocessing.connection import Connection
from typing import Any

ROOM_BYTES = 1 << 26  # of addresses for messages that the owner has not taken; one that is larger goes through the socket
_MESSAGES = 1024  # that the owner has not taken: a pipe holds more bytes than that
_ALIGNED = 64  # bytes, as processors fetch them
_CLOSE_ON_EXEC = 1  # MFD_CLOEXEC of linux/memfd.h

Buffer = bytes | memoryview  # of bytes


class OwnerEnd:
    """The end of the process that starts the child, whose file descriptors are `fds`. One thread at a time may receive."""

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        memory = _anonymous_file(room_bytes)
        ours, theirs = socket.socketpair()
        free, freed = os.pipe()
        self._memory = memoryview(mmap.mmap(memory, room_bytes))
        self._socket, self._freed = Connection(ours.detach()), os.fdopen(freed, "wb", buffering=0)
        self._answers = select.poll()
        self._answers.register(self._socket.fileno(), select.POLLIN)
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
        self._socket.fileno()  # raises OSError once it is closed: its number may be another file's by now
        return bool(self._answers.poll(timeout_s * 1000))

    def receive(self) -> tuple[dict[str, Any], list[bytearray]]:
        """The values and the buffers that the child sent next.

        Raises:
            EOFError, OSError: the child has ended.
            ValueError, TypeError, KeyError: this is no message.
        """
        message = json.loads(self._socket.recv_bytes())
        if message["at"] is None:
            return message["values"], [bytearray(self._socket.recv_bytes()) for _ in message["sizes"]]
        places = _places(message["at"], message["sizes"])
        if message["at"] < 0 or min(message["sizes"]) < 0 or places[-1].stop > len(self._memory):
            raise ValueError(f"no {message['sizes']} bytes lie at {message['at']}")
        buffers = [bytearray(self._memory[place]) for place in places]  # copies: the memory is written to again
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
        end, memory, self._freed = fds
        self._socket = Connection(end)
        room_bytes = os.fstat(memory).st_size
        self._memory, self._room = memoryview(mmap.mmap(memory, room_bytes)), _Room(room_bytes)
        os.close(memory)
        self._news = select.poll()
        self._news.register(self._freed, select.POLLIN)

    def __enter__(self) -> ChildEnd:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        os.close(self._freed)

    def receive(self) -> Any:
        """What the owner sent next.

        Raises:
            EOFError: it has closed its end.
        """
        return self._socket.recv()

    def send(self, values: Mapping[str, Any], buffers: Sequence[Buffer] = ()) -> None:
        """Values that JSON knows, and buffers; waits while there is no room for them.

        Raises:
            BrokenPipeError: it has closed its end.
        """
        sizes = [len(buffer) for buffer in buffers]
        at = self._found(sum(map(_aligned, sizes)))
        if at is not None:
            for buffer, place in zip(buffers, _places(at, sizes), strict=True):
                self._memory[place] = buffer
        self._socket.send_bytes(json.dumps({"values": values, "sizes": sizes, "at": at}, default=_plain).encode())
        if at is None:
            for buffer in buffers:
                self._socket.send_bytes(buffer)

    def _found(self, size: int) -> int | None:
        """Where so many bytes may be written, once there is room; None if there is never any, or nothing to write."""
        if not 0 < size <= self._room.size:
            return None
        self._free(0)  # what the owner has taken is written to again before what never was
        while (at := self._room.take(size)) is None:
            self._free(None)
        return at

    def _free(self, timeout_ms: int | None) -> None:
        """Free what the owner has taken since it was last asked; None waits until it has taken something."""
        if self._news.poll(timeout_ms):
            taken = len(os.read(self._freed, _MESSAGES))
            if not taken:
                raise BrokenPipeError("the owner has closed its end")
            self._room.free(taken)


class _Room:
    """What of so many bytes is free: taken from the start to the end, then from the start again, and freed in that order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._taken: deque[tuple[int, int]] = deque()  # starts and ends

    def take(self, size: int) -> int | None:
        """Where so many bytes in one piece are now taken; None if there are none."""
        at = self._free_at(size) if len(self._taken) < _MESSAGES else None
        if at is not None:
            self._taken.append((at, at + size))
        return at

    def _free_at(self, size: int) -> int | None:
        if not self._taken:
            return 0
        first, last = self._taken[0][0], self._taken[-1][1]
        if last <= first:  # it has begun from the start again
            return last if last + size <= first else None
        if size <= first and (last - first <= first or last + size > self.size):
            return 0  # as soon as more is free there than is taken: memory that is never written to is none
        return last if last + size <= self.size else None

    def free(self, count: int) -> None:
        """Free the oldest of what is taken."""
        for _ in range(count):
            self._taken.popleft()


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


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _places(at: int, sizes: Sequence[int]) -> list[slice]:
    """Where in the memory the buffers of a message lie, which begin at `at` and have these sizes in bytes."""
    starts = accumulate(map(_aligned, sizes), initial=at)
    return [slice(start, start + size) for start, size in zip(starts, sizes, strict=False)]
