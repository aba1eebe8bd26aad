"""What every modality shares: the forms a medium may come in, and what is told of it. In: media. Out: bytes, facts."""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from encoders.errors import DecodeError, TooLargeError

MAX_BYTES = 512 * 1024**2  # of a medium that a decoder needs whole; video is streamed and has no such bound


@dataclass(frozen=True)
class URI:
    """A medium named by its address, so that a plain `str` can always mean text."""

    uri: str


# What `preprocess` and `embed` take; each modality's `decode` documents the arrays and objects it knows beside these.
Media = Any  # bytes | Path | URI | BinaryIO | str (text only) | PIL.Image.Image | np.ndarray | (np.ndarray, rate_hz)


@dataclass(frozen=True)
class Facts:
    """What the table tells of a medium beside its vector; None where it does not apply.

    `preview` is a small JPEG or WebP that can be looked at, `duration_s` seconds, `width` and `height` pixels; `truncated`
    says of a text whether its end was beyond what the tower takes.
    """

    mime: str | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    text: str | None = None
    preview: bytes | None = None
    truncated: bool | None = None


@contextmanager
def open_media(media: bytes | Path | URI | BinaryIO) -> Iterator[BinaryIO]:
    """A seekable binary file over the medium, at its start; closed at the end unless it came in open.

    Raises:
        TypeError: a plain `str`, which is always text, or an object of another kind.
    """
    if isinstance(media, bytes | bytearray | memoryview):
        yield io.BytesIO(media)
    elif isinstance(media, Path):
        with media.open("rb") as file:
            yield file
    elif isinstance(media, URI):
        with fsspec.open(media.uri, "rb") as file:
            yield file
    elif hasattr(media, "read") and hasattr(media, "seek"):
        media.seek(0)
        yield media
    else:
        raise TypeError(
            f"cannot read media from {type(media).__name__} {str(media)[:80]!r}: pass bytes, a pathlib.Path, "
            "encoders.URI('s3://...') or an open binary file (a plain str always means text)"
        )


def read_media(media: bytes | Path | URI | BinaryIO, max_bytes: int = MAX_BYTES) -> bytes:
    """All bytes of the medium.

    Raises:
        DecodeError: it is empty.
        TooLargeError: it is longer than `max_bytes`.
    """
    data = read_head(media, max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLargeError(f"more than {max_bytes:,} bytes; split the file, or leave it out with --exclude")
    if not data:
        raise DecodeError("the file is empty (0 bytes); write it again or remove it")
    return data


def read_head(media: bytes | Path | URI | BinaryIO, count: int) -> bytes:
    """The first `count` bytes of the medium, or all of a shorter one."""
    if isinstance(media, bytes):
        return media[:count]
    with open_media(media) as file:
        return file.read(count)


def mime_of(name: str) -> str | None:
    """The MIME type that a file name's extension promises, if any."""
    return mimetypes.guess_type(name)[0]
