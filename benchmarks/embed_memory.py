"""Does memory grow with the corpus, or a large item hold up a run? In: cases. Out: benchmarks/results/embed_memory.json.

    .venv/bin/python -m benchmarks.embed_memory [--only CASE ...] --folder DIR [--check]      CASE: a number, or a name

Embeds a corpus with the demo space in a process of its own and samples all of its processes (driver, Ray, actors, decoding
children) five times a second: private memory, and what lies in shared memory, which is Ray's object store. Ray's own counters
say what it has spilled to disk. 1,000, 10,000 and 100,000 small pictures; 20 of 100 megapixels among small ones; a film of 1 GB
among pictures; a tenth of the items a hundred times larger than the rest, the last to be listed.

The tail of a run is the time from the first actor that has nothing left to do to the last one, as a share of the time in which
anything was embedded: what a straggler costs. --check: exit 1 beyond the thresholds.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import lance
import numpy as np
import psutil
from PIL import Image

from benchmarks.synthetic import machine
from benchmarks.thresholds import missed

RESULT = Path(__file__).parent / "results" / "embed_memory.json"
SMALL, LARGE, HUGE = (320, 240), (3200, 2400), (10_000, 10_000)  # pixels; a hundred times, and 100 megapixels
COUNTS = ("1000", "10000", "100000")
KINDS = 2048  # different pictures, enough for an index of a hundred thousand; the rest are other names of the same files
FILM_BYTES, FILM_SIZE, FILM_RATE_HZ = 1 << 30, (1280, 720), 25
EVERY_S = 0.2
BUSY = 0.2  # of a core, from which on an actor is at work
EMBED = """
import json, sys, ray
from jobs.embed import main
code = main(sys.argv[1:])
from ray._private.internal_api import get_memory_info_reply, get_state_from_address
stats = get_memory_info_reply(get_state_from_address(ray.get_runtime_context().gcs_address)).store_stats
print(json.dumps({"spilled_bytes": stats.spilled_bytes_total, "restored_bytes": stats.restored_bytes_total}))
sys.exit(code)
"""


def picture(size: tuple[int, int], seed: int, form: str) -> bytes:
    """A file of smooth noise, "jpeg" or "png"."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, form, compress_level=1)
    return buffer.getvalue()


def pictures(folder: Path, count: int, kinds: list[bytes], ending: str) -> None:
    """So many files, a thousand a folder; from the second round on they are other names of the first ones."""
    first: list[Path] = []
    for k in range(count):
        path = folder / f"{k // 1000:03}" / f"{k:06}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if k < len(kinds):
            path.write_bytes(kinds[k])
            first.append(path)
        else:
            path.hardlink_to(first[k % len(kinds)])


def small(folder: Path, count: int, form: str = "jpeg") -> int:
    """So many small pictures; their number."""
    pictures(folder / "a-small", count, [picture(SMALL, seed, form) for seed in range(min(count, KINDS))], form)
    return count


def photographs(folder: Path) -> int:
    """20 pictures of 100 megapixels, half of them PNGs, which no decoder can shrink on the way, after 2,000 small ones."""
    for form in ("jpeg", "png"):
        pictures(folder / f"b-{form}", 10, [picture(HUGE, 0, form)], form)
    return small(folder, 2000) + 20


def skewed(folder: Path) -> int:
    """Of 2,000 PNGs, whose work grows with their pixels, the last tenth has a hundred times as many."""
    pictures(folder / "b-large", 200, [picture(LARGE, seed, "png") for seed in range(8)], "png")
    return small(folder, 1800, "png") + 200


def film(folder: Path) -> int:
    """A film of 1 GB, motion JPEG, whose second is repeated, and 1,000 pictures; how many items in windows of 10 s."""
    (folder / "film").mkdir(parents=True)
    rng, width, height = np.random.default_rng(0), *FILM_SIZE
    frames = rng.integers(0, 255, (FILM_RATE_HZ, height // 2, width // 2, 3), np.uint8).repeat(2, 1).repeat(2, 2)
    packets = []
    with av.open(str(folder / "film" / "film.mkv"), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=FILM_RATE_HZ)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        for frame in frames:
            packets += [bytes(packet) for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24"))]
        count = FILM_BYTES // sum(map(len, packets)) * FILM_RATE_HZ
        for k in range(count):
            packet = av.Packet(packets[k % len(packets)])
            packet.stream, packet.time_base = stream, Fraction(1, FILM_RATE_HZ)
            packet.pts = packet.dts = k
            packet.is_keyframe = True
            container.mux(packet)
    return small(folder, 1000) - (-count // (10 * FILM_RATE_HZ))


CASES: dict[str, tuple[Callable[[Path], int], list[str]]] = {
    "photographs": (photographs, []),
    "film": (film, ["--segment", "video=10"]),
    "skewed": (skewed, []),
}


@dataclass
class Watch:
    """What all processes below one took, and when each actor last worked."""

    root: psutil.Process
    before: int  # bytes of shared memory that were there already
    private: int = 0
    shared: int = 0
    total: int = 0
    worked: dict[int, float] = field(default_factory=dict)  # by actor: seconds since 1970
    _cpu: dict[int, tuple[float, float]] = field(default_factory=dict)  # by actor: clock, CPU seconds

    def look(self) -> None:
        """One sample."""
        private = 0
        for process in [self.root, *self.root.children(recursive=True)]:
            try:
                private += process.memory_full_info().uss + handed_over_bytes(process)
                if "MapWorker" in (title := " ".join(process.cmdline())) and "Probe" not in title:
                    self._look_at_actor(process)
            except (psutil.Error, ProcessLookupError, FileNotFoundError):  # it ended meanwhile
                continue
        shared = shared_bytes() - self.before
        self.private, self.shared = max(self.private, private), max(self.shared, shared)
        self.total = max(self.total, private + shared)

    def _look_at_actor(self, actor: psutil.Process) -> None:
        times = [one.cpu_times() for one in (actor, *actor.children())]
        now, used = time.time(), sum(each.user + each.system for each in times)
        before, used_before = self._cpu.get(actor.pid, (now, used))
        if used - used_before > BUSY * (now - before):
            self.worked[actor.pid] = now
        self._cpu[actor.pid] = now, used


def handed_over_bytes(child: psutil.Process) -> int:
    """What a decoding child shares with its actor (pipelines/shared_pipe.py), which is no process's own."""
    if "decoder_child" not in " ".join(child.cmdline()):
        return 0
    return sum(mapping.rss for mapping in child.memory_maps() if mapping.path.startswith("/memfd:arrays"))


def shared_bytes() -> int:
    """What lies in shared memory on this machine: Ray's object store."""
    return int(psutil.disk_usage("/dev/shm").used)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Embed one case; peaks in bytes."""
    make, words = (partial(small, count=int(name)), []) if name.isdigit() else CASES[name]
    shutil.rmtree(folder, ignore_errors=True)
    items, db = make(folder / "media"), folder / "db"
    command = [sys.executable, "-c", EMBED, str(folder / "media"), "--db", str(db), *words]
    began = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watch = Watch(psutil.Process(child.pid), shared_bytes())
    while child.poll() is None:
        watch.look()
        time.sleep(EVERY_S)
    assert child.stdout is not None and child.returncode == 0
    report, store = (json.loads(line) for line in child.stdout.read().splitlines()[-2:])
    assert report["items_written"] == items, report
    made = lance.dataset(str(db / "media.lance")).to_table(columns=["embedded_at"])["embedded_at"].to_pylist()
    dry = sorted(watch.worked.values())
    embedding_s = max(dry[-1], max(made).timestamp()) - min(made).timestamp()
    shutil.rmtree(folder)
    return {
        "items": items,
        "peak_private_bytes": watch.private,
        "peak_shared_bytes": watch.shared,
        "peak_bytes": watch.total,
        **store,
        "seconds": round(time.monotonic() - began, 1),
        "embedding_s": round(embedding_s, 1),
        "tail_s": round(dry[-1] - dry[0], 1),
        "tail_share": round((dry[-1] - dry[0]) / embedding_s, 3),
        "bottleneck": report["bottleneck"],
        "measured": datetime.now(UTC).date().isoformat(),
    }


def main() -> int:
    """Measure, write the result, print it, judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=[*COUNTS, *CASES])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    runs = json.loads(asked.result.read_text())["runs"] if asked.result.exists() else {}
    for name in asked.only:
        runs[name] = {**measure(name, asked.folder / name), **machine()}
        print(name, json.dumps(runs[name]), file=sys.stderr)
    document: dict[str, Any] = {"what": "peaks of all processes of an embed run and of Ray's store, by corpus", "runs": runs}
    if peaks := [run["peak_bytes"] for name, run in runs.items() if name.isdigit()]:
        document["largest_over_smallest"] = round(max(peaks) / min(peaks), 3)
    asked.result.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))
    return int(asked.check and bool(missed(RESULT.name, document)))


if __name__ == "__main__":
    sys.exit(main())
