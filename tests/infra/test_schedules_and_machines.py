"""What runs Bindery without Kubernetes: machines of AWS, Airflow, cron, the image. Checked without any of them."""

from __future__ import annotations

import ast
import fnmatch
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from commands import refusal
from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME
from ray.job_submission import JobSubmissionClient

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
HADOLINT = Path(sys.executable).with_name("hadolint")


@pytest.fixture
def machines() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((INFRA / "aws" / "cluster.yaml").read_text())
    return found


def schema_of_ray() -> Any:
    return json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())


def test_the_machines_of_aws_fit_rays_own_schema(machines: dict[str, Any]) -> None:
    jsonschema.validate(machines, schema_of_ray())
    machines["available_node_types"]["gpu"]["min_worker"] = 2
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(machines, schema_of_ray())


def test_the_head_stays_workers_are_spot_and_metadata_wants_a_session(machines: dict[str, Any]) -> None:
    nodes = {name: kind["node_config"] for name, kind in machines["available_node_types"].items()}
    assert machines["head_node_type"] == "head" and "InstanceMarketOptions" not in nodes["head"]
    assert all(nodes[name]["InstanceMarketOptions"] == {"MarketType": "spot"} for name in ("cpu", "gpu"))
    assert all(node["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1} for node in nodes.values())
    options = machines["docker"]["run_options"]
    assert {"--env RAY_AUTH_MODE=token", "--env RAY_enable_open_telemetry=0"} <= set(options)
    assert "--dashboard-host=127.0.0.1" in " ".join(machines["head_start_ray_commands"])


def test_the_head_may_start_and_end_workers_of_its_cluster_and_give_them_their_role(machines: dict[str, Any]) -> None:
    from ray.autoscaler._private.aws import node_provider  # with boto3, which the image has by an extra

    profiles = {
        name: kind["node_config"]["IamInstanceProfile"]["Name"] for name, kind in machines["available_node_types"].items()
    }
    assert profiles == {"head": "bindery-head", "cpu": "bindery-writer", "gpu": "bindery-writer"}
    statements = json.loads((INFRA / "aws" / "iam" / "head.json").read_text())["Statement"]
    allowed = {action for statement in statements for action in statement["Action"]}
    called = set(re.findall(r"\b(create|start|stop|terminate)_instances\b", Path(node_provider.__file__).read_text()))
    names = {"create": "RunInstances", "start": "StartInstances", "stop": "StopInstances", "terminate": "TerminateInstances"}
    assert {f"ec2:{names[one]}" for one in called} <= allowed and not any("*" in action for action in allowed)
    for statement in statements:
        if {"ec2:TerminateInstances", "ec2:StopInstances"} & set(statement["Action"]):
            assert statement["Condition"] == {
                "StringEquals": {f"aws:ResourceTag/{TAG_RAY_CLUSTER_NAME}": machines["cluster_name"]}
            }
        if "iam:PassRole" in statement["Action"]:
            assert statement["Resource"] == [f"arn:aws:iam::ACCOUNT:role/{profiles['cpu']}"]


def test_the_image_has_what_ray_up_asks_of_it() -> None:
    text = (INFRA / "image" / "Dockerfile").read_text()
    assert "rsync=" in text and text.count("--extra aws") == 2
    assert 'echo "export PATH=/opt/venv/bin:\\$PATH" >/etc/profile.d/' in text  # `ray up` runs login shells


def test_airflows_file_compiles_and_calls_what_ray_has(tmp_path: Path) -> None:
    source = (INFRA / "airflow" / "bindery_reindex.py").read_text()
    tree = ast.parse(source)
    compile(source, "bindery_reindex.py", "exec")
    called = {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "ray"
    }
    assert called >= {"submit_job", "stop_job", "get_job_info"} and all(hasattr(JobSubmissionClient, name) for name in called)
    (command,) = re.findall(r'^COMMAND = "(.*)"$', source, re.MULTILINE)
    (tmp_path / "nightly.yaml").write_text("db: d\ncorpora: [{corpus: m}]\n")
    assert refusal(shlex.split(command.replace("/etc/bindery", str(tmp_path)))) is None


def test_the_crontab_names_a_script_that_is_there_and_may_be_run() -> None:
    lines = [line for line in (INFRA / "cron" / "bindery.crontab").read_text().splitlines() if line and line[0] not in "#M"]
    (fields,) = [line.split(maxsplit=6) for line in lines]
    assert len(fields) == 7 and all(re.fullmatch(r"[\d*,/-]+", field) for field in fields[:5])
    script = INFRA / "cron" / Path(fields[6]).name
    assert fields[6] == "/opt/bindery/infra/cron/reindex.sh" and os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.slow
def test_a_night_that_does_not_end_well_says_so_by_mail_and_exit_code(tmp_path: Path) -> None:
    (tmp_path / "environment").write_text("AWS_ACCESS_KEY_ID=of-nobody\n")
    (tmp_path / "nightly.yaml").write_text(f"db: {tmp_path}/db\ncorpora: [{{corpus: {tmp_path}/nothing}}]\n")
    places = {**os.environ, "BINDERY_ETC": str(tmp_path), "BINDERY_LOGS": str(tmp_path), "PYTHONPATH": str(ROOT)}
    night = subprocess.run([INFRA / "cron" / "reindex.sh"], env=places, capture_output=True, text=True, timeout=120)
    assert night.returncode == 2 and "nothing is at" in night.stderr and night.stdout == ""


def test_the_images_run_as_nobody_in_particular_from_stages_that_build() -> None:
    lines = (INFRA / "image" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    stages = [re.fullmatch(r"FROM (\S+) AS (\S+)", line) for line in lines if line.startswith("FROM")]
    parents = {stage[2]: stage[1] for stage in stages if stage}
    assert parents["cpu"] == parents["gpu"] == "base"
    final = lines[lines.index("FROM python:${PYTHON}-slim-bookworm AS base") :]
    assert "USER 1000:1000" in final and final.index("USER 1000:1000") < final.index("FROM base AS cpu")
    assert not any("pip" in line for line in final if line.startswith("RUN"))  # tools of the build stay in the build
    assert not any("latest" in parent for parent in parents.values())


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (INFRA / "image" / "Dockerfile").read_text(), re.MULTILINE)
    names = [name for line in copied for name in line.split() if name != "."]
    assert names and all((ROOT / name).exists() for name in names)
    taken = [pattern[1:] for pattern in ignored if pattern.startswith("!")]
    assert ignored[0] == "*" and all(any(fnmatch.fnmatch(name, pattern) for pattern in taken) for name in names)
    assert not {"tests", ".git", ".venv", "shared"} & set(taken)


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([HADOLINT, INFRA / "image" / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def commands_of(stage: str) -> list[str]:
    """What a stage of the image runs, a shell command each."""
    text = (INFRA / "image" / "Dockerfile").read_text().replace("\\\n", " ")
    (body,) = re.findall(rf"^FROM \S+ AS {stage}$(.*?)^FROM ", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"^RUN (.*)$", body, re.MULTILINE)


def wheel(folder: Path, version: str) -> str:
    """A wheel of the package `thing`; its hash."""
    path, info = folder / f"thing-{version}-py3-none-any.whl", f"thing-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: thing\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"thing.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("stage", ["build-cpu", "build-gpu"])
@pytest.mark.parametrize("index", ["as locked", "exchanged", "newer"])
def test_an_image_is_not_built_of_what_the_lock_does_not_know(stage: str, index: str, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    venv.create(tmp_path / "venv")
    known = wheel(tmp_path / "index", "2.0" if index == "newer" else "1.0")
    extras = "".join(f"{extra} = []\n" for extra in ("aws", "clip", "onnx", "bind", "serve"))
    project = f'[project]\nname = "b"\nversion = "0"\ndependencies = ["thing"]\n[project.optional-dependencies]\n{extras}'
    (tmp_path / "pyproject.toml").write_text(project)
    locked = known if index == "as locked" else 64 * "0"
    (tmp_path / "requirements.lock").write_text(f"thing==1.0 \\\n    --hash=sha256:{locked}\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "UV_NO_INDEX": "1", "UV_FIND_LINKS": "index"}
    compiling = next(command for command in commands_of("build") if "pip compile" in command)
    syncing = next(command for command in commands_of(stage) if "pip sync" in command)
    command = f"{compiling} && {syncing}".replace("/opt/venv", str(tmp_path / "venv"))
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    installed = [path.name for path in (tmp_path / "venv").rglob("thing.py")]
    assert (done.returncode == 0, installed) == ((True, ["thing.py"]) if index == "as locked" else (False, [])), done.stderr


def test_the_images_install_nothing_without_its_hash() -> None:
    lines = (INFRA / "image" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    installs = [line for line in lines if re.search(r"pip (install|sync)", line)]
    ours = [line for line in installs if line.rstrip().endswith(" .")]  # this repository itself
    assert len(installs) - len(ours) >= 3
    assert all("--require-hashes" in line for line in installs if line not in ours)
    assert all({"--no-deps", "--no-build-isolation"} <= set(line.split()) for line in ours)  # by the setuptools of the lock
    assert re.search(r"^setuptools==\S+ \\\n +--hash=sha256:", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert "--require-hashes" in (ROOT / "Makefile").read_text()
