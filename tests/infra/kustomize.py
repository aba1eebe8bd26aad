"""What `kubectl kustomize` makes of a folder, for as much of Kustomize as infra/ uses. In: a folder. Out: its objects.

Resources, namespace, images, JSON patches with a path of plain keys, and replacements that copy a whole node. Where kubectl is
installed a test compares the two.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CLUSTER_WIDE = ("Namespace",)
KNOWN = {"apiVersion", "kind", "namespace", "resources", "images", "patches", "replacements"}


def render(folder: Path) -> list[dict[str, Any]]:
    """All objects of a kustomization."""
    own = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(own) <= KNOWN, f"{folder} uses {set(own) - KNOWN}"
    objects = [one for name in own["resources"] for one in _resource((folder / name).resolve())]
    for one in objects:
        if "namespace" in own and one["kind"] not in CLUSTER_WIDE:
            one["metadata"]["namespace"] = own["namespace"]
    for patch in own.get("patches", ()):
        for one in _selected(objects, patch["target"]):
            for operation in yaml.safe_load(patch["patch"]):
                _apply(one, operation)
    for image in own.get("images", ()):
        for container in (found for one in objects for found in containers(one)):
            name, _, tag = container["image"].rpartition(":")
            if name == image["name"]:
                container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"
    for replacement in own.get("replacements", ()):
        (source,) = _selected(objects, replacement["source"])
        for target in replacement["targets"]:
            for one in _selected(objects, target["select"]):
                for path in target["fieldPaths"]:
                    _copy(source[replacement["source"]["fieldPath"]], one, path.split("."))
    return objects


def containers(node: Any) -> Iterator[dict[str, Any]]:
    """Every container below a node."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from value if key in ("containers", "initContainers") else containers(value)
    elif isinstance(node, list):
        for value in node:
            yield from containers(value)


def _resource(path: Path) -> list[dict[str, Any]]:
    return render(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))


def _selected(objects: list[dict[str, Any]], by: dict[str, str]) -> list[dict[str, Any]]:
    return [o for o in objects if o["kind"] == by["kind"] and by.get("name", o["metadata"]["name"]) == o["metadata"]["name"]]


def _apply(one: dict[str, Any], operation: dict[str, Any]) -> None:
    *way, last = operation["path"].strip("/").split("/")
    node: Any = one
    for key in way:
        node = node[int(key) if isinstance(node, list) else key]
    place = int(last) if isinstance(node, list) else last
    if operation["op"] == "remove":
        del node[place]
    else:
        assert operation["op"] in ("add", "replace"), operation
        node[place] = operation["value"]


def _copy(value: Any, one: dict[str, Any], path: list[str]) -> None:
    node: Any = one
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = copy.deepcopy(value)
