"""The table of faults. In: outcomes. Out: Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from points import Outcome

HEAD = (
    "fault",
    "where",
    "table",
    "struck",
    "exit codes",
    "survived",
    "lost",
    "twice",
    "wrong",
    "rejects wrong",
    "embedded again",
    "s",
)


def markdown(outcomes: Sequence[Outcome], seed: int) -> str:
    """Sums, then a row a chain. What did not strike (it came too late for its run) is counted apart."""
    faults = sum(len(o.struck) for o in outcomes)
    struck = sum(sum(o.struck) for o in outcomes)
    names = ("lost", "twice", "wrong", "rejects_wrong", "embedded_again")
    sums = {name: sum(getattr(o, name) for o in outcomes) for name in names}
    lines = [
        "# Chaos: what was killed, and what became of the table",
        "",
        f"Made by `python tests/chaos`, seed {seed}: {faults} faults in {len(outcomes)} chains; {struck} came in time to "
        f"strike; {sum(o.survived for o in outcomes)} chains survived. Rows lost: {sums['lost']}; rows twice: "
        f"{sums['twice']}; wrong rows: {sums['wrong']}; wrong rejects: {sums['rejects_wrong']}; items embedded again: "
        f"{sums['embedded_again']}. A reader read {sum(o.reader_reads for o in outcomes):,} times and saw "
        f"{sum(len(o.reader_saw) for o in outcomes)} things that no reader may see.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
    ]
    for o in outcomes:
        came = " ".join("yes" if one else "no" for one in o.struck)
        codes, well = " ".join(map(str, o.codes)), "yes" if o.survived else "**no**"
        numbers = (o.lost, o.twice, o.wrong, o.rejects_wrong, o.embedded_again, o.seconds)
        cells = (o.fault, o.where, o.scenario, came, codes, well, *numbers)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"
