"""Decoding that goes wrong costs the item it goes wrong on: real aborts, real endless loops, real allocations without end."""

import io
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pipelines.decoder
from pipelines.decoder import Decoder, Source
from pipelines.decoder_child import READ_AHEAD, _reads
from pipelines.replies import Decoded, Reject

HOSTILE = """
import os
from dataclasses import dataclass
import numpy as np
from torch import nn
from encoders.encoder import Encoder, Feature, register
from encoders.media.types import Facts


@dataclass(frozen=True)
class OddFacts(Facts):
    more: int = 1


class Film:
    duration_s = 8.0

    def part(self, start_s, end_s):
        return b"abort" if start_s >= 5 else b"good"


def decode(medium):
    if medium == b"film":
        return Film()
    if medium == b"abort":
        os.abort()
    if medium == b"exit":
        os._exit(7)
    while medium == b"loop":
        pass
    if medium == b"eat":
        hoard = []
        while True:
            hoard.append(bytearray(1 << 26))
    if medium == b"bug":
        raise KeyError("a bug of ours")
    return medium


@register("hostile")
def hostile():
    return Encoder(
        architecture="hostile", modality="hostile", dim=4, settings={}, features={"size": Feature("int64", (1,))},
        decode=decode, preprocess=lambda m: {"size": np.array([len(decode(m))])},
        describe=lambda m: OddFacts() if m == b"odd" else Facts(),
        build_tower=nn.Identity,
    )
"""


@pytest.fixture
def hostile_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A space whose only encoder comes from an installed package, through the entry-point group, and kills its process."""
    site = tmp_path / "site"
    (site / "hostile-1.0.dist-info").mkdir(parents=True)
    (site / "hostile.py").write_text(HOSTILE)
    (site / "hostile-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
    (site / "hostile-1.0.dist-info" / "entry_points.txt").write_text("[bindery.encoders]\nhostile = hostile\n")
    monkeypatch.syspath_prepend(str(site))
    space = tmp_path / "space"
    space.mkdir()
    encoder = {"architecture": "hostile", "settings": {}, "weights": "w", "fingerprint": "f", "logit_scale": 1.0, "card": {}}
    card = {"format": 1, "name": "h", "dim": 4, "fingerprint": "f", "license": "", "encoders": {"hostile": encoder}}
    (space / "space.json").write_text(json.dumps(card))
    yield str(space)


def _inline(*media: bytes) -> list[Source]:
    return [Source("hostile", f"m#{k}", "m", len(m), None, m) for k, m in enumerate(media)]


def test_a_hostile_item_costs_itself_and_its_mates_are_decoded(hostile_space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines.decoder, "MEMORY_BYTES", 1 << 30)
    decoder = Decoder(hostile_space, item_timeout_s=15.0)
    media = [b"good", b"abort", b"fine", b"loop", b"nice", b"eat", b"well", b"bug", b"odd", b"exit"]
    results = list(decoder.decode(_inline(*media)))
    kinds = [r.error_type if isinstance(r, Reject) else int(r.features["size"][0]) for r in results]
    assert kinds == [4, "DecoderCrash", 4, "DecoderTimeout", 4, "MemoryError", 4, "KeyError", "DecoderCrash", "DecoderCrash"]
    assert "signal 6" in results[1].message  # type: ignore[union-attr]
    assert [r.expected for r in results if isinstance(r, Reject)] == [True, True, True, False, True, True]
    assert [type(r) for r in decoder.decode(_inline(b"again"))] == [Decoded]
    decoder.close()


def test_a_source_that_kills_its_decoder_in_the_middle_is_tried_once(hostile_space: str) -> None:
    decoder = Decoder(hostile_space, item_timeout_s=15.0)
    film = Source("hostile", "film", "film", 4, None, b"film", cut="1")
    results = []
    for result in decoder.decode([film, *_inline(b"good")]):
        results.append(result)
        assert len(results) <= 7, "its segments come again and again"
        time.sleep(0.2)  # a busy tower: the child has long died when its first segments are taken
    decoder.close()
    kinds = [r.error_type if isinstance(r, Reject) else r.key for r in results]  # type: ignore[union-attr]
    assert kinds == ["0-1000", "1000-2000", "2000-3000", "3000-4000", "4000-5000", "DecoderCrash", ""]


def test_results_come_in_order_and_bad_files_are_rejects_with_their_stage(tmp_path: Path) -> None:
    sources = []
    for k in range(20):
        buffer = io.BytesIO()
        Image.fromarray(np.full((40, 40 + k, 3), k, np.uint8)).save(buffer, "PNG")
        path = tmp_path / f"{k:02}.png"
        path.write_bytes(buffer.getvalue() if k != 3 else b"not a picture")
        sources.append(Source("image", str(path), str(path), path.stat().st_size, None, None))
    (tmp_path / "05.png").unlink()
    decoder = Decoder("demo")
    results = list(decoder.decode(sources))
    decoder.close()
    assert [r.facts.width if isinstance(r, Decoded) else r.stage for r in results] == [
        {3: "decode", 5: "read"}.get(k, 40 + k) for k in range(20)
    ]


def test_answers_that_nobody_waits_for_any_more_are_none_to_the_next_sources() -> None:
    def picture(width: int) -> Source:
        buffer = io.BytesIO()
        Image.fromarray(np.zeros((32, width, 3), np.uint8)).save(buffer, "PNG")
        return Source("image", f"m#{width}", "m", None, None, buffer.getvalue())

    decoder = Decoder("demo")
    given_up = decoder.decode([picture(width) for width in range(40, 400)])
    assert isinstance(next(given_up), Decoded)
    given_up.close()  # type: ignore[attr-defined]
    found = [r.facts.width for r in decoder.decode([picture(33), picture(34)]) if isinstance(r, Decoded)]
    decoder.close()
    assert found == [33, 34]


@pytest.mark.parametrize(("size_bytes", "at_most"), [(1000, READ_AHEAD), (10 << 20, 8), (60 << 20, 3), (200 << 20, READ_AHEAD)])
def test_reads_are_begun_ahead_by_few_sources_and_few_bytes_but_one_at_least(size_bytes: int, at_most: int) -> None:
    """What is larger than 64 MB is opened only, and read while it is decoded."""
    begun: list[Source] = []

    def submit(source: Source) -> Future[Any]:
        begun.append(source)
        return Future()

    sources = [Source("image", f"m{k}", f"m{k}", size_bytes, None, None) for k in range(50)]
    ahead = [len(begun) - k for k, _ in enumerate(_reads(sources, submit), 1)]
    assert begun == sources and len(ahead) == 50
    assert min(ahead[:40]) >= 1 and max(ahead) <= at_most


def test_a_source_can_be_a_range_of_a_larger_object(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(buffer, "PNG")
    shard = tmp_path / "shard.tar"
    shard.write_bytes(b"x" * 1000 + buffer.getvalue() + b"y" * 1000)
    decoder = Decoder("demo")
    (result,) = decoder.decode([Source("image", "shard.tar#a.png", str(shard), len(buffer.getvalue()), 1000, None)])
    decoder.close()
    assert isinstance(result, Decoded) and (result.facts.width, result.facts.height) == (48, 32)


def test_a_child_that_dies_while_it_starts_or_is_idle_is_replaced() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(buffer, "PNG")
    source = Source("image", "m#0", "m", None, None, buffer.getvalue())
    decoder = Decoder("demo")
    for _ in range(2):
        os.kill(decoder._child.pid, signal.SIGKILL)
        decoder._child.wait()
        assert [type(r) for r in decoder.decode([source])] == [Decoded]
    decoder.close()
