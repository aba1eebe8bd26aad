"""What the encoders' tests share. In: the environment. Out: fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of the reference's media and answers, which may not be redistributed."""
    if "BINDERY_REFERENCE_DIR" not in os.environ:
        pytest.skip("not run: set BINDERY_REFERENCE_DIR to the folder with golden_preprocess.safetensors and media/")
    return Path(os.environ["BINDERY_REFERENCE_DIR"])
