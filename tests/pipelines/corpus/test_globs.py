"""Globs and braces as pure functions of strings."""

import pytest

from pipelines.corpus.globs import Filter, expand_braces


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("a.tar", ["a.tar"]),
        ("s-{000..002}.tar", ["s-000.tar", "s-001.tar", "s-002.tar"]),
        ("s-{8..11}", ["s-8", "s-9", "s-10", "s-11"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{a,{b,c}}", ["a", "b", "a", "c"]),
        ("{}", [""]),
    ],
)
def test_braces_stand_for_each_of_their_choices(pattern: str, paths: list[str]) -> None:
    assert expand_braces(pattern) == paths


def test_braces_that_stand_for_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 1,000,000"):
        expand_braces("{0..99999999}")


@pytest.mark.parametrize(
    ("pattern", "matches", "misses"),
    [
        ("*.jpg", ["a.jpg", "x/y/a.jpg"], ["a.jpeg", "a.jpg/b", "A.JPG"]),
        ("x/*.jpg", ["x/a.jpg"], ["a.jpg", "x/y/a.jpg", "z/x/a.jpg"]),
        ("**/y/*", ["y/a", "x/y/a"], ["y", "x/y/z/a"]),
        ("x/**", ["x/a", "x/y/a"], ["xx/a"]),
        ("/a", ["a"], ["x/a"]),
        ("[ab]?.png", ["a1.png", "x/b2.png"], ["c1.png", "a.png"]),
        ("*.{png,jpg}", ["a.png", "b.jpg"], ["c.gif"]),
        ("a+(b).jpg", ["a+(b).jpg"], ["aab.jpg"]),
    ],
)
def test_a_glob_matches_what_it_says(pattern: str, matches: list[str], misses: list[str]) -> None:
    for path in matches:
        assert Filter(include=[pattern]).wants(path), path
        assert not Filter(exclude=[pattern]).wants(path), path
    for path in misses:
        assert not Filter(include=[pattern]).wants(path), path
        assert Filter(exclude=[pattern]).wants(path), path


def test_only_folders_that_are_excluded_as_a_whole_are_closed() -> None:
    chosen = Filter(exclude=["x/**", "*.jpg", "**/tmp/**"])
    assert [folder for folder in ("x", "y", "x/y", "y/tmp", "tmp") if not chosen.enters(folder)] == ["x", "y/tmp", "tmp"]
    assert Filter(include=["x/**"]).enters("y")
