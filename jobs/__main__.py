"""`bindery VERB ...`: the same as `python -m jobs.VERB ...`. In: argv. Out: the verb's exit code.

A verb is a file of this folder with a `main(argv) -> int`; there is no list of them.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sys
from pathlib import Path

NOT_VERBS = ("__main__", "config", "proof", "rehearsal", "trainer", "training_logs", "training_worker", "verdict")


def verbs() -> list[str]:
    """The verbs there are, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name not in NOT_VERBS)


def _about(verb: str) -> str:
    """What a verb's file says first of itself. It is not imported: that takes seconds, of all of them."""
    told = ast.get_docstring(ast.parse((Path(__file__).parent / f"{verb}.py").read_text())) or ""
    return re.split(r"(?<=[.:])\s", told)[0].rstrip(".:")


def _help() -> str:
    wide = max(map(len, verbs()))
    return "\n".join(
        ["usage: bindery VERB ...   (bindery VERB --help)", "", *(f"  {verb:{wide}}  {_about(verb)}" for verb in verbs())]
    )


def main() -> int:
    """Run the verb that argv names."""
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb in ("-h", "--help"):
        print(_help())
        return 0
    if verb not in verbs():
        print(f"no verb {verb!r}\n{_help()}" if verb else _help(), file=sys.stderr)
        return 2
    del sys.argv[1]  # the rest is the verb's own command line
    code: int = importlib.import_module(f"jobs.{verb}").main()
    return code


if __name__ == "__main__":
    sys.exit(main())
