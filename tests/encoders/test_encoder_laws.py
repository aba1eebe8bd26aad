"""Laws of every registered encoder, on media made here.  B batch, D dim."""

from __future__ import annotations

import pickle
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_media import SAME, sample, sample_files
from torch import nn

from encoders.embedder import Embedder
from encoders.encoder import Encoder, build_encoder, list_encoders, seeded_tower, small_settings
from encoders.errors import DecodeError
from encoders.media.types import URI
from encoders.space import Space, load_space, space_fingerprint, trained
from encoders.training.loss import clip_loss
from encoders.training.sides import Learner

ENCODERS = list_encoders()
pytestmark = pytest.mark.parametrize("name", ENCODERS)


@cache
def encoder_of(name: str) -> Encoder:
    """The encoder at its size for tests."""
    return build_encoder(name, small_settings(name))


@cache
def sample_features(name: str) -> dict[str, torch.Tensor]:
    """The features of a sample medium with a batch axis of 1."""
    encoder = encoder_of(name)
    return {k: torch.from_numpy(v)[None] for k, v in encoder.preprocess(sample(encoder.modality)).items()}


def features_of(encoder: Encoder) -> dict[str, torch.Tensor]:
    """The same, as tensors of one's own."""
    return {k: v.clone() for k, v in sample_features(encoder.architecture).items()}


def crowd_of(encoder: Encoder, count: int = 3) -> dict[str, torch.Tensor]:
    """The sample, its mirror image, zeros, and then the sample rolled along its last axis."""
    return {
        k: torch.cat([v, v.flip(-1), torch.zeros_like(v), *(v.roll(7 * i, -1) for i in range(1, count - 2))])
        for k, v in features_of(encoder).items()
    }


def tower_in_training(encoder: Encoder) -> nn.Module:
    """Its initial weights and what it drops depend on nothing but the encoder."""
    torch.manual_seed(5)
    return encoder.build_tower().train()


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """The smallest cosine of matching rows."""
    return float(nn.functional.cosine_similarity(a.float(), b.float(), dim=-1).min())


def test_an_encoder_and_its_preprocess_pickle(name: str) -> None:
    encoder = encoder_of(name)
    copy = pickle.loads(pickle.dumps(encoder))
    assert "tower" not in copy.__dict__
    for key, value in encoder.preprocess(sample(encoder.modality)).items():
        np.testing.assert_array_equal(copy.preprocess(sample(encoder.modality))[key], value)


def test_features_match_their_declared_shape_and_type_for_every_format(name: str) -> None:
    encoder = encoder_of(name)
    for file, media in sample_files(encoder.modality).items():
        features = encoder.preprocess(media)
        assert features.keys() == encoder.features.keys(), file
        for key, declared in encoder.features.items():
            assert (str(features[key].dtype), features[key].shape) == (declared.dtype, declared.shape), file
            assert np.isfinite(features[key]).all(), file


def test_a_decoded_medium_preprocesses_like_its_bytes_and_decodes_to_itself(name: str) -> None:
    encoder = encoder_of(name)
    decoded = encoder.decode(sample(encoder.modality))
    assert encoder.decode(decoded) is decoded
    encoder.describe(decoded)  # looking at it changes nothing
    for key, value in encoder.preprocess(sample(encoder.modality)).items():
        np.testing.assert_array_equal(encoder.preprocess(decoded)[key], value)


def test_a_path_a_uri_and_an_open_file_preprocess_like_bytes_and_the_file_stays_open(name: str, tmp_path: Path) -> None:
    encoder = encoder_of(name)
    for file, media in sample_files(encoder.modality).items():
        path = tmp_path / file
        path.write_bytes(media)
        wanted = encoder.preprocess(media)
        with path.open("rb") as opened:
            for key, value in encoder.preprocess(opened).items():
                np.testing.assert_array_equal(value, wanted[key])
            assert not opened.closed
        for named in (path, URI(path.as_uri())):
            for key, value in encoder.preprocess(named).items():
                np.testing.assert_array_equal(value, wanted[key])


def test_no_bytes_and_foreign_bytes_are_decode_errors(name: str) -> None:
    encoder = encoder_of(name)
    for media in (
        b"",
        b"\xff\xfe\x00garbage\x9c" * 50,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile:///etc/hostname\n",
    ):
        if encoder.modality == "text" and media.startswith(b"#"):
            continue
        with pytest.raises(DecodeError):
            encoder.preprocess(media)


def test_facts_are_small_and_name_the_type(name: str) -> None:
    encoder = encoder_of(name)
    facts = encoder.describe(encoder.decode(sample(encoder.modality)))
    assert facts.mime
    if encoder.modality == "text":
        assert facts.text == sample("text").decode()
    else:
        assert facts.preview is not None
        assert facts.preview.startswith(b"\xff\xd8")
        assert len(facts.preview) <= 6 * 1024


def test_a_tower_makes_one_finite_vector_of_its_dimension_per_row(name: str) -> None:
    encoder = encoder_of(name)
    vectors = encoder.tower(**crowd_of(encoder))
    assert vectors.shape == (3, encoder.dim)
    assert torch.isfinite(vectors).all()


def test_a_vector_does_not_depend_on_its_batch_mates(name: str) -> None:
    encoder = encoder_of(name)
    with torch.inference_mode():
        alone, crowd = encoder.tower(**features_of(encoder)), encoder.tower(**crowd_of(encoder))
    torch.testing.assert_close(alone[0], crowd[0], rtol=1e-4, atol=1e-5)


def test_every_parameter_receives_a_gradient_from_the_training_loss(name: str) -> None:
    encoder = encoder_of(name)
    tower = tower_in_training(encoder)
    count = 4 if encoder.modality == "video" else 16  # where a tower drops whole samples, some are left
    learner = Learner(tower, crowd_of(encoder, count))
    vectors_BD = learner.vectors(learner.batch(torch.arange(count), torch.Generator().manual_seed(0)))
    target_BD = nn.functional.normalize(torch.randn(vectors_BD.shape, generator=torch.Generator().manual_seed(1)), dim=-1)
    clip_loss(vectors_BD, target_BD, torch.tensor(10.0)).backward()
    learned = {key: value for key, value in tower.named_parameters() if value.requires_grad}
    assert learned
    assert not [key for key, value in learned.items() if value.grad is None or not value.grad.abs().sum() > 0]


def test_what_training_may_do_to_features_keeps_their_shape_and_type(name: str) -> None:
    encoder = encoder_of(name)
    if encoder.augment is None:
        return
    features = crowd_of(encoder)
    for seed in range(4):
        for key, value in encoder.augment(features, torch.Generator().manual_seed(seed)).items():
            assert (value.shape, value.dtype) == (features[key].shape, features[key].dtype)


def test_the_same_medium_gives_the_same_vector_twice(name: str) -> None:
    encoder = encoder_of(name)
    first, second = seeded_tower(encoder, 7).eval(), seeded_tower(encoder, 7).eval()
    with torch.inference_mode():
        torch.testing.assert_close(first(**features_of(encoder)), second(**features_of(encoder)), rtol=0, atol=0)


def test_saved_and_loaded_gives_equal_vectors(name: str, tmp_path: Path) -> None:
    encoder = encoder_of(name)
    made = trained(encoder, seeded_tower(encoder, 3), 10.0, {}, torch.float32)
    space = Space("test", encoder.dim, space_fingerprint("0" * 32, encoder.dim), "none", {encoder.modality: made})
    space.save(tmp_path / "space")
    media = list(sample_files(encoder.modality).values())
    loaded = load_space(tmp_path / "space")
    assert loaded.encoders[encoder.modality].fingerprint == made.fingerprint
    np.testing.assert_allclose(loaded.embed(encoder.modality, media), space.embed(encoder.modality, media), rtol=0, atol=SAME)


def test_bfloat16_keeps_the_direction(name: str) -> None:
    encoder = encoder_of(name)
    features = crowd_of(encoder)
    tower = seeded_tower(encoder, 0).eval()
    with torch.inference_mode():
        exact = tower(**features)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = tower(**features)
        assert cosine(exact, mixed) >= 0.999
        assert cosine(exact, tower.bfloat16()(**features)) >= 0.999


def test_all_of_a_timed_medium_is_a_part_of_it_and_a_part_is_a_medium_of_its_own(name: str) -> None:
    encoder = encoder_of(name)
    decoded = encoder.decode(sample(encoder.modality))
    if not hasattr(decoded, "part") or not hasattr(decoded, "duration_s"):
        return
    whole, end_s = encoder.preprocess(decoded), decoded.duration_s
    for key, value in encoder.preprocess(decoded.part(0.0, end_s + 1)).items():
        np.testing.assert_allclose(value, whole[key], atol=1e-6)
    part = decoded.part(0.25 * end_s, 0.75 * end_s)
    assert type(part) is type(decoded)
    assert encoder.decode(part) is part
    assert part.duration_s == pytest.approx(end_s / 2, abs=0.02)
    features, again = encoder.preprocess(part), encoder.preprocess(decoded.part(0.25 * end_s, 0.75 * end_s))
    for key, declared in encoder.features.items():
        assert (str(features[key].dtype), features[key].shape) == (declared.dtype, declared.shape)
        np.testing.assert_array_equal(features[key], again[key])
    assert any(not np.array_equal(features[key], whole[key]) for key in features)
    facts = encoder.describe(part)
    assert facts.duration_s == pytest.approx(part.duration_s)
    with pytest.raises(ValueError):  # each kind of medium has its own words for it
        encoder.preprocess(decoded.part(end_s + 1, end_s + 2))


def test_the_spans_of_a_long_text_fit_and_those_of_a_short_one_are_all_of_it(name: str) -> None:
    encoder = encoder_of(name)
    if encoder.spans is None:
        return
    short = encoder.decode(b"a red train")
    assert encoder.spans(short) == [(0, len(short.text))]
    assert encoder.describe(short).truncated is False
    long = encoder.decode(" ".join(f"train number {k} in the snow," for k in range(60)))
    spans = encoder.spans(long)
    assert len(spans) > 1
    assert encoder.describe(long).truncated is True
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert "".join(long.text[first:end] for first, end in spans).replace(" ", "") == long.text.replace(" ", "")
    for first, end in spans:
        part = long.part(first, end)
        assert encoder.spans(part) == [(0, end - first)]
        assert encoder.describe(part).truncated is False


def test_the_embedder_gives_unit_vectors_whatever_the_batch_size(name: str) -> None:
    encoder = encoder_of(name)
    batch = {k: v.numpy() for k, v in crowd_of(encoder).items()}
    one, many = Embedder(encoder, 1, "cpu")(batch), Embedder(encoder, 8, "cpu")(batch)
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(one, many, atol=1e-5)
