"""What a child puts into its pipe comes out equal, in order, however late it is taken, and stays what it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from encoders.media.types import Facts
from pipelines.replies import Decoded, PartCount, Reject, Reply, pack, unpack
from pipelines.shared_pipe import ROOM_BYTES, ChildEnd, OwnerEnd, _Room

ECHO = """
import sys
import numpy as np
import pipelines.shared_pipe

with pipelines.shared_pipe.ChildEnd([int(fd) for fd in sys.argv[1].split(",")]) as end:
    try:
        while True:
            for values, buffers in end.receive():
                end.send(values, buffers)
    except (EOFError, BrokenPipeError):
        pass
"""


@contextmanager
def echo(room_bytes: int = ROOM_BYTES) -> Iterator[tuple[OwnerEnd, subprocess.Popen[bytes]]]:
    """A child that sends back what it is sent, one after the other."""
    pipe = OwnerEnd(room_bytes)
    child = subprocess.Popen([sys.executable, "-c", ECHO, ",".join(map(str, pipe.fds))], pass_fds=pipe.fds)
    pipe.let_go_of_fds()
    yield pipe, child
    pipe.close()
    assert child.wait(20) == 0 or child.returncode == -9, "it ends when its owner closes the pipe"


@pytest.mark.parametrize("sizes", [[], [0], [1], [0, 5, 0], [63, 64, 65], [150_528, 7_000], [0] * 300], ids=str)
def test_buffers_come_out_equal(sizes: list[int]) -> None:
    rng = np.random.default_rng(0)
    sent = [({"k": k, "é": [None, "\ud800", 1e-300]}, [rng.bytes(size) for size in sizes]) for k in range(6)]
    with echo() as (pipe, _):
        pipe.send(sent)
        assert [pipe.receive() for _ in sent] == [(values, [bytearray(one) for one in buffers]) for values, buffers in sent]


def test_what_is_larger_than_the_room_comes_out_equal() -> None:
    sent = [({"k": k}, [bytes([k]) * size, b"end"]) for k, size in enumerate((100, 1 << 12, 4000, 1 << 20, 9, 1 << 20))]
    with echo(1 << 12) as (pipe, _):
        pipe.send(sent)
        assert [pipe.receive() for _ in sent] == [(values, [bytearray(one) for one in buffers]) for values, buffers in sent]


def test_messages_that_are_taken_late_are_not_written_over() -> None:
    sizes = [100_000, 30_000, 250_000, 1, 90_000] * 10
    with echo(1 << 18) as (pipe, _):
        pipe.send([({}, [bytes([k]) * size]) for k, size in enumerate(sizes)])
        time.sleep(1)  # time for a child that does not wait to write over what lies there
        taken = [pipe.receive()[1][0] for _ in sizes]
    assert taken == [bytes([k]) * size for k, size in enumerate(sizes)]  # and what was taken is the owner's own


def test_small_messages_that_nobody_takes_for_long_come_out_equal() -> None:
    """More of them than a pipe holds bytes for what was taken."""
    with echo() as (pipe, _):
        pipe.send([({}, [b"x"])] * 70_000)
        time.sleep(1)
        assert all(pipe.receive() == ({}, [bytearray(b"x")]) for _ in range(70_000))


@given(st.lists(st.integers(1, 40) | st.none(), max_size=60), st.integers(40, 64))
def test_no_byte_of_a_room_is_taken_twice_and_all_of_it_can_be_taken(steps: list[int | None], size: int) -> None:
    room, held = _Room(size), []
    for step in steps:
        if step is None:
            if held:
                room.free(1)
                held.pop(0)
            continue
        at = room.take(step)
        if at is None:
            assert held, "an empty room holds what is no larger than it"
            continue
        held.append(range(at, at + step))
        assert at >= 0 and at + step <= size
        taken = [place for one in held for place in one]
        assert len(taken) == len(set(taken))
    room.free(len(held))
    assert room.take(size) == 0


def test_an_owner_that_keeps_up_has_little_of_the_memory_written_to() -> None:
    room = _Room(1 << 30)
    reached = 0
    for _ in range(3):
        room.take(1000)
    for _ in range(10_000):  # three are always there, so that it is never empty
        reached = max(reached, (room.take(1000) or 0) + 1000)
        room.free(1)
    assert reached <= 10_000


def test_a_child_that_dies_is_told_after_what_it_has_sent() -> None:
    with echo() as (pipe, child):
        pipe.send([({}, [bytes([k]) * 9]) for k in range(3)])
        time.sleep(1)
        child.kill()
        child.wait()
        assert [pipe.receive()[1][0][0] for _ in range(3)] == [0, 1, 2]
        assert pipe.poll(5)
        with pytest.raises((EOFError, OSError)):
            pipe.receive()


@pytest.mark.parametrize(
    "place", [(0, [-1, -1]), (-64, [9]), (ROOM_BYTES - 64, [65]), (0, []), ("0", [1]), (0, ["9"])], ids=str
)
def test_bytes_that_are_not_in_the_memory_are_refused(place: tuple[int, list[int]]) -> None:
    pipe = OwnerEnd()
    message = json.dumps({"values": {}, "at": place[0], "sizes": place[1]})
    Connection(os.dup(pipe.fds[0])).send_bytes(message.encode())
    with pytest.raises((ValueError, TypeError, KeyError)):
        pipe.receive()
    pipe.let_go_of_fds()
    pipe.close()


def test_a_closed_pipe_is_not_asked_by_a_number_that_may_be_another_files() -> None:
    pipe = OwnerEnd()
    pipe.let_go_of_fds()
    pipe.close()
    with pytest.raises(OSError, match="closed"):
        pipe.poll(0)


def test_a_child_that_waits_for_room_finds_out_that_its_owner_is_gone() -> None:
    with echo(1 << 10) as (pipe, child):
        pipe.send([({}, [b"x"])] * 50)
        time.sleep(1)
        assert child.poll() is None


def test_no_file_stays_open() -> None:
    pipe = OwnerEnd()
    opened = {_identity(fd) for fd in (*pipe.fds, pipe._socket.fileno(), pipe._freed.fileno())}
    child = ChildEnd([os.dup(fd) for fd in pipe.fds])
    assert len(opened) == 4 and opened <= _open_files(), "a pipe is one, at both ends"
    pipe.let_go_of_fds()
    pipe.close()
    with child:
        pass
    del pipe, child  # and their mappings with them
    assert not opened & _open_files()


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _open_files() -> set[tuple[int, int]]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # what listed them is closed
            found.add(_identity(int(link.name)))
    return found


def test_what_is_no_reply_is_refused_and_no_bytes_become_objects() -> None:
    values, buffers = pack(Decoded({"x": np.zeros(1)}, Facts()))
    for spoiled in ({"features": {"x": ["|O", [1]]}}, {"features": {"x": ["<f8", [9]]}}, {"facts": {"no": 1}}, {"no": 1}):
        with pytest.raises((ValueError, TypeError, KeyError)):
            unpack({**values, **spoiled}, [bytearray(buffer) for buffer in buffers])


NUMBERS = st.none() | st.floats(allow_nan=False) | st.integers(0, 1 << 31).map(np.int64)
ARRAYS = st.sampled_from(["uint8", "int64", "float16", "float32", "bool"]).flatmap(
    lambda dtype: arrays(dtype, st.sampled_from([(), (1,), (0, 3), (3, 5), (2, 3, 7)]))
)
FACTS = st.builds(Facts, mime=st.none() | st.text(), width=NUMBERS, text=st.none() | st.text(), preview=st.none() | st.binary())
REPLIES = (
    st.builds(
        Decoded, st.dictionaries(st.text(max_size=3), ARRAYS, max_size=3), FACTS, st.text(), NUMBERS, NUMBERS, st.booleans()
    )
    | st.builds(PartCount, st.integers(1, 9))
    | st.builds(Reject, st.text(), st.text(), st.text(), st.booleans(), st.booleans())
)


@given(st.lists(REPLIES, min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_replies_come_out_equal(replies: list[Reply]) -> None:
    pipe = OwnerEnd()
    child = ChildEnd([os.dup(fd) for fd in pipe.fds])
    pipe.let_go_of_fds()
    for reply in replies:
        child.send(*pack(reply))
        found = unpack(*pipe.receive())
        if isinstance(reply, Decoded):
            assert isinstance(found, Decoded) and found.features.keys() == reply.features.keys()
            for name, array in reply.features.items():
                assert (found.features[name].dtype, found.features[name].shape) == (array.dtype, array.shape)
                assert found.features[name].tobytes() == array.tobytes() and found.features[name].flags.writeable
            assert {**vars(found), "features": 0} == {**vars(reply), "features": 0}
        else:
            assert found == reply
    pipe.close()
