"""The pages say what is true: the schema page has every column as the code has it, and links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from encoders import load_space
from pipelines.runs import RUN_COLUMNS
from pipelines.table import REJECT_COLUMNS, item_schema
from pipelines.tombstones import TOMBSTONE_COLUMNS

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("infra/**/*.md")]


def rows(schema: pa.Schema) -> list[tuple[str, str, str]]:
    """Name, type and "may it be null" of each column, as the page spells them."""
    types = [re.sub(r"<.*?>\[\d+\]", "<float>[D]", str(field.type)) for field in schema]
    return [(field.name, kind, "yes" if field.nullable else "no") for field, kind in zip(schema, types, strict=True)]


def documented(heading: str) -> list[tuple[str, ...]]:
    """The first three cells of the rows of one section's table on the schema page."""
    section = (ROOT / "docs" / "schema.md").read_text().partition(f"\n## {heading}")[2].partition("\n## ")[0]
    return [tuple(row) for row in re.findall(r"^\| `(\w+)` \| (.+?) \| (yes|no) \|", section, re.MULTILINE)]


def test_the_schema_page_has_every_column_of_the_table() -> None:
    assert documented("Columns") == rows(item_schema(load_space("demo"), pa.schema([])))


def test_the_schema_page_has_every_column_of_the_rejects() -> None:
    assert documented("Rejects") == rows(REJECT_COLUMNS)


def test_the_schema_page_has_every_column_of_the_tombstones_and_the_runs() -> None:
    assert documented("Deleted") == rows(TOMBSTONE_COLUMNS)
    assert documented("Runs") == rows(RUN_COLUMNS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!\w+:|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
