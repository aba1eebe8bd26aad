"""What infra/monitoring asks of Prometheus. In: its files. Out: expressions, and the series that are ours and Ray's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.job_metrics import COUNTERS, GAUGES

MONITORING = Path(__file__).parents[2] / "infra" / "monitoring"
OURS = {f"ray_bindery_{name}_total" for name in COUNTERS} | {f"ray_bindery_{name}" for name in GAUGES}
GPU = "ray_node_gpus_utilization"  # not there without one
RAYS = {GPU, "ray_node_cpu_utilization", "ray_object_store_memory", "ray_data_operator_queued_blocks"}


def alerts() -> list[dict[str, Any]]:
    """The alerting rules."""
    return [rule for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]


def panels(interval: str = "$__rate_interval") -> Sequence[str]:
    """The PromQL of the dashboard, for all tables, with rates over some interval."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [text.replace("$__rate_interval", interval).replace("$table", ".*") for text in asked]
