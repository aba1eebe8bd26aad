"""What a test does that needs a program this machine lacks. In: the reason. Out: a skip that says it; in CI a failure."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def not_run(reason: str) -> NoReturn:
    """End the test: where BINDERY_REQUIRE_ALL is 1, as in CI, a test that does not run is a failure."""
    (pytest.fail if os.environ.get("BINDERY_REQUIRE_ALL") == "1" else pytest.skip)(f"not run: {reason}")
