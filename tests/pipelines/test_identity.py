"""One spelling per source: canonical URIs and the ids made from them."""

import hashlib
from pathlib import Path

import pytest

from pipelines.identity import canonical_uri, is_local, item_id, source_id, without_signatures

SIGNED = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F1&X-Amz-Signature=abc"


@pytest.mark.parametrize(
    ("written", "known_as"),
    [
        ("/data/a.jpg", "/data/a.jpg"),
        ("/data/./x/../a.jpg", "/data/a.jpg"),
        ("/data//a.jpg", "/data/a.jpg"),
        ("/data/media/", "/data/media"),
        ("/data/a b#1?2%20é.jpg", "/data/a b#1?2%20é.jpg"),
        ("file:///data/a%20b%23.jpg", "/data/a b#.jpg"),
        ("file://localhost/data/a.jpg", "/data/a.jpg"),
        ("FILE:///data/../a.jpg", "/a.jpg"),
        ("s3a://bucket/k", "s3://bucket/k"),
        ("S3://bucket/K", "s3://bucket/K"),
        ("gcs://bucket/k", "gs://bucket/k"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/media/", "s3://bucket/media"),
        ("s3://key:secret@bucket/k", "s3://bucket/k"),
        ("s3://bucket/a//b/../c%20d#e?f", "s3://bucket/a//b/../c%20d#e?f"),
        (f"s3://bucket/k.jpg?{SIGNED}", "s3://bucket/k.jpg"),
        ("s3://bucket/shard.tar#in/side.jpg", "s3://bucket/shard.tar#in/side.jpg"),
        ("HTTP://Example.COM/A.jpg", "http://example.com/A.jpg"),
        ("http://example.com", "http://example.com/"),
        ("http://example.com:80/a", "http://example.com/a"),
        ("https://example.com:443/a", "https://example.com/a"),
        ("https://example.com:8443/a", "https://example.com:8443/a"),
        ("https://me:secret@example.com/a", "https://example.com/a"),
        ("http://h/a/./b/../c/", "http://h/a/c/"),
        ("http://h/../../a", "http://h/a"),
        ("http://h/a%7eb%2fc", "http://h/a~b%2Fc"),
        ("http://h/a b.jpg", "http://h/a%20b.jpg"),
        ("http://h/é.jpg", "http://h/%C3%A9.jpg"),
        ("http://h/100%.jpg", "http://h/100%25.jpg"),
        ("http://h/a?page=2&", "http://h/a?page=2"),
        (f"https://h/a?page=2&{SIGNED}", "https://h/a?page=2"),
        ("https://h/a?Expires=1&Signature=x&Key-Pair-Id=k&w=9", "https://h/a?w=9"),
        ("https://blob/a?sv=2020&st=now&se=later&sr=b&sp=r&sig=x&t=1", "https://blob/a?t=1"),
        ("https://h/a?st=5&expires=never", "https://h/a?st=5&expires=never"),
        ("abfs://container@account.host/a/", "abfs://container@account.host/a"),
        ("sftp://me:secret@h/a", "sftp://me@h/a"),
    ],
)
def test_a_uri_has_one_spelling_and_keeps_it(written: str, known_as: str) -> None:
    assert canonical_uri(written) == known_as
    assert canonical_uri(known_as) == known_as
    assert is_local(known_as) == known_as.startswith("/")


@pytest.mark.parametrize(
    ("uri", "base", "known_as"),
    [
        ("a.jpg", "/data", "/data/a.jpg"),
        ("../a.jpg", "/data/x", "/data/a.jpg"),
        ("/else/a.jpg", "/data", "/else/a.jpg"),
        ("s3://b/a.jpg", "/data", "s3://b/a.jpg"),
        ("./x/a.jpg", "s3://b/data", "s3://b/data/x/a.jpg"),
        ("../a b.jpg", "s3://b/data/m", "s3://b/data/a b.jpg"),
        ("../../../a.jpg", "s3://b/data", "s3://b/a.jpg"),
        ("a.jpg", "s3://b", "s3://b/a.jpg"),
        ("a.jpg", "s3://b/data/", "s3://b/data/a.jpg"),
        ("/data/a.jpg", "s3://b/m", "/data/a.jpg"),
        ("a.jpg", "http://h", "http://h/a.jpg"),
        ("/a.jpg", "http://h/x/y", "http://h/a.jpg"),
        ("../a b.jpg", "http://h/x/y", "http://h/x/a%20b.jpg"),
    ],
)
def test_a_relative_uri_is_resolved_against_its_base(uri: str, base: str, known_as: str) -> None:
    assert canonical_uri(uri, base) == known_as


def test_a_relative_path_without_a_base_is_one_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert canonical_uri("a.jpg") == str(tmp_path / "a.jpg")


def test_a_symbolic_link_keeps_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "blob-5f3a").write_bytes(b"x")
    (tmp_path / "bark.wav").symlink_to("blob-5f3a")
    assert canonical_uri(str(tmp_path / "bark.wav")) == str(tmp_path / "bark.wav")


def test_ids_are_digests_of_what_the_design_says() -> None:
    assert source_id("s3://b/k", "image") == hashlib.sha256(b"s3://b/k\nimage").hexdigest()[:32]
    assert item_id("s3://b/\u00e9", "video") == hashlib.sha256("s3://b/\u00e9\nvideo\n".encode()).hexdigest()[:32]
    assert item_id("s3://b/k", "video", "0-5000") == hashlib.sha256(b"s3://b/k\nvideo\n0-5000").hexdigest()[:32]
    assert source_id("u", "image") != source_id("u", "depth")


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "gs://?a", "http://", "https:///x", "http://[::1/x"])
def test_what_names_no_place_has_no_spelling(uri: str) -> None:
    with pytest.raises(ValueError, match=r"no bucket follows|no host follows|IPv6"):
        canonical_uri(uri)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("403, url='https://h/a.jpg?sig=5ec4e7&x=1'", "403, url='https://h/a.jpg'"),
        ('GET "HTTP://h/a?X-Amz-Signature=5ec4e7" and http://h/b?sig=5ec4e7 failed', 'GET "HTTP://h/a" and http://h/b failed'),
        ("is it here? http://h/a", "is it here? http://h/a"),
        ("s3://b/a?b.jpg", "s3://b/a?b.jpg"),
    ],
)
def test_messages_hold_no_queries_of_urls(text: str, shown: str) -> None:
    assert without_signatures(text) == shown
