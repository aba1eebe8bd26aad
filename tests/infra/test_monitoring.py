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


def test_every_alert_points_to_a_section_of_the_runbook() -> None:
    runbook = (MONITORING.parents[1] / "docs" / "runbook.md").read_text()
    sections = [re.search(r'"(.+)"', rule["annotations"]["runbook"])[1] for rule in alerts()]  # type: ignore[index]
    assert sections and all(f"\n## {section}\n" in runbook for section in sections)


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


def test_alerts_fire_for_what_they_are_for_and_are_silent_where_all_is_well(promtool: str, tmp_path: Path) -> None:
    embedded = "ray_bindery_embedded_sources_total{table='media',modality='image'}"
    well = [
        {"series": "ray_bindery_running{table='media'}", "values": "1x120"},
        {"series": embedded, "values": "0+600x120"},
        {"series": "ray_bindery_rejected_sources_total{table='media',error_type='DecodeError'}", "values": "0+6x120"},
        {"series": "ray_bindery_commits_total{table='media'}", "values": "0+2x120"},
        {"series": "ray_bindery_stage_seconds_total{table='media',stage='commit'}", "values": "0+2x120"},
        {"series": "ray_bindery_stage_seconds_total{table='media',stage='tower',modality='image'}", "values": "0+50x120"},
        {"series": "ray_bindery_stage_seconds_total{table='media',stage='idle',modality='image'}", "values": "0+10x120"},
        {"series": "ray_bindery_lease_seconds_left{table='media'}", "values": "50x120"},
    ]
    ill = {
        "BinderyNothingEmbedded": {1: "0x120", 2: "0x120"},
        "BinderyManyRejects": {2: "0+60x120"},
        "BinderySlowCommits": {4: "0+60x120"},
        "BinderyTowersStarved": {6: "0+500x120"},
        "BinderyLeaseNotRenewed": {7: "50x90 10x30"},
    }
    severity = {"BinderyTowersStarved": "info"}
    tests = []
    for name, changes in {"": {}, **ill}.items():
        series = [{**one, "values": changes.get(k, one["values"])} for k, one in enumerate(well)]
        fires = [{"exp_labels": {"table": "media", "severity": severity.get(name, "warning")}}] if name else []
        cases = [{"eval_time": "100m", "alertname": alert, "exp_alerts": fires if alert == name else []} for alert in ill]
        tests.append({"interval": "1m", "input_series": series, "alert_rule_test": cases})
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    for rule in rules["groups"][0]["rules"]:
        del rule["annotations"]
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(rules))
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["alerts.yaml"], "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", tmp_path / "tests.yaml"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
