"""A folder that tests can read over HTTP; the fixture `http_folder` serves it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HttpFolder:
    """What is put under `path` can be read, in ranges too, under `url` (no slash at its end); `url/` lists it."""

    path: Path
    url: str
