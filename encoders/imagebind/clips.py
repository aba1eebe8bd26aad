"""What ImageBind's preprocesses share: the profile, and where clips lie in a long medium. In: durations. Out: starts.

Profile "reference" gives what the published loaders give, quirks included. "bindery" differs where these are plainly wrong:
docs/imagebind.md tells where, why, and how far that moves vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

Profile = Literal["reference", "bindery"]

CLIP_S = 2.0


def clip_starts(duration_s: float, count: int) -> list[Fraction]:
    """Where clips of CLIP_S begin, in seconds: evenly spaced, the last one at the end; all at 0 in a shorter medium.

    Exact fractions of the rounded double `max(duration_s - 2, 0)`, as rounding decides which sample or frame is the first.
    """
    last = Fraction(max(duration_s - CLIP_S, 0.0))
    return [last * k / (count - 1) for k in range(count)]


@dataclass(frozen=True)
class Profiled:
    """Settings that every preprocess has."""

    profile: Profile = "bindery"

    def __post_init__(self) -> None:
        if self.profile not in get_args(Profile):
            raise ValueError(f"no profile {self.profile!r}; there are {', '.join(get_args(Profile))}")

    @property
    def exact(self) -> bool:
        """Whether the published loaders' quirks are wanted."""
        return self.profile == "reference"
