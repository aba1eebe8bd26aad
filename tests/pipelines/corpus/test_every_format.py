"""What holds for a corpus of any format; a new format joins by giving corpora.py a sample of itself."""

from __future__ import annotations

import pkgutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from corpora import FORMATS, MEDIA, rows_of
from http_folder import HttpFolder

from pipelines.corpus import COLUMNS, Corpus, CorpusError, find_modalities, formats
from pipelines.corpus import open_corpus as open_anywhere
from pipelines.identity import canonical_uri
from pipelines.storage import store

open_corpus = partial(open_anywhere, allow_hosts=["127.0.0.1"])  # where the tests' folder is served


def test_every_format_has_a_sample() -> None:
    assert {module.name for module in pkgutil.iter_modules(formats.__path__)} == set(FORMATS)


@pytest.fixture(params=FORMATS)
def uri(request: pytest.FixtureRequest, http_folder: HttpFolder) -> str:
    return FORMATS[request.param](http_folder.path, http_folder.url)


def media_of(row: dict[str, Any]) -> bytes:
    """The bytes of a source, read as its row says."""
    if row["media"] is not None:
        return row["media"]
    where = row["container"] or row["read_uri"] or row["uri"]
    fs = store(where)
    start = row["offset"] or 0
    return fs.cat_file(fs._strip_protocol(where), start, start + row["size_bytes"])


def test_every_medium_is_found_once_where_its_row_says(uri: str) -> None:
    rows = rows_of(open_corpus(uri))
    assert sorted(map(media_of, rows)) == sorted(MEDIA.values())
    assert len({row["uri"] for row in rows}) == len(MEDIA)
    assert all(row["problem"] is None and row["version"] and row["size_bytes"] for row in rows)


def test_uris_are_canonical_and_absolute(uri: str) -> None:
    for row in rows_of(open_corpus(uri)):
        assert canonical_uri(row["uri"]) == row["uri"]
        assert row["uri"].startswith(("/", "http://"))


def test_a_second_listing_says_the_same(uri: str) -> None:
    corpus = open_corpus(uri)
    first = rows_of(corpus)
    assert rows_of(corpus) == first == rows_of(open_corpus(uri))
    assert corpus.found == len(first)
    assert dict(corpus.skipped) == {}


def test_batches_have_the_columns_that_were_promised_before(uri: str) -> None:
    corpus = open_corpus(uri)
    promised = [*COLUMNS, *corpus.columns]
    for batch in corpus.batches():
        assert list(batch.schema) == promised


def test_all_that_is_found_is_given_or_skipped(uri: str) -> None:
    corpus = open_corpus(uri, exclude=["*.jpg"])
    rows = rows_of(corpus)
    assert corpus.found == len(rows) + corpus.skipped.total() == len(MEDIA)
    inline = any(row["media"] for row in rows)  # inline media have no path but their manifest's
    assert inline or corpus.skipped["excluded"] == 2


def test_a_limit_is_kept(uri: str) -> None:
    corpus = open_corpus(uri, limit=3)
    assert len(rows_of(corpus)) == 3
    assert corpus.found == 3 + corpus.skipped.total()


def test_a_modality_that_is_given_holds_for_all(uri: str) -> None:
    assert {row["modality"] for row in rows_of(open_corpus(uri, modality="depth"))} == {"depth"}


def test_bytes_tell_the_modality_that_nothing_else_tells(uri: str) -> None:
    corpus: Corpus = open_corpus(uri)
    told = {
        media_of(row): guess.modality
        for batch in corpus.batches()
        for row, guess in zip(batch.to_pylist(), find_modalities(batch, corpus.reach), strict=True)
    }
    assert [told[MEDIA[name]] for name in MEDIA] == ["image", "image", "image", "text"]


def test_a_name_replaces_the_root_as_the_corpus_id(uri: str) -> None:
    assert open_corpus(uri).id == canonical_uri(uri)
    assert open_corpus(uri, name="photos").id == "photos"


def test_an_unknown_modality_is_refused(uri: str) -> None:
    with pytest.raises(CorpusError, match="'imagee' is unknown; it is one of audio, depth"):
        open_corpus(uri, modality="imagee")
    assert open_corpus(uri, modality="smell", modalities=["smell"])


@pytest.mark.parametrize(
    "name", ["gone", "gone.parquet", "gone.csv", "gone.jsonl", "gone.lance", "gone.txt", "gone/*.tar", "gone-{0..1}.tar"]
)
def test_what_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="gone"):
        rows = rows_of(open_corpus(str(tmp_path / name)))
        raise AssertionError(rows)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"Protocol not known: gopher.*use a local path, s3://"):
        open_corpus("gopher://host/media")
