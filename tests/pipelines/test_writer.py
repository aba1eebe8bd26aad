"""A stop may come between any two steps of the writer: nothing is staged twice, and no source by half."""

from itertools import cycle
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.parts import Taken
from pipelines.report import Tally
from pipelines.writer import Writer


class _Stopped(list[Any]):
    """A list to which nothing can be appended without a SIGTERM coming right after."""

    def append(self, one: Any) -> None:
        super().append(one)
        raise KeyboardInterrupt


def _writer() -> Any:
    writer: Any = Writer(SimpleNamespace(uri="", dataset=SimpleNamespace(schema=None)), None, "", Tally())  # type: ignore[arg-type]
    writer._stagers = cycle([SimpleNamespace(stage=SimpleNamespace(remote=lambda _uri, _schema, _late, *blocks: blocks))])
    return writer


def test_blocks_that_are_being_staged_when_a_stop_comes_are_not_staged_again() -> None:
    writer = _writer()
    writer._blocks, writer._staging = [Taken("a block", 1)], _Stopped()
    with pytest.raises(KeyboardInterrupt):
        writer._stage_blocks()
    writer._stage_blocks()
    assert list(writer._staging) == [("a block",)]


def test_the_blocks_of_one_source_are_taken_in_one_step() -> None:
    writer = _writer()
    writer._blocks = _Stopped()
    writer._parts = SimpleNamespace(complete=lambda _wait: [Taken("part 1", 1), Taken("part 2", 2)])
    writer._take_complete(wait=False)
    assert [taken.block for taken in writer._blocks] == ["part 1", "part 2"] and writer._bytes == 3
