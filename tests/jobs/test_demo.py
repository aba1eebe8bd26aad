"""What `make demo` runs, whole: a world, a table, answers that are right, a page that needs nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from html_page import Tags

from jobs.demo import main
from pipelines.demo_tour import take_tour
from pipelines.index import open_index

MAX_PAGE_BYTES = 5_000_000


@pytest.fixture(scope="module")
def folder(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    assert main(["--out", str(out)]) == 0
    return out


def test_every_answer_is_right_where_it_shows_itself(folder: Path) -> None:
    sentence, sounds, pictures, trace, both = take_tour(open_index(str(folder / "index")), folder / "questions")
    assert len(sentence.hits or ()) == 7
    for answer in (sounds, pictures, both):
        assert answer.hits
        first = next(iter(answer.hits))
        assert {name: first[name] for name in answer.wanted} == answer.wanted, answer.title
    assert trace.labels[0][0] == trace.wanted["thing"]


def test_such_questions_are_answered_far_above_chance(folder: Path) -> None:
    answers = take_tour(open_index(str(folder / "index")), folder / "questions")
    numbers = [[int(number) for number in re.findall(r"\d+", answer.measured)] for answer in answers]
    assert numbers[1][0] == 144 and numbers[1][1] >= 110  # sentences that find their sound
    assert numbers[2][0] == 144 and numbers[2][1] >= 110  # sounds that find their picture
    assert numbers[3][0] == 144 and numbers[3][1] >= 130  # traces named right
    _, both, picture_alone, sound_alone = numbers[4]
    assert both >= 20 and both >= 2 * max(picture_alone, sound_alone)  # there is one right picture among 143


def test_the_page_holds_all_it_shows(folder: Path) -> None:
    page = (folder / "demo.html").read_text()
    tags = Tags(page).found
    sources = [attributes.get("src") or "" for tag, attributes in tags if tag in ("img", "audio", "video")]
    assert len(sources) >= 25 and all(source.startswith("data:") for source in sources)
    assert {"img", "audio", "video"} <= {tag for tag, _ in tags}
    assert not [tag for tag, _ in tags if tag in ("script", "link", "iframe")] and "url(" not in page
    assert len(page.encode()) <= MAX_PAGE_BYTES
    named = re.findall(r" demo/(media/\S+)", page)
    assert named and all((folder / path).is_file() for path in named)


def test_a_second_run_embeds_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(folder)]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["embedded"] == 0 and report["unchanged"] == 7 * 144
