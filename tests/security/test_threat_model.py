"""The threat model names tests: each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def missing(page: str) -> list[str]:
    """Tests that a page names and that are not there; a file alone stands for all of its tests."""
    found = []
    for file, _, name in re.findall(r"`(tests/[\w/]+\.py)(::(\w+))?`", page):
        path = ROOT / file
        tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if not any(one.startswith("test_") for one in names) or (name and name not in names):
            found.append(f"{file}::{name}")
    return found


def test_every_threat_has_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    rows = [line for line in page.partition("## Threats")[2].partition("\n## ")[0].splitlines() if line.startswith("| ")]
    threats = rows[1:]
    assert len(threats) >= 20 and all("`tests/" in row.rpartition(" | ")[2] for row in threats)
    assert missing(page) == []


def test_a_test_that_is_not_there_is_found() -> None:
    assert missing("`tests/security/test_reach.py::test_nothing` `tests/nowhere/test_x.py` `tests/http_folder.py`") == [
        "tests/security/test_reach.py::test_nothing",
        "tests/nowhere/test_x.py::",
        "tests/http_folder.py::",
    ]
