"""How sources are cut into items. In: the `--segment` setting, decoded media. Out: parts of work, segments with their keys.

A long source is worked on in parts, so that no task lasts as long as a film does; each part makes some of its segments. Which
segments there are depends on the setting and on the medium alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from encoders.encoder import Encoder
from encoders.errors import DecodeError
from encoders.media.scenes import SCENES, find_scenes
from encoders.media.scenes import SHORTEST_S as SHORTEST_SCENE_S
from encoders.media.text import decode_text

TIMED = ("audio", "imu", "video")  # whose decoded media have `duration_s` and `part(start_s, end_s)`
PART_S = 300.0  # of a medium that one task works on at most, about
TASK_BYTES = 64 * 1024**2  # of media that one task reads, if it reads more than one window or source: seconds for a core
SCENE_PART_S = 60.0  # where every frame is decoded to find the cuts: in 4K a task of minutes, see docs/media.md
SHORTEST_S = 0.001  # what is left at the end of a medium; keys are in milliseconds, and less would give two windows one key
_WINDOWS = re.compile(r"(?P<length>\d+(\.\d+)?)s?(/(?P<hop>\d+(\.\d+)?)s?)?")


@dataclass(frozen=True)
class Cut:
    """How the sources of one modality become items.

    "whole": one item a source. "windows": `length_s` long, one every `hop_s`, the last one moved back to end with the medium.
    "scenes": from cut to cut of a video, and cut at every full minute too (SCENE_PART_S) that leaves enough for a scene.
    "context": parts of a text that fit the tower's context.
    """

    kind: Literal["whole", "windows", "scenes", "context"] = "whole"
    length_s: float = 0.0
    hop_s: float = 0.0

    @property
    def name(self) -> str:
        """What goes into the recipe, and back into `parse_cut`."""
        return f"{_written(self.length_s)}/{_written(self.hop_s)}" if self.kind == "windows" else self.kind

    @property
    def mark(self) -> str:
        """The name, and whatever else decides where the segments lie."""
        parts = f"{SCENE_PART_S:g}-{SCENE_PART_S + SHORTEST_SCENE_S:g}"
        return f"{self.name} {SCENES} {parts}" if self.kind == "scenes" else self.name


WHOLE = Cut()


@dataclass(frozen=True)
class Segment:
    """What gets one vector.

    Attributes:
        key: "" for a whole source, `start_ms-end_ms`, or `first-end` in characters of a text.
        start_s, end_s: seconds from the start of the medium; None for whole sources and texts.
        medium: the decoded medium, or the stretch of it.
    """

    key: str
    start_s: float | None
    end_s: float | None
    medium: Any


def parse_cut(name: str) -> Cut:
    """A cut by its name: "whole", "scenes", "context", "10" or "10/5" (seconds: length/hop).

    Raises:
        ValueError: it is none of these, or the numbers cannot work.
    """
    if name in ("whole", "scenes", "context"):
        return Cut(name)  # type: ignore[arg-type]
    match = _WINDOWS.fullmatch(name)
    if match is None:
        raise ValueError(f"segment {name!r} is not 'whole', 'scenes', 'context' or seconds as in '10' or '10/5' (length/hop)")
    length_s = round(float(match["length"]), 3)
    hop_s = round(float(match["hop"] or length_s), 3)
    if not (length_s >= 0.1 and 0.1 <= hop_s <= length_s):
        raise ValueError(f"segment {name!r}: a window is at least 0.1 s long, and the hop 0.1 s up to that length")
    return Cut("windows", length_s, hop_s)


def parse_cuts(setting: str, modalities: Collection[str]) -> dict[str, Cut]:
    """The `--segment` setting for each modality of a space.

    A bare name goes to every modality it suits: seconds to audio, imu and video, "scenes" to video, "context" to text.
    `modality=name` pairs, separated by commas, say it one by one; what is not said stays whole.

    Raises:
        ValueError: a name or a modality that is not known.
    """
    cuts = dict.fromkeys(modalities, WHOLE)
    for word in setting.split(","):
        modality, _, name = word.strip().rpartition("=")
        cut = parse_cut(name)
        if modality and modality not in modalities:
            raise ValueError(
                f"segment {word!r}: the space has no encoder for {modality!r}; it has {', '.join(sorted(modalities))}"
            )
        suited = {"whole": tuple(modalities), "windows": TIMED, "scenes": ("video",), "context": ("text",)}[cut.kind]
        if modality and cut.kind in ("scenes", "context") and modality not in suited:
            raise ValueError(f"segment {word!r}: {cut.kind} are of {suited[0]} only")
        for one in [modality] if modality else [m for m in modalities if m in suited]:
            cuts[one] = cut
    return cuts


def count_parts(cut: Cut, decoded: Any, size_bytes: int | None = None) -> int:
    """Into how many parts the work on a medium, of so many bytes where that is known, is cut."""
    if cut.kind == "windows":
        duration_s = _duration_s(decoded)
        return -(-_window_count(cut, duration_s) // _windows_a_part(cut, duration_s, size_bytes))
    if cut.kind == "scenes":
        return _scene_parts(_duration_s(decoded))
    return 1


def segments(cut: Cut, encoder: Encoder, decoded: Any, part: int, size_bytes: int | None = None) -> Sequence[Segment]:
    """The segments that one part of a medium makes; at least one. `size_bytes`: as in `count_parts`.

    Raises:
        DecodeError: the medium cannot be cut so, or is damaged where it is looked at.
    """
    if cut.kind == "windows":
        duration_s = _duration_s(decoded)
        count, each = _window_count(cut, duration_s), _windows_a_part(cut, duration_s, size_bytes)
        last_s = max(0.0, duration_s - cut.length_s)
        starts_s = [min(k * cut.hop_s, last_s) for k in range(part * each, min(count, (part + 1) * each))]
        return [_timed(decoded, start_s, min(start_s + cut.length_s, duration_s)) for start_s in starts_s]
    if cut.kind == "scenes":
        last = part + 1 == _scene_parts(decoded.duration_s)
        found = find_scenes(decoded, part * SCENE_PART_S, decoded.duration_s if last else (part + 1) * SCENE_PART_S)
        return [_timed(decoded, start_s, end_s) for start_s, end_s in found]
    if cut.kind == "context" and encoder.spans is not None:
        text = decode_text(decoded)
        return [Segment(f"{first}-{end}", None, None, text.part(first, end)) for first, end in encoder.spans(text)]
    return [Segment("", None, None, decoded)]


def _written(seconds: float) -> str:
    """To the millisecond, as `parse_cut` reads it: 10, 2.5."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def _timed(decoded: Any, start_s: float, end_s: float) -> Segment:
    key = f"{round(start_s * 1000)}-{round(end_s * 1000)}"
    return Segment(key, start_s, end_s, decoded.part(start_s, end_s))


def _window_count(cut: Cut, duration_s: float) -> int:
    return 1 + math.ceil(max(0.0, duration_s - cut.length_s - SHORTEST_S) / cut.hop_s - 1e-9)


def _scene_parts(duration_s: float) -> int:
    """A rest that is shorter than a scene may be belongs to the part before it."""
    return max(1, math.ceil((duration_s - SHORTEST_SCENE_S) / SCENE_PART_S))


def _windows_a_part(cut: Cut, duration_s: float, size_bytes: int | None) -> int:
    part_s = min(PART_S, TASK_BYTES * duration_s / size_bytes) if size_bytes else PART_S
    return max(1, int(part_s / cut.hop_s))


def _duration_s(decoded: Any) -> float:
    if not hasattr(decoded, "part"):
        raise DecodeError(f"a {type(decoded).__name__} has no length in time and cannot be cut into windows; segment it whole")
    return float(decoded.duration_s)
