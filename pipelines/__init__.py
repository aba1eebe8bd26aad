"""Ray Data and Lance: corpus to table, and the table read. In: media anywhere. Out: vectors in LanceDB, answers."""

from __future__ import annotations

import gc
import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.hits import Hits
    from pipelines.index import Index, open_index

# Lance warns of each step that it could take faster, thousands of times; read once, when it is imported. What fails it raises.
os.environ.setdefault("LANCE_LOG", "error")

# Of what is imported nothing becomes garbage; looked through after every 700 objects, it takes a fifth longer in each process.
if 0 < gc.get_threshold()[0] < 50_000:
    gc.set_threshold(50_000, *gc.get_threshold()[1:])

__all__ = ["Hits", "Index", "open_index"]

_HOMES = {"Hits": "pipelines.hits", "Index": "pipelines.index", "open_index": "pipelines.index"}


def __getattr__(name: str) -> Any:
    """The read side, imported when it is asked for: workers that embed need neither LanceDB nor pandas."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)
