"""The short form of the chaos suite: every class of fault, few of each. The long form: python tests/chaos POINTS."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import light
import pytest
from gateway import Gateway
from places import places
from points import DRIVER, GATEWAY, NODE, PROXY, SECOND, Place, Point, suffer
from proxy import Storm
from victim import MOMENTS
from world import SEGMENTS, World


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> Iterator[dict[str, Place]]:
    """Ray and, where a test wants it, a server of our own: its address must be known before Ray starts."""
    with ExitStack() as stack:
        gateway = None
        if any(item.get_closest_marker("s3") and item.path == request.path for item in request.session.items):
            try:
                gateway = stack.enter_context(Gateway())
            except FileNotFoundError:
                if os.environ.get("BINDERY_REQUIRE_ALL") == "1":
                    raise
        yield stack.enter_context(places(gateway))


@pytest.fixture(scope="module")
def world(found: dict[str, Place], tmp_path_factory: pytest.TempPathFactory) -> World:
    """A corpus, and what two runs that nobody disturbed made of it."""
    return World(tmp_path_factory.mktemp("chaos"), found["cluster"].environment, SEGMENTS)


def at(moment: str, nth: int = 1, changed: bool = False) -> Point:
    return Point(f"driver killed {moment}", changed, {"moment": moment, "nth": nth})


CHAINS = [
    [at("after stage"), at("before rejects"), Point("a node is pulled", strikes=(NODE,))],
    [
        Point("driver killed at random", strikes=(DRIVER,), delay_s=0.1),
        Point("workers are killed, a second writer comes", strikes=("decoder", "stager", SECOND)),
    ],
    [at("while replacing", 1, True), at("after commit", 1, True), Point("an actor is killed", True, strikes=("embedder",))],
    [
        at("before commit", 2, True),
        at("while compacting", 1, True),
    ],
]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("changed", [False, True], ids=["a new table", "a changed corpus"])
def test_a_driver_killed_at_every_named_moment_in_turn_loses_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory, changed: bool
) -> None:
    world = World(tmp_path_factory.mktemp("light"), {}, "whole", light.run)
    moments = [moment for moment in MOMENTS if changed or moment != "while replacing"]  # in the order of a run
    outcome = suffer(world, [at(moment, 1, changed) for moment in moments], Place(), seed=0)

    assert outcome.survived, str(outcome)  # a string is shown whole
    assert [fault for fault, came in zip(outcome.fault.split(", then "), outcome.struck, strict=True) if not came] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: ", ".join(point.fault for point in chain))
def test_after_faults_the_same_command_makes_the_table_right(world: World, found: dict[str, Place], chain: list[Point]) -> None:
    outcome = suffer(world, chain, found["cluster"], seed=0)

    assert outcome.survived, str(outcome)  # a string is shown whole
    assert [fault for fault, came in zip(outcome.fault.split(", then "), outcome.struck, strict=True) if not came] == []


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_store_that_fails_in_every_way_loses_and_doubles_nothing(world: World, found: dict[str, Place]) -> None:
    if "s3" not in found:
        pytest.skip("not run: install ceph-mon ceph-osd radosgw ceph-common (see infra/s3/README.md)")
    chain = [
        Point("driver killed after commit", True, {"moment": "after commit", "nth": 1}),
        Point("a storm, and the gateway is killed", True, strikes=(GATEWAY, PROXY), rule=lambda: Storm(1, 0.05)),
    ]
    outcome = suffer(world, chain, found["s3"], seed=0)

    assert outcome.survived, str(outcome)  # a string is shown whole
