"""The manifests for KubeRay: they fit the schemas, they are locked down, and the jobs take every command in them."""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from commands import refusal
from kustomize import containers, render

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "infra" / "kuberay"
DATA = Path(__file__).parent / "data"
FOLDERS = [KUBERAY / "base", *sorted((KUBERAY / "overlays").iterdir())]
CORE = {
    "Namespace": "io.k8s.api.core.v1.Namespace",
    "ServiceAccount": "io.k8s.api.core.v1.ServiceAccount",
    "ConfigMap": "io.k8s.api.core.v1.ConfigMap",
    "NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
}


def offences(one: dict[str, Any]) -> list[str]:
    """Where an object does not fit its schema."""
    definitions = json.loads(gzip.decompress((DATA / "kubernetes-1.34.json.gz").read_bytes()))["$defs"]
    definitions |= json.loads((DATA / "kuberay-1.6.json").read_text())["$defs"]
    schema = {"$defs": definitions, "$ref": f"#/$defs/{CORE.get(one['kind'], one['kind'])}"}
    return [f"{e.json_path}: {e.message[:200]}" for e in jsonschema.Draft202012Validator(schema).iter_errors(one)]


def pods(node: Any) -> Iterator[dict[str, Any]]:
    """The spec of every pod template below a node."""
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        else:
            for value in node.values():
                yield from pods(value)
    elif isinstance(node, list):
        for value in node:
            yield from pods(value)


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return render(request.param)


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


def jobs_of(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The spec of every RayJob, those of schedules too."""
    scheduled = [one["spec"]["jobTemplate"] for one in of_kind(objects, "RayCronJob")]
    return [one["spec"] for one in of_kind(objects, "RayJob")] + scheduled


def test_every_object_fits_its_schema(objects: list[dict[str, Any]]) -> None:
    assert {one["kind"] for one in objects} == {*CORE, "RayCluster", "RayJob", "RayCronJob"}
    assert [offence for one in objects for offence in offences(one)] == []


def test_nothing_starts_before_it_is_let_go(objects: list[dict[str, Any]]) -> None:
    jobs = of_kind(objects, "RayJob") + of_kind(objects, "RayCronJob")
    assert len(jobs) == 3 and all(one["spec"]["suspend"] is True for one in jobs)


def test_the_schemas_find_what_does_not_fit(objects: list[dict[str, Any]]) -> None:
    (cluster,) = of_kind(objects, "RayCluster")
    head = cluster["spec"]["headGroupSpec"]
    head["template"]["spec"]["containers"][0]["imagee"] = "x"
    head["rayStartParams"]["num-cpus"] = 0
    cluster["spec"]["authOptions"]["mode"] = "tokens"
    cluster["spec"]["tlsOptions"] = {"enabled": True}  # of a later KubeRay
    assert len(offences(cluster)) == 4


def test_the_schemas_find_what_the_operator_refuses(objects: list[dict[str, Any]]) -> None:
    (job,) = (one for one in of_kind(objects, "RayJob") if one["metadata"]["name"] == "bindery-embed")
    (nightly,) = of_kind(objects, "RayCronJob")
    del job["spec"]["shutdownAfterJobFinishes"]  # so that nothing is deleted after any time
    job["metadata"]["name"] = 48 * "n"  # the operator appends to it
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]
    head["template"]["spec"]["restartPolicy"] = "Always"  # which the autoscaler does not bear
    head["resources"] = {"CPU": "0"}  # as num-cpus says already
    assert len(offences(job)) == 4
    nightly["spec"]["schedule"] = "CRON_TZ=UTC 17 2 * * *"
    nightly["spec"]["jobTemplate"]["rayClusterSpec"]["authOptions"]["enableK8sTokenAuth"] = True  # for clusters that stay only
    assert len(offences(nightly)) == 2


def test_the_schemas_find_what_the_definitions_refuse_or_prune(objects: list[dict[str, Any]]) -> None:
    (job,) = (one for one in of_kind(objects, "RayJob") if one["metadata"]["name"] == "bindery-embed")
    both = {"onSuccess": {"policy": "DeleteSelf"}, "onFailure": {"policy": "DeleteNone"}}
    rule = {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED", "ttlSeconds": 60}}
    strategies: list[tuple[dict[str, Any], int]] = [(both, 0), ({"deletionRules": [rule]}, 0)]
    strategies += [({"onSuccess": both["onSuccess"]}, 1), (both | {"deletionRules": [rule]}, 1)]
    for condition in ({}, {"jobDeploymentStatus": "Complete"}, {"jobStatus": "FAILED", "jobDeploymentStatus": "Failed"}):
        strategies.append(({"deletionRules": [rule | {"condition": condition}]}, 1))
    for strategy, found in strategies:
        job["spec"]["deletionStrategy"] = strategy
        assert len(offences(job)) == found
    del job["spec"]["deletionStrategy"]
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]
    head["headService"] = {"spec": {"ports": [{"name": "dashboard"}]}}
    head["template"]["metadata"]["generateName"] = "head-"
    head["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = 0.5  # where a plain pod may
    assert len(offences(job)) == 3


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="not compared: kubectl is not installed")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_kubectl_renders_the_same(folder: Path) -> None:
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True, timeout=60)

    def by_name(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(objects, key=lambda one: (one["kind"], one["metadata"]["name"]))

    assert by_name(list(yaml.safe_load_all(done.stdout))) == by_name(render(folder))


def test_jobs_run_on_copies_of_the_one_cluster_with_tokens(objects: list[dict[str, Any]]) -> None:
    (cluster,) = of_kind(objects, "RayCluster")
    assert len(jobs_of(objects)) == 3
    own = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
    for job in jobs_of(objects):
        (account,) = {pod["serviceAccountName"] for pod in pods(job["rayClusterSpec"])}
        assert account in own
        for pod in pods(job["rayClusterSpec"]):  # bind's differs where accounts have roles: tests/security/test_iam.py
            pod["serviceAccountName"] = "bindery"
        assert job["rayClusterSpec"] == cluster["spec"]
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    assert cluster["spec"]["rayVersion"] == ray.__version__
    for group in cluster["spec"]["workerGroupSpecs"]:
        assert 1 <= group["minReplicas"] == group["replicas"] <= group["maxReplicas"]


def test_every_job_is_tried_again_for_the_infrastructures_sake_only(objects: list[dict[str, Any]], tmp_path: Path) -> None:
    (config,) = of_kind(objects, "ConfigMap")
    (tmp_path / "nightly.yaml").write_text(config["data"]["nightly.yaml"])  # what the head finds at /etc/bindery
    for job in jobs_of(objects):
        wrapper, command = shlex.split(job["entrypoint"])[:2], shlex.split(job["entrypoint"])[2:]
        assert wrapper == ["python", "/opt/bindery/rayjob.py"] and job["backoffLimit"] > 0
        assert refusal([word.replace("/etc/bindery", str(tmp_path)) for word in command]) is None


def test_pods_meet_the_restricted_pod_security_standard_that_their_namespace_enforces(objects: list[dict[str, Any]]) -> None:
    (namespace,) = of_kind(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    found = list(pods(objects))
    assert len(found) >= 3
    for pod in found:
        own = pod["securityContext"]
        assert own["runAsNonRoot"] and own["runAsUser"] > 0 and own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all(set(volume) <= {"name", "configMap", "emptyDir", "secret"} for volume in pod.get("volumes", ()))
    boxes = [box["securityContext"] for box in containers(objects)]
    boxes += [one["spec"]["autoscalerOptions"]["securityContext"] for one in of_kind(objects, "RayCluster")]
    assert all(box["allowPrivilegeEscalation"] is False and box["capabilities"] == {"drop": ["ALL"]} for box in boxes)


def test_every_container_states_what_it_needs_and_rays_answer_probes(objects: list[dict[str, Any]]) -> None:
    for container in containers(objects):
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(requests) and "memory" in limits
        if container["name"].startswith("ray-") and container["name"] != "ray-job-submitter":
            assert container["readinessProbe"]["httpGet"] == container["livenessProbe"]["httpGet"]
            assert {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "60"} in container["env"]
            assert {"name": "RAY_enable_open_telemetry", "value": "0"} in container["env"]


def test_no_pod_reaches_link_local_addresses_and_none_is_reached_from_outside(objects: list[dict[str, Any]]) -> None:
    (policy,) = of_kind(objects, "NetworkPolicy")
    spec = policy["spec"]
    assert (spec["podSelector"], sorted(spec["policyTypes"])) == ({}, ["Egress", "Ingress"])
    blocks = [to["ipBlock"] for rule in spec["egress"] for to in rule["to"] if "ipBlock" in to]
    assert blocks and all("169.254.0.0/16" in block["except"] for block in blocks)
    assert all("from" in rule for rule in spec["ingress"])


def test_credentials_come_from_a_secret_or_a_role_and_stand_in_no_file(objects: list[dict[str, Any]]) -> None:
    assert all(not name["name"].startswith("AWS_") for box in containers(objects) for name in box.get("env", ()))
    assert "Secret" not in {one["kind"] for one in objects}


def test_a_command_that_no_job_takes_is_found() -> None:
    assert refusal(["python", "-m", "jobs.embed", "s3://bucket/media"]) is not None
    assert refusal(["python", "-m", "jobs.embed", "m", "--db", "d", "--tabel", "t"]) is not None
    assert refusal(["python", "-m", "jobs.embedd", "m", "--db", "d"]) is not None
    assert refusal(["bindery", "embed", "m", "--db", "d", "--item-timeout", "0"]) is not None
