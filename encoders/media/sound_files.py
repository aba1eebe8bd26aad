"""Parts of the sound files that libsndfile reads: WAV, FLAC, OGG, MP3, AIFF, ... In: files, URIs, bytes. Out: samples."""

from __future__ import annotations

import io
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import fsspec
import numpy as np
import soundfile

from encoders.errors import DecodeError
from encoders.media.types import URI, Media

SEEK_MARGIN_S = 0.5  # decoding starts this much ahead, so that codecs have settled

# How the files that libsndfile reads begin; everything else is FFmpeg's.
SOUNDFILE_MAGIC = (
    b"RIFF",
    b"RF64",
    b"fLaC",
    b"OggS",
    b"ID3",
    b"\xff\xfb",
    b"\xff\xf3",
    b"\xff\xf2",
    b"FORM",
    b".snd",
    b"caff",
)


class _Watched:
    """A binary file that remembers that reading it failed: libsndfile takes what is raised in its callbacks for the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.failed = file, False

    def read(self, count: int) -> bytes:
        self.failed = True
        data = self._file.read(count)
        self.failed = False
        return data

    def seek(self, offset: int, whence: int) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class SoundFileReader:
    """Reads parts of a file that stays open, as finding a place in an MP3 anew means counting its frames; pickles closed."""

    _watched: _Watched | None = None

    def __init__(self, media: Media) -> None:
        self.media = media

    @cached_property
    def file(self) -> soundfile.SoundFile:
        """The open file; raises LibsndfileError."""
        if isinstance(self.media, bytes | bytearray | memoryview):
            return soundfile.SoundFile(io.BytesIO(self.media))
        if isinstance(self.media, Path):
            return soundfile.SoundFile(self.media)
        self._watched = _Watched(fsspec.open(self.media.uri, "rb").open() if isinstance(self.media, URI) else self.media)
        self._watched.seek(0, io.SEEK_SET)
        return soundfile.SoundFile(self._watched)

    def __call__(self, first: int, end: int) -> np.ndarray:
        """float32 (C, S), samples `first` up to `end`, fewer at the end of the file.

        Raises:
            DecodeError: the file is damaged.
            OSError: it could not be read.
        """
        ahead = min(first, round(SEEK_MARGIN_S * self.file.samplerate))
        try:
            self.file.seek(first - ahead)
            wave_SC = self.file.read(end - first + ahead, dtype="float32", always_2d=True)
            self._check()
            return wave_SC[ahead:].T  # type: ignore[no-any-return]
        except soundfile.LibsndfileError as error:
            self._check()
            raise DecodeError(f"the sound is damaged: {error}; write the file again") from error

    def _check(self) -> None:
        if self._watched is not None and self._watched.failed:
            raise OSError("reading the sound failed on the way, not in the file; standard error tells how")

    def __getstate__(self) -> dict[str, Media]:
        return {"media": self.media}
