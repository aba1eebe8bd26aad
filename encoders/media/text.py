"""Text: a str, or UTF-8 bytes, files, URIs -> a decoded text -> facts."""

from __future__ import annotations

from dataclasses import dataclass

from encoders.errors import DecodeError, TooLargeError
from encoders.media.types import Facts, Media, read_media

MAX_CHARACTERS = 1_000_000
MAX_BYTES = 4 * MAX_CHARACTERS


@dataclass(frozen=True)
class Text:
    """A text that holds more than white space, without a byte order mark."""

    text: str

    def part(self, first: int, end: int) -> Text:
        """Characters `first` up to `end`."""
        return Text(self.text[first:end])


def decode_text(media: Media) -> Text:
    """A str as it is; bytes, pathlib.Path, URI and open binary files as UTF-8.

    Raises:
        DecodeError: nothing but white space, or not UTF-8.
        TooLargeError: more than MAX_CHARACTERS.
    """
    if isinstance(media, Text):
        return media
    text = media if isinstance(media, str) else _utf8(read_media(media, MAX_BYTES))
    if len(text) > MAX_CHARACTERS:
        raise TooLargeError(f"{len(text):,} characters of text, at most {MAX_CHARACTERS:,} are taken; split it into parts")
    if not text.strip():
        raise DecodeError("the text is empty or white space only; write it again or remove it")
    return Text(text)


def describe_text(text: Text) -> Facts:
    """The text itself; there is nothing to look at."""
    return Facts(mime="text/plain", text=text.text)


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"not UTF-8: byte {data[error.start]:#04x} at {error.start}; convert it, e.g. iconv -f latin1 -t utf-8"
        ) from error
