"""The pages for operators show commands that exist: jobs parse them, Ray's command line takes them, Python compiles them."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from commands import refusal
from ray.scripts.scripts import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / name for name in ("runbook.md", "cluster.md", "security.md")]
KUBECTL = ("patch", "get", "describe", "apply", "delete", "create", "kustomize")
ELSEWHERE = ("docker", "pipx")  # installed by nobody here


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each code block."""
    for match in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL):
        yield match[2], match[3]


def shown(page: Path) -> list[list[str]]:
    """The commands of a page, as words; comments are not."""
    lines = [line for language, text in blocks(page) if language == "" for line in text.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def rays_refusal(words: list[str]) -> str | None:
    """Why Ray's command line would not take these words."""
    command: click.Command = cli
    while isinstance(command, click.Group):
        if not words or words[0] not in command.commands:
            return f"ray has no command {words[:1]}"
        command, words = command.commands[words[0]], words[1:]
    try:
        command.make_context("ray", list(words))
    except click.UsageError as error:
        return str(error)
    return None


def offence(words: list[str]) -> str | None:
    """Why a command cannot be meant to work."""
    if words[0] == "ray":
        inner = words[words.index("--") + 1 :] if "--" in words else []
        return rays_refusal(words[1:]) or (refusal(inner) if inner else None)
    if words[0] == "kubectl":
        verb = words[3] if words[1] == "-n" else words[1]
        return None if verb in KUBECTL else f"kubectl {verb}"
    return None if words[0] in ELSEWHERE else refusal(words)


@pytest.fixture
def in_a_folder_with_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config files that pages name are there."""
    for name in ("nightly.yaml", "s3-nightly.yaml"):
        (tmp_path / name).write_text("db: d\ncorpora: [{corpus: m}]\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("in_a_folder_with_configs")
def test_every_command_that_operators_are_shown_is_one(page: Path) -> None:
    found = {" ".join(words): offence(words) for words in shown(page)}
    assert {command: why for command, why in found.items() if why} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_snippet_compiles_and_imports_what_there_is(page: Path) -> None:
    for language, text in blocks(page):
        if language == "python":
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom):
                    module = importlib.import_module(str(node.module))
                    assert all(hasattr(module, alias.name) for alias in node.names)


def test_the_runbook_has_commands_for_rays_jobs_and_ours() -> None:
    first = {words[0] if words[0] != "python" else words[2] for words in shown(PAGES[0])}
    assert first >= {"ray", "kubectl", "jobs.embed", "jobs.reindex", "jobs.optimize", "jobs.delete"}


def test_commands_that_are_none_are_found() -> None:
    assert offence(["ray", "jobs", "list"]) and offence(["ray", "job", "stop", "x", "--gently"]) and offence(["ray"])
    assert offence(["ray", "job", "submit", "--", "python", "-m", "jobs.embed"])
    assert offence(["python", "-m", "jobs.embed", "m"]) and offence(["kubectl", "-n", "bindery", "destroy"])
