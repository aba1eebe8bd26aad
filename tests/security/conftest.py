"""The proxy of the chaos suite serves here too: it sees every request that reaches the store."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "chaos"))
