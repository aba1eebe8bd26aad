"""The proxy of the chaos suite serves here, too: it sees every request to the store. So does what renders manifests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / name) for name in ("chaos", "infra")]
