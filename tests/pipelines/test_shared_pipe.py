"""What a child puts into its pipe comes out equal, in order, however late it is taken, and stays what it was."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.shared_pipe import OwnerEnd

ECHO = """
import sys
from pipelines.shared_pipe import ChildEnd

with ChildEnd([int(fd) for fd in sys.argv[1].split(",")]) as end:
    try:
        while True:
            message = end.receive()
            for one in message if isinstance(message, list) else [message]:
                end.send(one)
    except EOFError:
        pass
"""
_DTYPES = st.sampled_from(["uint8", "int64", "float16", "float32", "float64", "bool", "S3", "complex64"])
_ARRAYS = _DTYPES.flatmap(lambda dtype: arrays(dtype, st.tuples(st.integers(0, 5), st.integers(0, 70))))


@contextmanager
def echo() -> Iterator[tuple[OwnerEnd, subprocess.Popen[bytes]]]:
    """A child that sends back what it is sent; of a list each in turn."""
    pipe = OwnerEnd()
    child = subprocess.Popen([sys.executable, "-c", ECHO, ",".join(map(str, pipe.fds))], pass_fds=pipe.fds)
    pipe.inherited()
    yield pipe, child
    pipe.close()
    assert child.wait(20) == 0 or child.returncode == -9, "it ends when its owner closes the pipe"


@pytest.fixture(scope="module")
def echoed() -> Iterator[Callable[[object], object]]:
    """An object after a way there and back."""
    with echo() as (pipe, _):

        def there_and_back(message: object) -> object:
            pipe.send(message)
            return pipe.receive()

        yield there_and_back


@given(st.dictionaries(st.text(max_size=3), _ARRAYS, max_size=4))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arrays_come_out_equal(echoed: Callable[[object], object], features: dict[str, np.ndarray]) -> None:
    found = echoed(dict(features))
    assert isinstance(found, dict) and found.keys() == features.keys()
    for name, array in features.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("message", ["a word", None, {"no": "arrays"}, b"x" * 300_000])
def test_what_has_no_arrays_comes_out_equal(echoed: Callable[[object], object], message: object) -> None:
    assert echoed(message) == message


def test_strided_and_fortran_ordered_arrays_come_out_equal(echoed: Callable[[object], object]) -> None:
    plain = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    for array in (plain[:, ::2], plain.transpose(2, 0, 1), np.asfortranarray(plain), plain[::-1]):
        np.testing.assert_array_equal(echoed(array), array)  # type: ignore[arg-type]


def test_messages_that_are_taken_late_are_not_written_over() -> None:
    with echo() as (pipe, _):
        pipe.send([np.full(100_000, k, np.uint8) for k in range(50)])
        time.sleep(1)  # time for a child that does not wait to write over what lies there
        taken = [pipe.receive() for _ in range(50)]
    for k, array in enumerate(taken):  # and what was taken is the owner's own
        assert (array == k).all() and array.flags.writeable


def test_areas_as_large_as_what_is_sent() -> None:
    with echo() as (pipe, _):
        large = {"a": np.arange(20_000_000), "b": np.arange(7), "c": np.arange(1_000_000, dtype=np.float32)}
        for message in (large, {"d": np.arange(3)}, large):
            pipe.send(message)
            found = pipe.receive()
            assert all(np.array_equal(found[name], array) for name, array in message.items())


def test_a_child_that_dies_is_told_after_what_it_has_sent() -> None:
    with echo() as (pipe, child):
        pipe.send([np.full(9, k) for k in range(3)])
        time.sleep(1)
        child.kill()
        child.wait()
        assert [int(pipe.receive()[0]) for _ in range(3)] == [0, 1, 2]
        assert pipe.poll(5)
        with pytest.raises((EOFError, OSError)):
            pipe.receive()
