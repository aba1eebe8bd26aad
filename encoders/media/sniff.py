"""What a file is. In: its first bytes and its name. Out: a guess at its modality and type; bytes are believed before names."""

from __future__ import annotations

import mimetypes
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from encoders.errors import SpaceError
from encoders.media.types import mime_of

HEAD_BYTES = 4096  # of a file that `sniff` wants, where it has so many


@dataclass(frozen=True)
class Guess:
    """What a file seems to be.

    Attributes:
        modality: "image", "video", "audio", "text" or one that `recognise` has added; None if that cannot be told.
        mime: MIME type, if known.
        why: "" with a modality; "unknown": not a type of media, to be skipped; "ambiguous": media of one of several
            modalities, to be rejected until someone says of which.
        detail: for people, when `why` is not empty.
    """

    modality: str | None
    mime: str | None = None
    why: Literal["", "unknown", "ambiguous"] = ""
    detail: str = ""


# Beginnings that decide alone.
_MAGIC: tuple[tuple[bytes, Guess], ...] = (
    (b"\xff\xd8\xff", Guess("image", "image/jpeg")),
    (b"GIF8", Guess("image", "image/gif")),
    (b"\x00\x00\x00\x0cjP  ", Guess("image", "image/jp2")),
    (b"fLaC", Guess("audio", "audio/flac")),
    (b"ID3", Guess("audio", "audio/mpeg")),
    (b"#!AMR", Guess("audio", "audio/amr")),
    (b"caff", Guess("audio", "audio/x-caf")),
    (b".snd", Guess("audio", "audio/basic")),
    (b"FLV\x01", Guess("video", "video/x-flv")),
    (b"\x00\x00\x01\xba", Guess("video", "video/mpeg")),
    (b"\x00\x00\x01\xb3", Guess("video", "video/mpeg")),
    (b"PAR1", Guess(None, "application/vnd.apache.parquet", "ambiguous", "Parquet may be an IMU trace or a manifest")),
    (b"\x93NUMPY", Guess(None, "application/x-npy", "ambiguous", "an NPY array may be of any modality")),
    (b"\x76\x2f\x31\x01", Guess(None, "image/x-exr", "ambiguous", "an OpenEXR picture may be depth or thermal")),
    (b"%PDF", Guess(None, "application/pdf", "unknown", "PDF is no medium that is embedded")),
    (b"PK\x03\x04", Guess(None, "application/zip", "unknown", "ZIP is an archive")),
    (b"\x1f\x8b", Guess(None, "application/gzip", "unknown", "gzip is an archive")),
    (b"\x7fELF", Guess(None, "application/x-elf", "unknown", "ELF is a program")),
    (b"SQLite format 3", Guess(None, "application/vnd.sqlite3", "unknown", "SQLite is a data base")),
)
_RIFF = {
    b"WAVE": Guess("audio", "audio/wav"),
    b"AVI ": Guess("video", "video/x-msvideo"),
    b"WEBP": Guess("image", "image/webp"),
}
_STILL_BRANDS = {b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic", b"mif1": "image/heif"}
_SOUND_BRANDS = (b"M4A ", b"M4B ", b"M4P ", b"F4A ")
_QUICKTIME_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip")  # old MOV files start without `ftyp`
_ASF = bytes.fromhex("3026b2758e66cf11")
_SOUND_NAMES = (".m4a", ".m4b", ".mka", ".weba", ".wma")  # the one container, without pictures
_BITMAP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes
_TAG_BITS, _TAG_CHANNELS = 258, 277  # of TIFF
_TEXT_NAMES = (".txt", ".text", ".md")
_TABLE_NAMES = (".csv", ".tsv", ".parquet", ".npy", ".tif", ".tiff", ".exr")


_ADDED_BYTES: dict[bytes, Guess] = {}
_ADDED_NAMES: dict[str, Guess] = {}


def recognise(modality: str, mime: str, *, magic: Sequence[bytes] = (), extensions: Sequence[str] = ()) -> None:
    """Let files of a further modality be told by their first bytes or, where these say nothing, by their name.

    Called by the file that registers the modality's encoder, when it is imported.

    Args:
        modality: whose files they are.
        mime: their MIME type, e.g. "application/x-touch".
        magic: beginnings of which each decides alone.
        extensions: with their dot, in lower case.

    Raises:
        SpaceError: such files are known already as something else.
    """
    guess = Guess(modality, mime)
    for head in magic:
        taken = _by_bytes(head.ljust(HEAD_BYTES, b"\0"), "") or next(
            (known for other, known in _ADDED_BYTES.items() if other.startswith(head) or head.startswith(other)), None
        )
        if taken is not None and taken != guess:
            raise SpaceError(f"files that begin with {head!r} are {taken.mime} already, not {modality}; use other first bytes")
        _ADDED_BYTES[head] = guess
    for suffix in extensions:
        taken = _ADDED_NAMES.get(suffix) or _by_name(suffix, f"a{suffix}")
        if taken.why != "unknown" and taken != guess:
            raise SpaceError(f"{suffix} files are {taken.mime or taken.detail} already, not {modality}; use another extension")
        _ADDED_NAMES[suffix] = guess
        mimetypes.add_type(mime, suffix)


def is_recognised(suffix: str) -> bool:
    """Whether `recognise` was told of files with this extension."""
    return suffix in _ADDED_NAMES


def sniff(head: bytes, name: str) -> Guess:
    """The modality of a file by its first bytes; by its name's extension only where the bytes say nothing.

    Args:
        head: the first HEAD_BYTES, or all of a shorter file.
        name: file name, path or URI; its extension counts.
    """
    suffix = PurePosixPath(name.split("?")[0].split("#")[0]).suffix.lower()
    added = next((guess for magic, guess in _ADDED_BYTES.items() if head.startswith(magic)), None)
    return _by_bytes(head, suffix) or added or _ADDED_NAMES.get(suffix) or _by_name(suffix, name)


def _by_bytes(head: bytes, suffix: str) -> Guess | None:
    for magic, guess in _MAGIC:
        if head.startswith(magic):
            return guess
    return _picture(head) or _container(head, suffix) or _stream(head)


def _picture(head: bytes) -> Guess | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        bits, colour = head[24:26] if len(head) >= 26 else (8, 2)
        return _measurement("PNG", "image/png") if (bits, colour) == (16, 0) else Guess("image", "image/png")
    if head.startswith(b"BM") and struct.unpack_from("<I", head.ljust(18, b"\0"), 14)[0] in _BITMAP_HEADERS:
        return Guess("image", "image/bmp")
    if head[:4] in (b"II*\0", b"MM\0*"):
        bits, channels = _tiff_layout(head)
        return Guess("image", "image/tiff") if bits in (1, 4, 8) or channels > 1 else _measurement("TIFF", "image/tiff")
    return None


def _container(head: bytes, suffix: str) -> Guess | None:
    sound = suffix in _SOUND_NAMES
    if head[:4] in (b"RIFF", b"RF64"):
        return _RIFF.get(head[8:12])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return Guess("audio", "audio/aiff")
    if head[:4] == b"OggS":
        return Guess("video", "video/ogg") if b"\x80theora" in head else Guess("audio", "audio/ogg")
    if head[:4] == b"\x1aE\xdf\xa3":
        kind = "webm" if b"webm" in head[:64] else "x-matroska"
        return Guess("audio" if sound else "video", f"{'audio' if sound else 'video'}/{kind}")
    if head[:8] == _ASF:
        return Guess("audio", "audio/x-ms-wma") if sound else Guess("video", "video/x-ms-wmv")
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in _STILL_BRANDS:
            return Guess("image", _STILL_BRANDS[brand])
        if brand in _SOUND_BRANDS or sound:
            return Guess("audio", "audio/mp4")
        return Guess("video", "video/quicktime" if brand == b"qt  " else "video/mp4")
    return Guess("video", "video/quicktime") if head[4:8] in _QUICKTIME_ATOMS else None


def _stream(head: bytes) -> Guess | None:
    """Streams without a header of their own: each frame or packet starts with the same few bits."""
    if len(head) >= 4 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return Guess("audio", "audio/aac")  # ADTS: layer bits 00
    if len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[2] >> 4 not in (0, 15) and head[2] & 0x0C != 0x0C:
        return Guess("audio", "audio/mpeg")  # layer III, a bit rate and a sample rate that exist
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return Guess("video", "video/mp2t")
    return None


def _measurement(kind: str, mime: str) -> Guess:
    detail = f"a one-channel {kind} of more than 8 bits may be depth, thermal or a picture"
    return Guess(None, mime, "ambiguous", detail)


def _tiff_layout(head: bytes) -> tuple[int, int]:
    """(bits a sample, channels) of the first page; (0, 1) where its directory lies beyond the head."""
    order = "<" if head.startswith(b"II") else ">"
    (offset,) = struct.unpack_from(f"{order}I", head.ljust(8, b"\0"), 4)
    if offset + 2 > len(head):
        return 0, 1
    (count,) = struct.unpack_from(f"{order}H", head, offset)
    if offset + 2 + 12 * count > len(head):
        return 0, 1
    found = {_TAG_BITS: 1, _TAG_CHANNELS: 1}
    for at in range(offset + 2, offset + 2 + 12 * count, 12):
        tag, _, values, value = struct.unpack_from(f"{order}HHIH", head, at)
        if tag in found:
            found[tag] = value if values == 1 else 8  # several bit depths lie elsewhere: several channels
            found[_TAG_CHANNELS] = max(found[_TAG_CHANNELS], values)
    return found[_TAG_BITS], found[_TAG_CHANNELS]


def _by_name(suffix: str, name: str) -> Guess:
    mime = mime_of(name)
    if suffix in _TEXT_NAMES:
        return Guess("text", "text/plain" if suffix != ".md" else "text/markdown")
    if suffix in _TABLE_NAMES:
        return Guess(None, mime, "ambiguous", f"a {suffix} file may be of several modalities")
    promised = re.match(r"(image|video|audio)/", mime or "")
    if promised and suffix not in (".svg", ".svgz"):
        return Guess(promised[1], mime)
    return Guess(None, mime, "unknown", f"neither its first bytes nor its name {name[-60:]!r} tell a type of media")
