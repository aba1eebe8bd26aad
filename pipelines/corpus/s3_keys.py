"""Keys of S3, in order, a page at a time. In: a bucket and a prefix. Out: objects as S3 tells of them; nothing is held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PAGE_KEYS = 1000  # of one answer, S3's maximum


def list_keys(fs: Any, bucket: str, prefix: str, after: str = "") -> Iterator[dict[str, Any]]:
    """Objects (`Key`, `Size`, `ETag`, `LastModified`) in order of their keys, from after the key `after` on."""
    page: dict[str, Any] = {"StartAfter": after} if after else {}
    while True:
        answer = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=PAGE_KEYS, **page)
        yield from answer.get("Contents", ())
        if not answer.get("IsTruncated"):
            return
        page = {"ContinuationToken": answer["NextContinuationToken"]}
