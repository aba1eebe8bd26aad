"""A cluster changes while a run is at work: a node that joins embeds, too; one that is lost costs what it had in hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from sleeping_nodes import embed_meanwhile

from benchmarks.scale_out import BATCH, ITEM_S
from pipelines.writer import COMMIT_INTERVAL_S

GROWS = """
await_batches(1)
nodes.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
"""
BEFORE = 42  # batches of the node that is lost, so that some of its work was staged before
SHRINKS = f"""
await_batches({BEFORE})
nodes.remove_node(workers[0], allow_graceful=False)
"""
IN_HAND = 6  # batches: a task's four, and what the tower does while the node is taken away


@pytest.mark.slow
def test_a_node_that_joins_during_a_run_is_used_by_it(tmp_path: Path) -> None:
    report, told, items = embed_meanwhile(tmp_path, 70, 1, GROWS)
    assert report["embedded"] == 70 * BATCH and report["audit"]["unique_ids"] and report["resources"] == {"cpus": 2, "gpus": 0}
    assert "the cluster has grown, and this run with it: embedding on 2 CPUs" in told
    assert len(items) == 2 and sum(items) == 70 * BATCH and min(items) >= 10 * BATCH, items


@pytest.mark.slow
def test_a_node_that_is_lost_costs_what_it_had_in_hand(tmp_path: Path) -> None:
    report, _, items = embed_meanwhile(tmp_path, 110, 2, SHRINKS)
    assert report["embedded"] == 110 * BATCH and report["audit"]["unique_ids"] and report["audit"]["rows_as_expected"]
    again = sum(items) - 110 * BATCH
    assert 0 < again <= COMMIT_INTERVAL_S / ITEM_S + IN_HAND * BATCH < BEFORE * BATCH, again
