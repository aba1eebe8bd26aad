"""Values of ours stay values, and a user's filter stays beside ours, on a real table."""

from __future__ import annotations

import random
import re
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from pipelines.filters import conjunction, explained, is_in, quoted

SIGNS = [
    "'",
    '"',
    "`",
    "\\",
    "--",
    "/*",
    "*/",
    ";",
    "(",
    ")",
    "%",
    "_",
    "?",
    "$1",
    ":x",
    "\n",
    "\t",
    "\0",
    " OR ",
    "'a'",
    "ü",
    "🐕",
    "a",
    "1",
]


def odd_strings(count: int) -> list[str]:
    dice = random.Random(7)
    return sorted({"".join(dice.choices(SIGNS, k=dice.randint(1, 6))) for _ in range(count)})


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[lance.LanceDataset, list[str]]:
    values = odd_strings(150)
    rows = pa.table({"name": values, "kind": ["a" if n % 2 else "b" for n in range(len(values))]})
    return lance.write_dataset(rows, str(tmp_path_factory.mktemp("table") / "t.lance")), values


def test_a_quoted_value_finds_itself_and_nothing_else(table: tuple[lance.LanceDataset, list[str]]) -> None:
    dataset, values = table
    for value in values:
        assert dataset.to_table(filter=f"name = {quoted(value)}")["name"].to_pylist() == [value]
        assert dataset.to_table(filter=is_in("name", [value, "nobody"]))["name"].to_pylist() == [value]
    assert dataset.count_rows(filter=is_in("name", values)) == len(values)


def test_no_filter_of_a_user_widens_ours(table: tuple[lance.LanceDataset, list[str]]) -> None:
    """Whatever is written: it is refused by us, refused by Lance, or finds only what our condition lets through."""
    dataset, values = table
    dice, accepted, refused = random.Random(8), 0, 0
    clauses = ["true", "kind = 'b'", "name IS NOT NULL", "NOT (kind = 'a')", "kind IN ('b')", "name LIKE '%'", "1 = 1", "''=''"]

    def written() -> str:
        words = [dice.choice(clauses)]
        for _ in range(dice.randint(0, 3)):
            words += [dice.choice(["OR", "AND", "OR NOT", ")", "(", ") OR (", "--", ";", "/*", "UNION"]), dice.choice(clauses)]
        words.insert(dice.randint(0, len(words)), dice.choice(["", "", "", *SIGNS]))
        return " ".join(words)

    for where in [*values, *(written() for _ in range(400))]:
        try:
            found = dataset.to_table(filter=conjunction(where, is_in("kind", ["a"])))
        except ValueError:
            refused += 1
        else:
            accepted += 1
            assert set(found["kind"].to_pylist()) <= {"a"}, where
    assert accepted > 20 and refused > 40


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("name = ?", "a placeholder"),
        ("name = $1", "a placeholder"),
        ("name = $$a$$", "a placeholder"),
        ("name = :x", "a placeholder"),
        ("name = b'a'", "a string with a prefix"),
        ("name = N'a'", "a string with a prefix"),
        ("name = 'a'; true", "a semicolon"),
        ("true -- ", "a comment"),
        ("true /* */", "a comment"),
        ("name = 'a", "a ' that is not closed"),
        ("true) OR (true", "parentheses that don't match"),
    ],
)
def test_what_would_make_lance_panic_or_mislead_it_is_named_before_lance_sees_it(where: str, named: str) -> None:
    with pytest.raises(ValueError, match=f"where=.* has .*{re.escape(named)}"):
        conjunction(where, "kind = 'a'")


def test_a_cast_and_signs_within_strings_are_let_through() -> None:
    for where in ("rating::int = 1", "name = 'a; b? -- $1 :x'", "name = 'it''s'", "`odd; name` = 1"):
        assert conjunction(where, "kind = 'a'") == f"kind = 'a' AND ({where})"


def test_a_complaint_names_the_filter_and_the_columns_and_others_pass() -> None:
    with pytest.raises(ValueError, match=r"where='x' cannot be used: odd; the columns are a, b"), explained("x", ["a", "b"]):
        raise RuntimeError("odd")
    with pytest.raises(RuntimeError, match="odd"), explained(None, ["a"]):
        raise RuntimeError("odd")
    with pytest.raises(OSError, match="store"), explained("x", ["a"]):
        raise OSError("store")


def test_our_conditions_alone_make_a_filter_or_none(tmp_path: Path) -> None:
    assert conjunction(None) is None
    assert conjunction(None, "a = 1", "b = 2") == "a = 1 AND b = 2"
    assert conjunction("c OR d", "a = 1") == "a = 1 AND (c OR d)"
