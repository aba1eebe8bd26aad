"""Alerts and dashboard: made of metrics that there are, and what Prometheus itself takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from monitoring import MONITORING, OURS, RAYS, alerts, panels
from not_run import not_run

from pipelines.job_metrics import COUNTERS, GAUGES

EXPRESSIONS = [*panels("5m"), *(rule["expr"] for rule in alerts())]

RUNNING = "ray_bindery_running{table='media'}"
EMBEDDED = "ray_bindery_embedded_sources_total{table='media',modality='image'}"
REJECTED = "ray_bindery_rejected_sources_total{table='media',error_type='DecodeError'}"
COMMITS = "ray_bindery_commits_total{table='media'}"
COMMIT_S = "ray_bindery_stage_seconds_total{table='media',stage='commit'}"
TOWER_S = "ray_bindery_stage_seconds_total{table='media',stage='tower',modality='image'}"
IDLE_S = "ray_bindery_stage_seconds_total{table='media',stage='idle',modality='image'}"
LEASE_S = "ray_bindery_lease_seconds_left{table='media'}"
WELL = {  # a sample a minute, in promtool's notation
    RUNNING: "1x120",
    EMBEDDED: "0+600x120",
    REJECTED: "0+6x120",
    COMMITS: "0+2x120",
    COMMIT_S: "0+2x120",
    TOWER_S: "0+50x120",
    IDLE_S: "0+10x120",
    LEASE_S: "50x120",
}
STOPS = "0+2x40 80x80"
ABSENT = None  # what has never counted is no series
RUNS: dict[str, tuple[dict[str, str | None], str | None]] = {  # how each differs from a run that is well, and what fires
    "all is well": ({}, None),
    "all is well, without rejects": ({REJECTED: ABSENT}, None),
    "towers are never idle": ({REJECTED: ABSENT, IDLE_S: ABSENT}, None),
    "it stalls": ({EMBEDDED: STOPS, REJECTED: STOPS}, "BinderyNothingEmbedded"),
    "it stalls, without rejects": ({EMBEDDED: STOPS, REJECTED: ABSENT}, "BinderyNothingEmbedded"),
    "it stalls from its start": (
        {name: ABSENT for name in WELL if name not in (RUNNING, LEASE_S)},
        "BinderyNothingEmbedded",
    ),
    "many are rejected": ({REJECTED: "0+60x120"}, "BinderyManyRejects"),
    "all are rejected": ({EMBEDDED: ABSENT, COMMITS: ABSENT}, "BinderyManyRejects"),
    "all are rejected, but the first": ({EMBEDDED: STOPS, COMMITS: STOPS}, "BinderyManyRejects"),
    "commits are slow": ({COMMIT_S: "0+60x120"}, "BinderySlowCommits"),
    "towers wait": ({IDLE_S: "0+500x120"}, "BinderyTowersStarved"),
    "the lease runs out": ({LEASE_S: "50x90 10x30"}, "BinderyLeaseNotRenewed"),
}


@pytest.fixture
def promtool() -> str:
    """Prometheus' own checker."""
    return shutil.which("promtool") or not_run("install promtool (Debian's package prometheus)")


def test_every_metric_that_is_looked_at_is_exported_and_every_one_of_ours_is_looked_at() -> None:
    named = {name for text in EXPRESSIONS for name in re.findall(r"\bray_\w+", text)}
    assert named == OURS | RAYS


def test_labels_in_expressions_are_tags_of_the_metric() -> None:
    for text in EXPRESSIONS:
        for name, inside in re.findall(r"ray_bindery_(\w+?)(?:_total)?\{([^}]*)\}", text):
            labels = set(re.findall(r"(\w+)=", inside))
            assert labels <= {"table", *{**COUNTERS, **GAUGES}[name][0]}


def test_every_alert_points_to_the_section_of_the_runbook_that_names_it() -> None:
    runbook = (MONITORING.parents[1] / "docs" / "runbook.md").read_text()
    sections = {part.partition("\n")[0]: part for part in runbook.split("\n## ")}
    for rule in alerts():
        title = re.search(r'"(.+)"', rule["annotations"]["runbook"])[1]  # type: ignore[index]
        assert f"`{rule['alert']}`" in sections[title]


def test_prometheus_takes_the_rules_and_every_expression_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    def check(*words: str | Path) -> None:
        done = subprocess.run([promtool, "check", *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    check("rules", MONITORING / "alerts.yaml")
    check("config", MONITORING / "prometheus.yaml")
    asked = [text.replace("$__rate_interval", "5m").replace("$table", ".*") for text in EXPRESSIONS]
    rules = [{"record": f"bindery:{k}", "expr": text} for k, text in enumerate(asked)]
    (tmp_path / "dashboard.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    check("rules", tmp_path / "dashboard.yaml")


@pytest.mark.parametrize(("changes", "fires"), RUNS.values(), ids=RUNS)
def test_an_alert_fires_for_what_it_is_for_and_no_other_does(
    changes: dict[str, str | None], fires: str | None, promtool: str, tmp_path: Path
) -> None:
    series = [{"series": name, "values": values} for name, values in {**WELL, **changes}.items() if values is not None]
    severity = {rule["alert"]: rule["labels"]["severity"] for rule in alerts()}
    cases = [
        {
            "eval_time": "100m",
            "alertname": alert,
            "exp_alerts": [{"exp_labels": {"table": "media", "severity": severity[alert]}}] if alert == fires else [],
        }
        for alert in severity
    ]
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    for rule in rules["groups"][0]["rules"]:
        del rule["annotations"]
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(rules))
    tests = [{"interval": "1m", "input_series": series, "alert_rule_test": cases}]
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["alerts.yaml"], "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", tmp_path / "tests.yaml"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_run_that_it_fires_for() -> None:
    assert {fires for _, fires in RUNS.values() if fires} == {rule["alert"] for rule in alerts()}
