"""What media cost, measured on a few: the bad ones are counted, the missing ones are not there, the largest part has a name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from searchable import make_media

from encoders import load_space
from pipelines.cluster import Resources
from pipelines.media_rates import TRIED, in_all, try_media
from pipelines.pairs import Member


def test_bad_media_are_counted_and_those_that_are_missing_are_not_tried(tmp_path: Path) -> None:
    sounds = [str(path) for modality, path in make_media(tmp_path, 5) if modality == "audio"]
    (tmp_path / "damaged.wav").write_bytes(b"RIFF")
    member = Member("audio", load_space("demo").encoders["audio"], str(tmp_path))
    rate, features = try_media(member, [*sounds, None, "damaged.wav", None], with_tower=True)
    assert (rate.media, rate.tried, rate.bad) == (6, 6, 1) and rate.prepare_s > 0 and rate.tower_s
    assert {len(values) for values in features.values()} == {5} and features.keys() == member.encoder.features.keys()
    assert np.isfinite(next(iter(features.values()))).all()
    rate, features = try_media(member, sounds * 20, with_tower=False)
    assert (rate.media, rate.tried, rate.tower_s) == (100, TRIED, None)
    assert try_media(member, ["damaged.wav"], with_tower=True)[1] == {}
    assert try_media(member, [None], with_tower=True)[0].media == 0


def test_the_largest_part_is_named_unless_the_run_has_another_device() -> None:
    parts = {"decoding": 1.0, "the tower": 3.0}
    gpus = int(torch.cuda.is_available())
    told = in_all(parts, Resources(2, gpus))
    assert told["seconds"] == 4 and told["bottleneck"] == "most of it is the tower: 3.0 of 4.0 s"
    assert in_all({}, Resources(2, gpus))["bottleneck"] is None
    other = in_all(parts, Resources(2, 1 - gpus))
    assert other["seconds"] is None and "another device" in other["bottleneck"] and other["seconds_of"] == parts
