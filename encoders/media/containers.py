"""Audio and video containers through FFmpeg. In: bytes, files, URIs. Out: an open PyAV container that streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av
import av.container

from encoders.errors import DecodeError
from encoders.media.types import Media, open_media

# Containers that hold their own streams. Playlists (HLS, DASH, concat) are left out: they would make FFmpeg open other
# files and addresses that a stranger's medium names.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,flv,mpeg,mpegts,mpegvideo,h264,hevc,m4v,ivf,mxf,gif,"
    "wav,w64,flac,ogg,mp3,aac,ac3,eac3,aiff,au,caf,amr,dts,ape,wv,tta,opus"
)
_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}


@contextmanager
def open_container(media: Media) -> Iterator[av.container.InputContainer]:
    """The container of bytes, a pathlib.Path, URI or open binary file; closed at the end, but a file passed in stays open.

    Raises:
        DecodeError: FFmpeg knows no such container, or it fails while it is read in the block.
    """
    with open_media(media) as file:
        try:
            container = av.open(file, mode="r", options=_OPTIONS, metadata_errors="ignore")
        except av.error.FFmpegError as error:
            file.seek(0)
            if not file.read(1):
                raise DecodeError("the file is empty (0 bytes); write it again or remove it") from error
            raise DecodeError(f"no readable audio or video container: {error.strerror}; write the file again") from error
        try:
            with container:
                yield container
        except av.error.FFmpegError as error:
            raise DecodeError(f"the {container.format.name} file is damaged: {error.strerror}; write it again") from error
