"""What a name tells: few kinds of files, whatever the names."""

from __future__ import annotations

import pytest

from pipelines.corpus.modality import extension


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("/a/b.JPG", ".jpg"),
        ("s3://b/x.tar.gz", ".gz"),
        ("s3://b/x.7z", ".7z"),
        ("s3://b/x.safetensors", ".safetensors"),
        ("s3://b.c/README", "no extension"),
        ("/a/.hidden", "no extension"),
        ("/a/b.", "other"),
        ("/a/run.2024-05-01", "other"),
        ("/a/b.5ec4e7", "other"),
        ("/a/b.averyverylongtail", "other"),
        ("http://h/a.pdf?v=1.2/x", ".pdf"),
        ("http://h/s.tar?v=1#sub/x.png", ".png"),
        ("s3://b/m.parquet#12", "other"),
    ],
)
def test_kinds_of_files_are_few(uri: str, kind: str) -> None:
    assert extension(uri) == kind
