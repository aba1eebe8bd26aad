"""Pairs out of videos: a frame and the sound beneath it. In: a corpus of videos. Out: a pairs manifest, and files it names.

Each video is cut into windows of equal length without gaps; a window gives the frame in its middle as JPEG and its sound as
FLAC. A video that was cut before, in the same version, is not cut again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import soundfile
from PIL import Image

from encoders.errors import MediaError
from encoders.media.audio import decode_audio
from encoders.media.video import decode_video
from pipelines.corpus import Corpus, open_corpus
from pipelines.identity import canonical_uri, source_id, without_signatures
from pipelines.pairs import PairsError
from pipelines.reach import Reach
from pipelines.storage import filesystem

JPEG_QUALITY = 95
SHORTEST = 0.5  # of a window; a rest at the end that is shorter gives no pair
ROWS = pa.schema(
    [
        ("image", pa.string()),
        ("audio", pa.string()),
        ("source", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Videos:
    """What became of a corpus of videos.

    Attributes:
        manifest: URI of the pairs manifest.
        found: videos.
        problems: URI -> why a video gave no pairs.
    """

    manifest: str
    found: int
    problems: dict[str, str]


def cut_pairs(corpus: str, folder: str, length_s: float) -> Videos:
    """Cut the videos of a corpus, on all the cluster's CPUs.

    Args:
        corpus: as of `bindery embed`; its sources are taken as videos.
        folder: or URI, for the pairs; what is there already is used.
        length_s: of a window.

    Raises:
        ValueError: the corpus cannot be used, or no video gave a pair.
    """
    opened, work = find_videos(corpus, length_s)
    root = f"{canonical_uri(folder)}/{length_s:g}s"
    blocks = [work.slice(k, 1) for k in range(len(work))]
    cut = partial(_cut, root=root, length_s=length_s, reach=opened.reach)
    done = ray.data.from_arrow(blocks).map_batches(cut, batch_format="pyarrow")
    found = done.to_pandas().sort_values("uri")
    problems = {row.uri: row.problem for row in found.itertuples() if row.problem}
    store, _ = filesystem(root)
    parts = [pq.read_table(io.BytesIO(store.cat_file(filesystem(uri)[1]))) for uri in found["rows"] if uri]
    if not parts:
        uri, problem = next(iter(problems.items()))
        raise PairsError(f"no video of {corpus} gave a pair of picture and sound; of {len(work)} the first, {uri}: {problem}")
    manifest = f"{root}/{hashlib.sha256(corpus.encode()).hexdigest()[:16]}.parquet"
    _write(manifest, _parquet(pa.concat_tables(parts)))
    return Videos(manifest, len(work), problems)


def find_videos(corpus: str, length_s: float) -> tuple[Corpus, pa.Table]:
    """A corpus, and a row for each of its videos; none is read.

    Raises:
        ValueError: the corpus cannot be used or holds no videos, or windows of this length no sound.
    """
    if not length_s >= 0.1:
        raise PairsError(f"a window of {length_s} s holds no sound to speak of; give at least 0.1 s")
    opened = open_corpus(corpus, modality="video")
    work = pa.Table.from_pylist(list(_videos(opened)))
    if not len(work):
        raise PairsError(f"{corpus} holds no videos; give a pairs manifest (.parquet), or a corpus of videos with their sound")
    return opened, work


def _videos(corpus: Corpus) -> Iterator[dict[str, Any]]:
    """Every video of a corpus: its name, where it is read from, its version."""
    for batch in corpus.batches():
        for row in batch.select(["uri", "read_uri", "version", "media", "container", "problem"]).to_pylist():
            problem = row["problem"] or ("videos in tar shards or tables are not cut; unpack them" if row["container"] else "")
            place = row["read_uri"] or row["uri"]
            yield {
                "uri": row["uri"],
                "place": place,
                "version": row["version"] or "",
                "media": row["media"],
                "problem": problem,
            }


def _cut(block: pa.Table, root: str, length_s: float, reach: Reach) -> pa.Table:
    """Videos -> the URI of the rows that each gave, or what is wrong with it."""
    rows, problems = [], []
    for video in block.to_pylist():
        at = f"{root}/{source_id(video['uri'], 'video')}-{hashlib.sha256(video['version'].encode()).hexdigest()[:8]}"
        store, path = filesystem(f"{at}/rows.parquet")
        problem = video["problem"] or ""
        if not problem and not (video["version"] and store.exists(path)):
            try:
                with _opened(video, reach) as file:
                    made = list(_windows(file, at, video["uri"], length_s))
                _write(f"{at}/rows.parquet", _parquet(pa.Table.from_pylist(made, ROWS)))
            except (MediaError, OSError) as error:
                problem = f"{type(error).__name__}: {without_signatures(str(error))}"
        rows.append("" if problem else f"{at}/rows.parquet")
        problems.append(problem)
    return pa.table({"uri": block["uri"], "rows": rows, "problem": problems})


def _opened(video: dict[str, Any], reach: Reach) -> BinaryIO:
    """A video's bytes as a file; RefusedError where its corpus may not read from."""
    if video["media"] is not None:
        return io.BytesIO(video["media"])
    store = reach.store(video["place"])
    return store.open(str(store._strip_protocol(video["place"])), "rb")  # type: ignore[no-any-return]


def _windows(media: BinaryIO, at: str, uri: str, length_s: float) -> Iterator[dict[str, Any]]:
    """Write the pairs of one video; a row for each."""
    clip, sound = decode_video(media), decode_audio(media)
    duration_s = min(clip.duration_s, sound.duration_s)
    count = max(1, int(duration_s / length_s + 1 - SHORTEST))
    spans = [(k * length_s, min((k + 1) * length_s, duration_s)) for k in range(count)]
    frames = clip.frames_at([(start_s + end_s) / 2 for start_s, end_s in spans])
    for (start_s, end_s), frame in zip(spans, frames, strict=True):
        name = f"{at}/{round(start_s * 1000)}-{round(end_s * 1000)}"
        picture, wave = io.BytesIO(), io.BytesIO()
        Image.fromarray(frame).save(picture, "JPEG", quality=JPEG_QUALITY)
        beneath = sound.part(start_s, end_s)
        soundfile.write(wave, np.clip(beneath.samples().T, -1, 1), beneath.rate_hz, format="FLAC")
        _write(f"{name}.jpg", picture.getvalue())
        _write(f"{name}.flac", wave.getvalue())
        yield {"image": f"{name}.jpg", "audio": f"{name}.flac", "source": uri, "start_s": start_s, "end_s": end_s}


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _write(uri: str, content: bytes) -> None:
    store, path = filesystem(uri)
    with store.open(path, "wb") as file:
        file.write(content)
