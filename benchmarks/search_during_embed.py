"""Do searches notice that a table is being written? In: nothing. Out: benchmarks/results/search_during_embed.json.

    .venv/bin/python -m benchmarks.search_during_embed

Sixteen threads search one index as fast as they can while another process embeds new media into its table, and then optimises
it. Counted: searches, errors, and torn results: a hit twice, a hit without its columns, a count of rows that went back.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.synthetic import machine
from pipelines.index import Index, open_index

RESULT = Path(__file__).parent / "results" / "search_during_embed.json"
READERS, K = 16, 10
SCENES_BEFORE, SCENES_ADDED = 144, 1500
WORDS = ("a dog in the rain", "a bell in the city", "something at the sea", "a train in the forest")
COMMIT_S = 5.0  # of the run that writes, instead of half a minute: more versions in the same time
EMBED = "import sys, pipelines.writer as w; w.COMMIT_INTERVAL_S = {}; from jobs.embed import main; sys.exit(main())"


class Reader(threading.Thread):
    """Searches until it is stopped, and keeps what was wrong."""

    def __init__(self, index: Index, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._index, self._number, self._stop_now = index, number, stop
        self.times_ms: list[float] = []
        self.errors: list[str] = []
        self.torn = 0
        self.versions: set[int] = set()

    def run(self) -> None:
        """Search, check, search."""
        rows = 0
        while not self._stop_now.is_set():
            words, began = WORDS[(self._number + len(self.times_ms)) % len(WORDS)], time.perf_counter()
            try:
                hits = self._index.search(words, k=K, modality=("image", "text", None)[self._number % 3]).to_arrow()
                if self._number == 0:
                    stats = self._index.stats()
                    self.torn += stats.rows < rows
                    rows = stats.rows
                    self.versions.add(stats.version)
            except (OSError, ValueError, RuntimeError) as error:
                self.errors.append(f"{type(error).__name__}: {error!s:.300}")
                continue
            self.times_ms.append(1000 * (time.perf_counter() - began))
            whole = len(set(hits["item_id"].to_pylist())) == hits.num_rows == K and not hits["uri"].null_count
            self.torn += not whole or hits["encoder"].null_count > 0


def job(*arguments: str) -> None:
    """Run a job in a process of its own."""
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{arguments} ended with {done.returncode}: {done.stderr[-2000:]}")


def main() -> None:
    """Measure, write the result, print it."""
    with tempfile.TemporaryDirectory(prefix="search-during-embed-") as folder:
        db = f"{folder}/db"
        for name, scenes, seed in (("before", SCENES_BEFORE, 8_000_000), ("added", SCENES_ADDED, 8_100_000)):
            out = f"{folder}/{name}"
            job(
                "-m",
                "jobs.make_demo",
                "--scenes",
                str(scenes),
                "--first-seed",
                str(seed),
                "--modalities",
                "image,text",
                "--out",
                out,
            )
        job("-m", "jobs.embed", f"{folder}/before", "--db", db)
        index, stop = open_index(db), threading.Event()
        before = index.stats()
        readers = [Reader(index, number, stop) for number in range(READERS)]
        for reader in readers:
            reader.start()
        began = time.monotonic()
        job("-c", EMBED.format(COMMIT_S), f"{folder}/added", "--db", db)
        job("-m", "jobs.optimize", "--db", db, "--keep-versions-for", "1h")
        seconds = time.monotonic() - began
        time.sleep(1.5)
        stop.set()
        for reader in readers:
            reader.join()
        after = index.stats()
    times = np.concatenate([reader.times_ms for reader in readers])
    errors = [error for reader in readers for error in reader.errors]
    result: dict[str, Any] = {
        "what": f"{READERS} threads searching one index while its table is embedded into and then optimised",
        **machine(),
        "rows": [before.rows, after.rows],
        "versions": [before.version, after.version],
        "versions_seen": len(readers[0].versions),
        "seconds": round(seconds, 1),
        "searches": len(times),
        "p50_ms": round(float(np.percentile(times, 50)), 1),
        "p99_ms": round(float(np.percentile(times, 99)), 1),
        "errors": len(errors),
        "first_errors": errors[:3],
        "torn": sum(reader.torn for reader in readers),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
