"""Where things are stored, one way for all stores. In: a URI or a local path. Out: an fsspec filesystem, Lance's options.

Credentials come from the environment only (AWS_*, GOOGLE_*), never from a URI.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import fsspec
from botocore.exceptions import BotoCoreError
from fsspec.implementations.local import LocalFileSystem

from pipelines.identity import is_local

# What stores and networks raise; neither of the last two is an OSError.
INFRASTRUCTURE_ERRORS = (OSError, BotoCoreError, aiohttp.ClientError)
NO_CREDENTIALS = "set AWS_ACCESS_KEY_ID or the like in the environment, or give the machine a role"
_IO_URING_SETUP, _IO_URING_PARAMS_BYTES = 425, 120  # of Linux, on every architecture; of struct io_uring_params


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URI and the path within it; local folders are made when a file is written into them."""
    if "://" not in uri:
        return LocalFileSystem(auto_mkdir=True), str(Path(uri).absolute())
    fs = fsspec.filesystem(uri.partition("://")[0])  # not url_to_fs, which takes `::` in a key for a chain of URLs
    return fs, fs._strip_protocol(uri)


def store(uri: str) -> Any:
    """The fsspec filesystem of a URI, without a cache of listings: a second run must see what has changed."""
    root = "/" if is_local(uri) else "/".join(uri.split("/", 3)[:3])  # not all of it, again for `::`
    return fsspec.core.url_to_fs(root, use_listings_cache=False)[0]


def lance_options(uri: str) -> dict[str, str]:
    """`storage_options` for lance and lancedb: what their S3 client does not read from AWS_* by itself."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    if not uri.startswith("s3://") or not endpoint:
        return {}
    return {
        "aws_endpoint": endpoint,
        "allow_http": str(endpoint.startswith("http://")).lower(),
        "aws_virtual_hosted_style_request": "false",
    }


@cache
def has_rings() -> bool:
    """Whether the kernel lets this process set up an io_uring (io_uring_setup(2)); containers are often forbidden to."""
    if sys.platform != "linux":
        return False
    ring: int = ctypes.CDLL(None).syscall(_IO_URING_SETUP, 1, ctypes.create_string_buffer(_IO_URING_PARAMS_BYTES))
    if ring < 0:
        return False
    os.close(ring)
    return True
