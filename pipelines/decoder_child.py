"""The process in which media are read and decoded. In: sources over a pipe. Out: features and facts, or a reject, for each.

Run as `python -m pipelines.decoder_child FDS SPACE MEMORY_BYTES ITEM_TIMEOUT_S REACH` by pipelines/decoder.py, which owns it:
whatever a native decoder does to this process, its owner and the owner's tower stay.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import BinaryIO

import numpy as np
import torch

from encoders.encoder import Encoder
from encoders.errors import DecodeError, MediaError
from encoders.media.types import mime_of
from encoders.space import Space, load_space
from pipelines.decoder import READY, Source
from pipelines.heap import keep_freed_memory
from pipelines.identity import without_signatures
from pipelines.reach import Reach
from pipelines.replies import Decoded, PartCount, Reject, Reply, pack
from pipelines.segments import count_parts, parse_cut, segments
from pipelines.shared_pipe import ChildEnd
from pipelines.storage import INFRASTRUCTURE_ERRORS

READERS = 8  # concurrent reads ahead of the decoder: object stores answer in tens of milliseconds
READ_AHEAD = 2 * READERS  # sources, of
READ_AHEAD_BYTES = 64 * 1024**2  # together, and one more; of a large file that is opened only, none
RETRY_AFTER_S = (0.5, 2.0, 5.0)
WATCH_EVERY_S = 2.0
READ_SHARE = 0.8  # of the time for an item: how long its bytes may take
PICTURE_BYTES = 32 * 1024**2  # eleven megapixels; the memory of a larger one goes back, as few of them come at once
STREAMED_BYTES = 64 * 1024**2  # larger files are handed to the decoder as an open file, not as bytes


def main() -> None:
    """Serve lists of sources until the pipe closes."""
    fds, space_uri, memory_bytes, item_timeout_s, reach = sys.argv[1:]
    torch.set_num_threads(1)
    keep_freed_memory(PICTURE_BYTES)
    space, read = load_space(space_uri), partial(_read, reach=Reach.from_json(reach))
    _limit_memory(int(memory_bytes))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    end = ChildEnd([int(fd) for fd in fds.split(",")])
    with end as pipe, ThreadPoolExecutor(READERS) as readers, suppress(EOFError, BrokenPipeError):
        pipe.send(READY)
        while True:  # until the owner closes its end
            for reply in _decode_all(space, pipe.receive(), partial(readers.submit, read), READ_SHARE * float(item_timeout_s)):
                pipe.send(*pack(reply))


def _end_with(owner: int) -> None:
    """End this process when its owner is gone, whatever a decoder is busy with."""
    while os.getppid() == owner:
        time.sleep(WATCH_EVERY_S)
    os._exit(1)


def _decode_all(
    space: Space, sources: list[Source], submit: Callable[[Source], Future[bytes | BinaryIO]], read_timeout_s: float
) -> Iterator[Reply]:
    for source, read in zip(sources, _reads(sources, submit), strict=True):
        stage = ["read"]  # of the work on this source, for its reject
        medium: bytes | BinaryIO = b""
        try:
            began = time.perf_counter()
            medium = _waited_for(read, read_timeout_s)
            read_s = time.perf_counter() - began
            yield from _timed(_results(space.encoder(source.modality), source, medium, stage), read_s)
        except Exception as error:  # noqa: BLE001 - the item boundary: a bad source costs itself, by type and message
            away = isinstance(error, INFRASTRUCTURE_ERRORS)
            failed = "read" if away and not isinstance(medium, bytes) else stage[-1]  # an open file is read while it is decoded
            yield Reject(
                failed, type(error).__name__, _message(error, source), away or isinstance(error, MediaError | MemoryError)
            )
        finally:
            if not isinstance(medium, bytes):
                medium.close()


def _reads(
    sources: Sequence[Source], submit: Callable[[Source], Future[bytes | BinaryIO]]
) -> Iterator[Future[bytes | BinaryIO]]:
    """The read of each source, begun ahead; several are begun at once, as most of what a small one costs is waking a thread."""
    upcoming = deque(sources)
    begun: deque[tuple[Future[bytes | BinaryIO], int]] = deque()

    def begin() -> None:
        ahead_bytes = sum(size_bytes for _, size_bytes in begun)
        while upcoming and len(begun) < READ_AHEAD and ahead_bytes < READ_AHEAD_BYTES:
            source = upcoming.popleft()
            size_bytes = 0 if _is_streamed(source) else source.size_bytes or 0
            begun.append((submit(source), size_bytes))
            ahead_bytes += size_bytes

    begin()
    while begun:
        read, _ = begun.popleft()
        if len(begun) < READERS:
            begin()
        yield read


def _timed(results: Iterator[Decoded | PartCount], read_s: float) -> Iterator[Decoded | PartCount]:
    """The results, each with the seconds that it took; the first with those of the read."""
    began = time.perf_counter()
    for result in results:
        took_s = time.perf_counter() - began
        yield replace(result, read_s=read_s, decode_s=took_s) if isinstance(result, Decoded) else result
        read_s, began = 0.0, time.perf_counter()


def _waited_for(read: Future[bytes | BinaryIO], timeout_s: float) -> bytes | BinaryIO:
    """What was read; a store that stalls is not the medium's fault, and is told before the owner's deadline."""
    try:
        return read.result(timeout_s)
    except TimeoutError as error:
        raise TimeoutError(f"no answer from the store within {timeout_s:.0f} s; run the same command again") from error


def _results(encoder: Encoder, source: Source, medium: bytes | BinaryIO, stage: list[str]) -> Iterator[Decoded | PartCount]:
    """Features and facts of each segment of a source, or of one part of it."""
    stage.append("decode")
    decoded, cut = encoder.decode(medium), parse_cut(source.cut)
    size_bytes = source.size_bytes if source.offset is None else None  # a member of a shard is read whole for each part
    if source.probe:
        yield PartCount(count_parts(cut, decoded, size_bytes))
        return
    parts = range(count_parts(cut, decoded, size_bytes)) if source.part is None else [source.part]
    for part in parts:
        found = segments(cut, encoder, decoded, part, size_bytes)
        if not found:
            raise DecodeError("the medium is shorter than it was when its length was read; it changed meanwhile, or is cut off")
        for number, segment in enumerate(found, 1):
            stage.append("preprocess")
            features = {name: _as_declared(encoder, name, a) for name, a in encoder.preprocess(segment.medium).items()}
            facts = replace(encoder.describe(segment.medium), duration_s=getattr(decoded, "duration_s", None))
            if facts.mime is None:
                facts = replace(facts, mime=mime_of(source.uri))
            last = part == parts[-1] and number == len(found)
            yield Decoded(features, facts, segment.key, segment.start_s, segment.end_s, last)


def _read(source: Source, reach: Reach) -> bytes | BinaryIO:
    """The medium, tried again a few times while the store does not answer."""
    for pause_s in RETRY_AFTER_S:
        try:
            return _read_once(source, reach)
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except INFRASTRUCTURE_ERRORS:
            time.sleep(pause_s)
    return _read_once(source, reach)


def _read_once(source: Source, reach: Reach) -> bytes | BinaryIO:
    if source.media is not None:
        return source.media
    fs = reach.store(source.location)
    path = str(fs._strip_protocol(source.location))
    if source.offset is not None:
        return bytes(fs.cat_file(path, start=source.offset, end=source.offset + (source.size_bytes or 0)))
    if _is_streamed(source):
        return fs.open(path, "rb")  # type: ignore[no-any-return]
    return bytes(fs.cat_file(path))


def _is_streamed(source: Source) -> bool:
    """Whether a source is read while it is decoded; a member of a shard never is."""
    unheld = source.media is None and source.offset is None
    return unheld and (source.size_bytes is None or source.size_bytes > STREAMED_BYTES)


def _as_declared(encoder: Encoder, name: str, array: np.ndarray) -> np.ndarray:
    feature = encoder.features[name]
    assert array.shape == feature.shape and array.dtype == feature.dtype, (
        f"encoder {encoder.architecture!r} made {name} {array.dtype} {array.shape}, it declares {feature}"
    )
    return np.ascontiguousarray(array)


def _message(error: Exception, source: Source) -> str:
    """What went wrong, without the signed URL that the source may have been read from."""
    return without_signatures((str(error) or repr(error)).replace(source.location, source.uri))[:2000]


def _limit_memory(budget_bytes: int) -> None:
    """Let allocations beyond what is in use now plus the budget fail: a MemoryError here instead of a dead machine."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        in_use = int(file.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (in_use + budget_bytes, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
