"""Does one modality crowd out the others? In: nothing. Out: benchmarks/results/calibration.json.

    .venv/bin/python -m benchmarks.calibration

Embeds the held-out demo world, 144 scenes in seven modalities, and asks for "a THING PLACE" 144 times over all modalities, in
the order of the cosine and of the calibrated score: how many hits show the thing, and how evenly modalities are met. Then adds
up a picture of a thing and the sound of another place, plain and centred: how often the first picture shows both.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.synthetic import machine
from pipelines.demo_world import PLACE_WORDS, PLACES, THINGS, ambience
from pipelines.index import Index, open_index

RESULT = Path(__file__).parent / "results" / "calibration.json"
SCENES, K = 144, 10
SOUND_RATE_HZ = 16_000


def mixed(index: Index, calibrated: bool) -> dict[str, Any]:
    """Words over all modalities."""
    asked = [(thing, f"a {thing} {PLACE_WORDS[place][0]}") for thing in THINGS for place in PLACES]
    found = index.search_many([words for _, words in asked], k=K, calibrated=calibrated, columns=["thing", "modality"])
    tables = [hits.to_arrow() for hits in found]
    right = [thing == shown for (thing, _), table in zip(asked, tables, strict=True) for shown in table["thing"].to_pylist()]
    shares = Counter(name for table in tables for name in table["modality"].to_pylist())
    return {
        "hits_that_show_the_thing": round(float(np.mean(right)), 3),
        "modalities_among_ten_hits": round(float(np.mean([len(set(t["modality"].to_pylist())) for t in tables])), 2),
        "share_by_modality": {name: round(count / len(right), 3) for name, count in sorted(shares.items())},
    }


def sums(index: Index, folder: Path, centred: bool) -> float:
    """How often picture + ambience of another place find a picture of both first, the asking scene left out."""
    pictures = index.search("anything", modality="image", k=SCENES, columns=["scene", "thing", "place"]).to_arrow().to_pylist()
    right = []
    for place in PLACES:
        sound = folder / f"{place}.wav"
        soundfile.write(sound, ambience(place, 8_000_004), SOUND_RATE_HZ)
        some = [picture for picture in pictures if picture["place"] != place]
        queries = [{"item_id": picture["item_id"], "audio": sound} for picture in some]
        for picture, hits in zip(
            some,
            index.search_many(queries, modality="image", k=2, centred=centred, columns=["scene", "thing", "place"]),
            strict=True,
        ):
            first = next(hit for hit in hits if hit["scene"] != picture["scene"])
            right.append((first["thing"], first["place"]) == (picture["thing"], place))
    return round(float(np.mean(right)), 3)


def main() -> None:
    """Measure, write the result, print it."""
    with tempfile.TemporaryDirectory(prefix="calibration-") as name:
        folder = Path(name)
        for job in (
            ["jobs.make_demo", "--scenes", str(SCENES), "--held-out", "--out", f"{name}/media"],
            ["jobs.embed", f"{name}/media", "--db", f"{name}/db"],
        ):
            subprocess.run([sys.executable, "-m", *job], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        index = open_index(f"{name}/db")
        result = {
            "what": "144 sentences over seven modalities; 720 sums of a picture and a sound",
            **machine(),
            "by_cosine": mixed(index, calibrated=False),
            "by_score": mixed(index, calibrated=True),
            "sums_right_first": {"plain": sums(index, folder, centred=False), "centred": sums(index, folder, centred=True)},
        }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
