"""A run at work, as the real Prometheus sees it over HTTP: all that the dashboard draws and the alerts ask is there."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from held_pictures import HeldPictures, write_manifest
from monitoring import GPU, MONITORING, OURS, RAYS, panels
from not_run import not_run
from ports import free_ports
from ray_head import Head, ray_head

FREE, HELD_BACK = 40, 20
SCRAPE_S, RECENT_S = 1, 60


class Prometheus:
    """Its HTTP interface."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        """`data` of an answer; None where nobody answers yet."""
        try:
            with urllib.request.urlopen(
                f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=30
            ) as answer:
                return json.load(answer)["data"]
        except (urllib.error.URLError, ConnectionError):
            return None

    def values(self, expression: str) -> list[float]:
        """What an expression is worth now, by series."""
        found = self.get("query", query=expression) or {"result": []}
        return [float(one["value"][1]) for one in found["result"]]

    def lately(self, series: str) -> float:
        """The last value of the one series of this name."""
        (value,) = self.values(f"last_over_time({series}[{RECENT_S}s])")
        return value


@contextmanager
def prometheus(head: Head, folder: Path) -> Iterator[Prometheus]:
    """One that is set up by infra/monitoring/prometheus.yaml, but for the head's folder and a shorter interval."""
    program = shutil.which("prometheus") or not_run("install prometheus (Debian's package prometheus)")
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
    (found,) = config["scrape_configs"][0]["file_sd_configs"]
    found["files"] = [path.replace("/tmp/ray", str(head.folder)) for path in found["files"]]
    config["rule_files"] = [str(MONITORING / name) for name in config["rule_files"]]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    command = [program, f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb"]
    with (folder / "prometheus.log").open("wb") as log:
        running = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        running.terminate()
        running.wait(timeout=60)


@pytest.mark.slow
def test_a_run_at_work_shows_all_that_the_dashboard_draws_and_the_alerts_ask(tmp_path: Path) -> None:
    pictures = HeldPictures(FREE)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    broken = {"uri": str(tmp_path / "broken.jpg"), "modality": "image", "version": "1", "size": 10, "mtime": 1}
    manifest = write_manifest(tmp_path / "list.jsonl", [broken, *pictures.sources(FREE + HELD_BACK)])
    command = ["python", "-m", "jobs.embed", manifest, "--db", str(tmp_path / "db"), "--allow-hosts", "127.0.0.1"]
    metrics = {"RAY_metrics_report_interval_ms": "1000", "RAY_enable_open_telemetry": "0"}  # the latter as in infra/
    with ray_head(**metrics) as head, prometheus(head, tmp_path) as seen:
        submitted = ["job", "submit", "--working-dir", ".", "--submission-id", "scraped", "--no-wait", "--"]
        assert head.cli(*submitted, *command, "--log-format", "json").returncode == 0
        asked = {*(OURS | RAYS), *panels(f"{RECENT_S}s")}
        while missing := {text for text in asked if GPU not in text and not seen.values(text)}:
            assert head.job("scraped")["status"] in ("PENDING", "RUNNING"), head.logs("scraped") + str(missing)
            asked = missing  # each has to be seen once: scraped so often, Ray's gauges are not there every time
            time.sleep(SCRAPE_S)
        assert [rule["health"] for group in seen.get("rules")["groups"] for rule in group["rules"]] == ["ok"] * 5
        assert seen.lately('ray_bindery_queued_sources{stage="embed"}') >= HELD_BACK
        assert seen.lately("ray_bindery_unindexed_rows") == seen.lately("ray_bindery_items_written_total") > 0
        assert 0 < seen.lately("ray_bindery_lease_seconds_left") <= 60
        assert 0 < seen.lately("ray_bindery_batch_rows_total") <= seen.lately("ray_bindery_batch_slots_total")
        pictures.let_go.set()
        assert head.ended("scraped") == "SUCCEEDED"
        _check_log(head.logs("scraped"), broken["uri"])
    pictures.server.shutdown()


def _check_log(log: str, broken: Any) -> None:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith('{"time"')]
    assert {line["run_id"] for line in lines} == {"scraped"}
    assert {"list", "plan", "embed", "commit", "decode"} <= {line.get("stage") for line in lines}
    (reject,) = [line for line in lines if line.get("uri")]
    assert (reject["uri"], reject["level"], reject["stage"]) == (broken, "warning", "decode")
