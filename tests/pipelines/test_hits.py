"""What a search shows: escaped, self-contained, and readable in a terminal."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import s3fs
import soundfile
from html_page import Tags
from http_folder import HttpFolder
from PIL import Image
from sample_media import sample, sample_files
from searchable import make_media, make_space, rows_of, write_table

from encoders import load_space
from pipelines import hits as module
from pipelines.hits import Hits
from pipelines.index import Index, open_index
from pipelines.reach import Reach

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>\x1b[2J"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("db")
    write_table(folder, rows_of(make_space(folder), make_media(folder / "media", 3)))
    return open_index(str(folder))


def hit(**columns: Any) -> Hits:
    return Hits(pa.Table.from_pylist([{"similarity": 0.5, "item_id": "1", "modality": "audio", **columns}]), "text")


def sound(path: Path) -> Path:
    soundfile.write(path, np.zeros(1600), 16_000)
    return path


def test_rows_come_out_in_every_form(index: Index) -> None:
    hits = index.search("dog", k=5)
    frame = hits.to_pandas()
    assert len(hits) == 5 and [row["item_id"] for row in hits] == frame["item_id"].tolist()
    assert list(frame.columns[:2]) == ["similarity", "score"] and frame["score"].is_monotonic_decreasing
    assert hits.to_arrow().column_names == hits.to_polars().columns == list(frame.columns)
    assert hits.to_polars()["item_id"].to_list() == frame["item_id"].tolist()


def test_the_table_for_terminals_has_a_line_a_hit(index: Index) -> None:
    hits = index.search("dog", k=3, modality="text")
    heading, titles, *lines = repr(hits).splitlines()
    assert heading == '3 hits for text "dog"'
    assert titles.split() == ["#", "similarity", "score", "modality", "name", "what", "labels"]
    for line, row in zip(lines, hits, strict=True):
        assert f"{row['similarity']:.3f}" in line and f" {row['score']:.2f} " in line
        assert row["text"][:20] in line and f"thing={row['thing']}" in line


def test_a_score_is_shown_where_there_is_one(index: Index) -> None:
    found = index.search("dog", k=1)
    assert f"score {found.to_pandas()['score'][0]:.2f}" in found._repr_html_()
    assert "score" not in hit()._repr_html_() and "score" not in repr(hit())


def test_a_hit_cannot_steer_the_terminal_or_break_its_line() -> None:
    shown = repr(hit(text="one\ntwo\x1b]0;owned\x07", uri="a/\x1b[31m.wav"))
    assert "\x1b" not in shown and "\x07" not in shown and len(shown.splitlines()) == 3


def test_every_value_of_a_card_is_escaped() -> None:
    evil = dict.fromkeys(("modality", "uri", "mime", "text", "thing"), EVIL)
    page = Hits(hit(**evil).rows, EVIL)._repr_html_()
    tags = Tags(page).found
    assert {tag for tag, _ in tags} <= {"style", "div", "small", "figure", "blockquote", "figcaption", "b", "i", "p", "span"}
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)


@pytest.mark.parametrize("uri", ["javascript:alert(1)", "/etc/passwd", "s3://bucket/a.wav", "file:///etc/passwd"])
def test_only_web_addresses_become_links(uri: str) -> None:
    assert "<a " not in hit(uri=uri)._repr_html_()
    assert '<a href="https://host/a.wav"' in hit(uri="https://host/a.wav")._repr_html_()


def test_a_page_needs_nothing_from_outside(index: Index) -> None:
    tags = Tags(index.search("dog", k=12)._repr_html_()).found
    sources = [attributes.get("src") or "" for tag, attributes in tags if tag in ("img", "audio", "video")]
    assert len(sources) == 12 - 3 + 3  # every item but the texts has a picture; each sound has a player too
    assert all(source.startswith("data:") for source in sources)
    assert not [tag for tag, _ in tags if tag in ("script", "link", "iframe")]


def test_a_small_sound_can_be_played(tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav")
    page = hit(uri=str(path), mime="audio/wav", size_bytes=path.stat().st_size)._repr_html_()
    held = re.search(r'<audio src="data:audio/wav;base64,([^"]+)"', page)
    assert held and base64.b64decode(held[1]) == path.read_bytes()


def test_words_stand_alone_on_a_card_and_numbers_have_a_name() -> None:
    shown = re.findall(r"<span title[^>]*>([^<]*)</span>", hit(thing="dog", scene=7, rainy=True, empty="")._repr_html_())
    assert shown == ["dog", "scene 7", "rainy True", "empty "]


@pytest.mark.parametrize("size", [None, 0, module.MAX_PLAYER_BYTES + 1])
def test_a_sound_of_no_or_large_size_has_no_player(tmp_path: Path, size: int | None) -> None:
    assert "<audio" not in hit(uri=str(sound(tmp_path / "a.wav")), mime="audio/wav", size_bytes=size)._repr_html_()


def test_a_file_that_grew_since_is_not_put_into_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PLAYER_BYTES", 1000)
    assert "<audio" not in hit(uri=str(sound(tmp_path / "a.wav")), mime="audio/wav", size_bytes=10)._repr_html_()


@pytest.mark.parametrize("uri", ["/nowhere/a.wav", "shards.tar/member/a.wav", "nosuch://a.wav", "http://127.0.0.1:9/a.wav"])
def test_what_cannot_be_read_is_shown_without_a_player(uri: str) -> None:
    page = hit(uri=uri, mime="audio/wav", size_bytes=10)._repr_html_()
    assert "<audio" not in page and "a.wav" in page


def test_a_page_asks_no_web_server_and_no_store_that_a_corpus_may_not_name(
    http_folder: HttpFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sound(http_folder.path / "a.wav")
    monkeypatch.setattr(module, "PUBLIC", Reach(hosts=("127.0.0.1",)))  # it could be read
    fsspec.filesystem("memory").pipe_file("/a.wav", path.read_bytes())
    for uri in (f"{http_folder.url}/a.wav", "memory://a.wav"):
        page = hit(uri=uri, mime="audio/wav", size_bytes=path.stat().st_size)._repr_html_()
        assert "<audio" not in page and "a.wav" in page


def test_a_store_that_does_not_answer_costs_the_player_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    page = hit(uri="s3://bucket/a.wav", mime="audio/wav", size_bytes=10)._repr_html_()
    s3fs.S3FileSystem.clear_instance_cache()
    assert "<audio" not in page and "a.wav" in page


def test_the_players_of_a_page_together_stay_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sound(tmp_path / "a.wav")
    row = {"similarity": 0.5, "uri": str(path), "mime": "audio/wav", "size_bytes": path.stat().st_size}
    monkeypatch.setattr(module, "MAX_PAGE_BYTES", int(2.5 * path.stat().st_size))
    assert Hits(pa.Table.from_pylist([row] * 5), "")._repr_html_().count("<audio") == 2


def test_a_preview_that_is_no_picture_is_left_out() -> None:
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "JPEG")
    assert '<img src="data:image/jpeg;base64,' in hit(preview=picture.getvalue())._repr_html_()
    assert "<img" not in hit(preview=b"<svg onload=alert(1)>")._repr_html_()


@pytest.mark.parametrize(
    ("modality", "player"),
    [("image", ""), ("video", "video"), ("audio", "audio"), ("depth", ""), ("thermal", ""), ("imu", ""), ("text", "")],
)
def test_each_modality_is_seen_or_heard(tmp_path: Path, modality: str, player: str) -> None:
    name, media = next(iter(sample_files(modality).items()))
    (tmp_path / name).write_bytes(media)
    encoder = load_space("demo").encoder(modality)
    facts = vars(encoder.describe(encoder.decode(tmp_path / name)))
    found = hit(**{**facts, "modality": modality, "uri": str(tmp_path / name), "size_bytes": len(media)})
    (card,) = found.cards()
    assert card.player == player and (card.media != "") == (player != "")
    assert card.text in found._repr_html_() if modality == "text" else card.preview.startswith("data:image/jpeg;base64,")
    assert (card.legend != "") == (modality in ("audio", "depth", "thermal", "imu"))


@pytest.mark.parametrize(("name", "told"), [("a.aiff", ""), ("a.flac", "audio/flac"), ("a.avi", ""), ("a.mov", "video/mp4")])
def test_only_what_browsers_play_has_a_player(tmp_path: Path, name: str, told: str) -> None:
    modality = "video" if name in sample_files("video") else "audio"
    media = sample_files(modality)[name]
    (tmp_path / name).write_bytes(media)
    encoder = load_space("demo").encoder(modality)
    mime = encoder.describe(encoder.decode(media)).mime
    (card,) = hit(modality=modality, uri=str(tmp_path / name), size_bytes=len(media), mime=mime).cards()
    assert card.media.partition(";")[0] == (f"data:{told}" if told else "")


def test_the_soundtrack_of_a_film_is_a_sound_and_a_segment_plays_its_own_stretch(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(sample("video"))
    film = {"uri": str(tmp_path / "a.mp4"), "mime": "video/mp4", "size_bytes": len(sample("video"))}
    page = hit(**film, modality="audio", start_s=0.5, end_s=1.5)._repr_html_()
    assert re.search(r'<audio src="data:video/mp4;base64,[^"]+#t=0.5,1.5"', page) and "0.5 to 1.5 s" in page
    assert "<video" in hit(**film, modality="video")._repr_html_()


def test_more_hits_than_fit_on_a_page_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CARDS", 3)
    many = Hits(pa.concat_tables([hit().rows] * 5), "")
    assert many._repr_html_().count("<figure") == 3 and "and 2 more" in many._repr_html_()
    assert "more" not in hit()._repr_html_()
