"""What a space must reach before tables use it. In: "metric=value" words, an evaluation. Out: checks that passed or failed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from encoders.errors import SpaceError


@dataclass(frozen=True)
class Check:
    """One score, what was asked of it, and whether it was reached. `value` is None where the sample did not allow the score."""

    metric: str
    minimum: float
    value: float | None

    @property
    def passed(self) -> bool:
        """Whether the score is there and not below the minimum."""
        return self.value is not None and self.value >= self.minimum

    def __str__(self) -> str:
        found = "could not be scored" if self.value is None else f"is {self.value:.3f}"
        return f"{self.metric} {found}, at least {self.minimum:g} was asked for"


def parse_minimums(words: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """`["audio.image.R@5=0.9"]` -> {"audio.image.R@5": 0.9}, before anything is trained or embedded.

    Args:
        words: as the command line has them.
        names: the scores there will be (`encoders.evaluation.metric_names`).

    Raises:
        SpaceError: a word that is no metric=value, a score there will not be, or a value that is no share.
    """
    minimums: dict[str, float] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0) or ["none: nothing can be compared"]
            raise SpaceError(f"--min {word!r} names no score of this evaluation; the nearest there are: {', '.join(near)}")
        try:
            minimums[name] = float(number)
        except ValueError as error:
            raise SpaceError(f"--min {word!r}: {number!r} is no number; write metric=value with a value from 0 to 1") from error
        if not 0 <= minimums[name] <= 1:
            raise SpaceError(f"--min {word!r}: scores are shares, so a minimum is from 0 to 1")
    return minimums


def checked(metrics: Mapping[str, float], minimums: Mapping[str, float]) -> list[Check]:
    """Each minimum with the score that was found."""
    return [Check(metric, minimum, metrics.get(metric)) for metric, minimum in minimums.items()]
