"""Plan against fact: what a dry run said of a run stands beside what it took."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.embed import EmbedSettings, embed
from pipelines.fact import read_plan

IMAGE = {"sources": 3, "by_clock_s": {"decode": 0.1, "tower": 0.2}}
PLAN = {"seconds": 20.0, "work_s": 8.0, "with_towers": True, "modalities": {"image": IMAGE}}
REPORT = {"job": "embed", "corpus": "/media", "space_fingerprint": "f", "plan": PLAN}


def written(place: Path, content: Any) -> str:
    """A file of JSON."""
    place.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(place)


def test_the_report_of_a_dry_run_is_a_plan(tmp_path: Path) -> None:
    assert read_plan(written(tmp_path / "plan.json", REPORT), "/media", "f") == PLAN


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no JSON", "no report of"),
        ([1], "no report of"),
        ({**REPORT, "plan": None}, "no report of"),
        ({**REPORT, "plan": {"seconds": 3}}, "no report of"),
        ({**REPORT, "corpus": "/other"}, "of corpus '/other', this run's is '/media'"),
        ({**REPORT, "space_fingerprint": "g"}, "of space 'g'"),
    ],
)
def test_another_file_is_refused_with_what_to_do(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){said}.*--dry-run --report"):
        read_plan(written(tmp_path / "plan.json", content), "/media", "f")


def test_a_file_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.txt").write_text("a dog barks")
    settings = {"corpus": str(tmp_path / "media"), "db": str(tmp_path / "db")}
    with pytest.raises(ValueError, match="does not exist; make one"):
        embed(EmbedSettings(**settings, plan=str(tmp_path / "plan.json")))
    assert not (tmp_path / "db").exists()
    with pytest.raises(ValueError, match="leave out one of"):
        EmbedSettings(**settings, plan="plan.json", dry_run=True)


@pytest.mark.usefixtures("ray_local")
def test_a_run_says_how_right_its_plan_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    media, buffer = tmp_path / "media", io.BytesIO()
    media.mkdir()
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(buffer, "JPEG")
    for k in range(80):
        (media / f"{k:03}.jpg").write_bytes(buffer.getvalue())
    settings = {"corpus": str(media), "db": str(tmp_path / "db")}
    plan = written(tmp_path / "plan.json", embed(EmbedSettings(**settings, dry_run=True)).to_json())
    report = embed(EmbedSettings(**settings, plan=plan))
    found = json.loads(report.to_json())["plan_vs_fact"]
    assert found["modalities"]["image"]["sources"] == {"planned": 80, "actual": 80.0, "ratio": 1.0}
    assert found["seconds"]["ratio"] == pytest.approx(found["seconds"]["planned"] / found["seconds"]["actual"], rel=0.01)
    assert 0 < found["work_s"]["actual"] < found["seconds"]["actual"] <= report.seconds
    assert found["modalities"]["image"]["tower_s"]["actual"] > 0
    assert "plan / fact" in capsys.readouterr().err
