"""The notebooks run from top to bottom on what `make demo` makes, say what they promise, and are kept without outputs."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from jobs.demo import main as demo

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    """Where notebooks run: a folder beside `demo/`."""
    home = tmp_path_factory.mktemp("home")
    assert demo(["--out", str(home / "demo")]) == 0
    (home / "notebooks").mkdir()
    return home / "notebooks"


def run(name: str, folder: Path) -> tuple[str, str]:
    """What a notebook's cells print, and what they show as HTML."""
    (path,) = [path for path in NOTEBOOKS if path.stem == name]
    done = NotebookClient(
        read(path), timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    shown = "\n".join(output.data["text/html"] for output in outputs if "text/html" in output.get("data", {}))
    return printed, shown


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"first_look", "cross_modal", "binding"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_valid_and_without_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells and not any(cell.outputs or cell.execution_count for cell in cells)
    assert path.stat().st_size < 20_000


@pytest.mark.slow
def test_a_first_look_shows_every_kind_of_media(folder: Path) -> None:
    printed, shown = run("first_look", folder)
    assert re.search(r"\d\d% of 144 traces are named right", printed)
    assert all(tag in shown for tag in ("<audio", "<video", "<img", "<blockquote", "<iframe"))


@pytest.mark.slow
def test_any_kind_of_media_finds_any_other(folder: Path) -> None:
    _, shown = run("cross_modal", folder)
    share = {name: int(found) for name, found in re.findall(r">([a-z0-9 +]+)</th>\s*<td[^>]*>(\d+)%<", shown)}
    assert share["picture + words"] > 2 * max(share["picture alone"], share["words alone"]) > 0


@pytest.mark.slow
def test_a_new_kind_of_media_is_bound_and_a_control_is_not(tmp_path: Path) -> None:
    printed, shown = run("binding", tmp_path)
    score = {name: float(found) for name, found in re.findall(r">([\w ,()]+)</th>\s*<td[^>]*>(\d\.\d\d)<", shown)}
    assert score["words name the thing (emergent)"] > 0.5 and score["a picture finds its sound, among 5"] > 0.5
    chance = re.search(r"words name the thing: (\d\.\d\d); guessing", printed)
    assert chance and float(chance[1]) < 0.2
