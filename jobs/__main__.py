"""`bindery VERB ...`: the same as `python -m jobs.VERB ...`. In: argv. Out: the verb's exit code.

A verb is a file of this folder with a `main(argv) -> int`; there is no list of them.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

NOT_VERBS = ("__main__", "config", "proof", "rehearsal", "trainer", "training_logs", "training_worker", "verdict")


def verbs() -> list[str]:
    """The verbs there are, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name not in NOT_VERBS)


def main() -> int:
    """Run the verb that argv names."""
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb not in verbs():
        asked = "" if verb in ("", "-h", "--help") else f"no verb {verb!r}; "
        print(f"{asked}usage: bindery {{{','.join(verbs())}}} ...   (bindery VERB --help)", file=sys.stderr)
        return 0 if verb in ("-h", "--help") else 2
    del sys.argv[1]  # the rest is the verb's own command line
    code: int = importlib.import_module(f"jobs.{verb}").main()
    return code


if __name__ == "__main__":
    sys.exit(main())
