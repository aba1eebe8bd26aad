"""Laws of every registered encoder, on media made here.  B batch, D dim."""

from __future__ import annotations

import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_media import sample, sample_files

from encoders.embedder import Embedder
from encoders.encoder import Encoder, build_encoder, list_encoders, seeded_tower, small_settings
from encoders.errors import DecodeError
from encoders.media.types import URI
from encoders.space import Space, load_space, space_fingerprint, trained

ENCODERS = list_encoders()
pytestmark = pytest.mark.parametrize("name", ENCODERS)


@cache
def encoder_of(name: str) -> Encoder:
    """The encoder at its size for tests."""
    return build_encoder(name, small_settings(name))


def features_of(encoder: Encoder) -> dict[str, torch.Tensor]:
    """The features of a sample medium with a batch axis of 1."""
    return {k: torch.from_numpy(v)[None] for k, v in encoder.preprocess(sample(encoder.modality)).items()}


def crowd_of(encoder: Encoder) -> dict[str, torch.Tensor]:
    """The sample, its mirror image, and zeros: a batch of 3."""
    return {k: torch.cat([v, v.flip(-1), torch.zeros_like(v)]) for k, v in features_of(encoder).items()}


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """The smallest cosine of matching rows."""
    return float(torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=-1).min())


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


def test_every_parameter_receives_a_gradient(name: str) -> None:
    encoder = encoder_of(name)
    tower = encoder.build_tower().train()
    features = crowd_of(encoder)
    tower(**features).square().sum().backward()
    idle = [key for key, value in tower.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert not idle


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
    np.testing.assert_array_equal(loaded.embed(encoder.modality, media), space.embed(encoder.modality, media))


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


def test_the_embedder_gives_unit_vectors_whatever_the_batch_size(name: str) -> None:
    encoder = encoder_of(name)
    batch = {k: v.numpy() for k, v in crowd_of(encoder).items()}
    one, many = Embedder(encoder, 1, "cpu")(batch), Embedder(encoder, 8, "cpu")(batch)
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(one, many, atol=1e-5)
