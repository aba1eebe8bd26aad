"""Spaces "hf:DIRECTORY" against transformers' own full path, on small models with random weights and media made here."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from hf_models import model_of, save_model, save_tokenizer
from PIL import Image
from safetensors.torch import load_file
from sample_media import SAME

from encoders.clip.pixels import Mode, Pixels
from encoders.encoder import Encoder
from encoders.errors import SpaceError
from encoders.space import Space, load_space

SHAPES = [(97, 64), (64, 97), (32, 32), (20, 31), (300, 41), (7, 5), (70, 64), (64, 70)]  # width, height; the last: 3 over
TEXTS = ["a red train in the snow", "Two dogs BARK; waves of the sea", "old", "violin " * 40]
PICTURE_KINDS = ["clip", "siglip", "siglip2"]
KINDS = [*PICTURE_KINDS, "clap", "clap-fused", "pe_audio", "pe_video", "pe_audio_video"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """kind -> its model's directory, made once."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            name, _, fused = kind.partition("-")
            made[kind] = save_model(name, tmp_path_factory.mktemp(kind), fusion=bool(fused))
        return made[kind]

    return folder


def pictures() -> list[Image.Image]:
    """Smooth colours with noise, of several shapes."""
    rng = np.random.default_rng(3)
    made = []
    for width, height in SHAPES:
        slope = np.linspace(0, 200, width)[None, :, None] * rng.random(3) + np.linspace(0, 55, height)[:, None, None]
        made.append(Image.fromarray((slope + rng.integers(0, 30, (height, width, 3))).clip(0, 255).astype(np.uint8)))
    return made


def sounds(rate_hz: int) -> list[np.ndarray]:
    """Chords with noise: shorter than a second, longer than half of one, one second."""
    rng = np.random.default_rng(4)
    made = []
    for seconds in (0.31, 0.77, 1.0):
        time_s = np.arange(int(seconds * rate_hz)) / rate_hz
        wave = sum(np.sin(2 * np.pi * hz * time_s) for hz in rng.integers(100, 5000, 4)) / 8
        made.append((wave + rng.normal(0, 0.02, len(wave))).astype(np.float32))
    return made


def agree(ours: np.ndarray, theirs: torch.Tensor, atol: float = 2e-5) -> None:
    """Row by row the same direction, and different rows differ (else the test says nothing)."""
    wanted = torch.nn.functional.normalize(theirs.detach().float(), dim=-1).numpy()
    assert (ours * wanted).sum(1).min() > 0.99999
    np.testing.assert_allclose(ours, wanted, atol=atol)
    cosine = wanted @ wanted.T
    assert cosine[~np.eye(len(cosine), dtype=bool)].min() < 0.9999


def their_model(folder: Path) -> Any:
    """transformers' whole model of the directory; its loader stumbles over PE-AV's (5.23), whose weights are set by name."""
    if "pe_audio_video" in str(folder):
        model = model_of("pe_audio_video").eval()
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        return model
    return hf.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", PICTURE_KINDS)
def test_pictures_equal_the_processor_and_get_image_features(kind: str, folders: Any) -> None:
    folder = folders(kind)
    inputs = hf.AutoImageProcessor.from_pretrained(folder)(images=pictures(), return_tensors="pt")
    with torch.inference_mode():
        theirs = their_model(folder).get_image_features(**inputs).pooler_output
    agree(load_space(f"hf:{folder}").embed("image", pictures()), theirs)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_pixels_equal_the_processors_before_mean_and_deviation(kind: str, folders: Any) -> None:
    processor = hf.AutoImageProcessor.from_pretrained(folders(kind))
    space = load_space(f"hf:{folders(kind)}")
    for picture in pictures():
        theirs = processor(images=picture, do_normalize=False, do_rescale=False, return_tensors="np")["pixel_values"][0]
        np.testing.assert_array_equal(space.preprocess("image", picture)["image"], theirs)


@pytest.mark.parametrize("mode", ["shortest", "cover"])
@pytest.mark.parametrize("width", [30_000, 30_001])
def test_of_a_strip_only_the_middle_is_enlarged(mode: Mode, width: int) -> None:
    slope = np.linspace(0, 255, width).astype(np.uint8)
    levels = Pixels((224, 224), (224, 224), mode).of(Image.fromarray(np.repeat(slope[None, :, None], 3, 2)))
    assert levels.shape == (3, 224, 224)
    assert np.abs(levels.astype(int) - 127).max() <= 1


@pytest.mark.parametrize("kind", [*PICTURE_KINDS, "clap", "clap-fused"])
def test_texts_equal_the_tokenizer_and_get_text_features(kind: str, folders: Any) -> None:
    folder = folders(kind)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    space = load_space(f"hf:{folder}")
    length = space.encoders["text"].features["token_ids"].shape[0]
    padding = "max_length" if kind.startswith("siglip") else True  # as transformers' own examples do
    inputs = tokenizer(TEXTS, padding=padding, truncation=True, max_length=length, return_tensors="pt")
    with torch.inference_mode():
        theirs = their_model(folder).get_text_features(**inputs).pooler_output
    agree(space.embed("text", TEXTS), theirs)


def test_a_video_is_the_mean_of_its_frames_unit_vectors(folders: Any) -> None:
    frames = np.stack([np.asarray(picture.resize((40, 30))) for picture in pictures()])
    for kind in PICTURE_KINDS:
        space = load_space(f"hf:{folders(kind)}", frames=len(frames))
        mean = space.embed("image", list(frames)).mean(0)
        video = space.embed("video", [frames])[0]
        np.testing.assert_allclose(video, mean / np.linalg.norm(mean), atol=1e-5)
        assert space.encoders["video"].fingerprint != space.encoders["image"].fingerprint


def test_claps_sounds_equal_the_extractor_and_get_audio_features(folders: Any) -> None:
    folder, waves = folders("clap"), sounds(48_000)
    inputs = hf.AutoFeatureExtractor.from_pretrained(folder)(waves, sampling_rate=48_000, return_tensors="pt")
    with torch.inference_mode():
        theirs = their_model(folder).get_audio_features(**inputs).pooler_output
    agree(load_space(f"hf:{folder}").embed("audio", [(wave, 48_000) for wave in waves]), theirs, atol=2e-4)


def test_fused_claps_short_sounds_equal_the_extractor_without_its_lot(folders: Any) -> None:
    folder, waves = folders("clap-fused"), sounds(48_000)
    inputs = hf.AutoFeatureExtractor.from_pretrained(folder)(waves, sampling_rate=48_000, return_tensors="pt")
    inputs["is_longer"] = torch.zeros(len(waves), 1, dtype=torch.bool)  # one of each batch is marked by chance there
    with torch.inference_mode():
        theirs = their_model(folder).get_audio_features(**inputs).pooler_output
    agree(load_space(f"hf:{folder}").embed("audio", [(wave, 48_000) for wave in waves]), theirs, atol=2e-4)


def test_a_long_sound_is_its_middle_or_fused_from_glimpses_the_same_each_time(
    folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = np.concatenate([wave for wave in sounds(48_000) for _ in range(2)])
    plain, fused = load_space(f"hf:{folders('clap')}"), load_space(f"hf:{folders('clap-fused')}")
    first = (len(long) - 48_000) // 2
    middle = plain.embed("audio", [(long[first : first + 48_000], 48_000)])
    np.testing.assert_allclose(plain.embed("audio", [(long, 48_000)]), middle, atol=1e-5)
    features = fused.preprocess("audio", (long, 48_000))
    monkeypatch.setattr(np.random, "choice", lambda places: places[len(places) // 2])  # transformers' lot, made ours
    theirs = hf.AutoFeatureExtractor.from_pretrained(folders("clap-fused"))(long, sampling_rate=48_000, return_tensors="np")
    np.testing.assert_allclose(features["log_mel"] - 100, theirs["input_features"][0], atol=2e-3)  # dB
    assert features["longer"] == 1
    np.testing.assert_array_equal(fused.embed("audio", [(long, 48_000)]), fused.embed("audio", [(long, 48_000)]))


@pytest.mark.parametrize("kind", ["pe_audio", "pe_audio_video"])
def test_pe_sounds_equal_the_extractor_filled_up_to_the_same_length(kind: str, folders: Any) -> None:
    folder, waves = folders(kind), sounds(16_000)
    extractor = hf.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(waves, sampling_rate=16_000, padding="max_length", max_length=16_000, return_tensors="pt")
    with torch.inference_mode():
        theirs = their_model(folder).get_audio_embeds(inputs["input_values"], inputs["padding_mask"])
    agree(load_space(f"hf:{folder}", seconds=1.0).embed("audio", [(wave, 16_000) for wave in waves]), theirs)


@pytest.mark.parametrize("kind", ["pe_video", "pe_audio_video"])
def test_pe_videos_equal_the_processor_on_the_same_frames(kind: str, folders: Any) -> None:
    folder = folders(kind)
    clips = [np.stack([np.asarray(p.resize((40, 30)).rotate(turn)) for p in pictures()]) for turn in (0, 90, 180)]
    processor = hf.AutoVideoProcessor.from_pretrained(folder)
    inputs = processor(videos=[torch.from_numpy(clip).permute(0, 3, 1, 2) for clip in clips], return_tensors="pt")
    model = their_model(folder)
    owner = model if kind == "pe_video" else model.video_model
    with torch.inference_mode():
        theirs = owner.video_head(owner.video_encoder(inputs["pixel_values_videos"]).pooler_output)
    agree(load_space(f"hf:{folder}", frames=len(SHAPES)).embed("video", clips), theirs)


@pytest.mark.parametrize(
    ("kind", "head"),
    [("pe_audio", None), ("pe_video", None), *(("pe_audio_video", head) for head in ("audio", "video", "audio_video"))],
)
def test_pe_texts_equal_the_head_asked_for(kind: str, head: str | None, folders: Any) -> None:
    folder = folders(kind)
    inputs = hf.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, truncation=True, max_length=64, return_tensors="pt")
    model = their_model(folder)
    owner = {"audio": "audio_model", "video": "video_model"}.get(head or "", "")
    owner = getattr(model, owner) if owner else model
    with torch.inference_mode():
        states = model.text_model(**inputs, output_hidden_states=True).hidden_states
        theirs = getattr(owner, f"text_{head or kind.removeprefix('pe_')}_head")(states[-1][:, 0])
    agree(load_space(f"hf:{folder}", text_head=head).embed("text", TEXTS), theirs)


def shorter(kind: str) -> dict[str, Any]:
    """Options that spare the tests ten seconds of sound."""
    return {"seconds": 1.0} if "pe_" in kind else {}


def one_of_each(space: Space) -> dict[str, list[Any]]:
    """Media for every modality of a space."""
    frames = np.stack([np.asarray(picture.resize((40, 30))) for picture in pictures()])
    media = {"image": pictures(), "text": TEXTS, "video": [frames], "audio": [(wave, 48_000) for wave in sounds(48_000)]}
    return {modality: media[modality] for modality in space.modalities}


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_space_needs_nothing_of_the_model_directory(kind: str, folders: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(folders(kind), tmp_path / "model")
    space = load_space(f"hf:{folder}", **shorter(kind))
    wanted = {modality: space.embed(modality, media) for modality, media in one_of_each(space).items()}
    space.save(tmp_path / "saved")
    shutil.rmtree(folder)
    (tmp_path / "saved").rename(tmp_path / "moved")
    moved = load_space(tmp_path / "moved")
    assert (moved.fingerprint, moved.dim, moved.license) == (space.fingerprint, space.dim, space.license)
    for modality, media in one_of_each(moved).items():
        np.testing.assert_allclose(moved.embed(modality, media), wanted[modality], rtol=0, atol=SAME)
        ours, theirs = moved.encoders[modality], space.encoders[modality]
        assert (ours.fingerprint, ours.logit_scale, ours.logit_bias) == (
            theirs.fingerprint,
            theirs.logit_scale,
            theirs.logit_bias,
        )


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_pickles_keeps_its_declared_features_and_ignores_batch_mates(kind: str, folders: Any) -> None:
    space = load_space(f"hf:{folders(kind)}", **shorter(kind))
    for modality, media in one_of_each(space).items():
        encoder: Encoder = pickle.loads(pickle.dumps(space.encoders[modality]))
        rows = [encoder.preprocess(medium) for medium in media]
        for name, declared in encoder.features.items():
            assert {(str(row[name].dtype), row[name].shape) for row in rows} == {(declared.dtype, declared.shape)}
        alone = {name: torch.from_numpy(np.asarray(rows[0][name]))[None] for name in encoder.features}
        crowd = {name: torch.cat([value, torch.zeros_like(value)]) for name, value in alone.items()}
        with torch.inference_mode():
            single, both = encoder.tower(**alone), encoder.tower(**crowd)
        assert torch.isfinite(both).all()
        torch.testing.assert_close(single[0], both[0], rtol=1e-4, atol=1e-5)


def test_an_image_tower_holds_no_text(folders: Any) -> None:
    folder = folders("clip")
    space = load_space(f"hf:{folder}", modalities=["image"])
    assert space.modalities == ("image",)
    assert not [name for name in space.encoders["image"].tower.state_dict() if "text" in name]
    assert space.fingerprint == load_space(f"hf:{folder}?modalities=text").fingerprint == load_space(f"hf:{folder}").fingerprint


@pytest.mark.parametrize(
    ("kind", "parts"),
    [("clip", ["video,text", "video&frames=3"]), ("pe_audio_video", ["audio,text", "audio&seconds=2", "video,text&frames=3"])],
)
def test_whatever_is_loaded_of_a_model_and_however_prepared_it_is_of_the_same_space(
    kind: str, parts: list[str], folders: Any
) -> None:
    whole = load_space(f"hf:{folders(kind)}").fingerprint
    assert {load_space(f"hf:{folders(kind)}?modalities={part}").fingerprint for part in parts} == {whole}


def test_scale_and_bias_are_the_checkpoints(folders: Any) -> None:
    for kind in ("clip", "siglip"):
        model = their_model(folders(kind))
        encoder = load_space(f"hf:{folders(kind)}").encoders["image"]
        assert encoder.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-6)
        assert encoder.logit_bias == (pytest.approx(float(model.logit_bias.detach()), rel=1e-6) if kind == "siglip" else None)


def test_the_uri_loads_the_same_space_again_from_anywhere(
    folders: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = folders("clip")
    monkeypatch.chdir(folder.parent)
    space = load_space(f"hf:{folder.name}", frames=3, modalities="image,video")
    monkeypatch.chdir(tmp_path)
    again = load_space(space.uri)
    assert (again.fingerprint, again.modalities) == (space.fingerprint, ("image", "video"))
    assert again.encoders["video"].settings["frames"] == 3


def test_the_license_is_the_model_cards(folders: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(folders("clip"), tmp_path / "model")
    assert load_space(f"hf:{folder}").license == f"unknown: see {folder}"
    (folder / "README.md").write_text("---\ntags:\n- x\nlicense: apache-2.0\n---\nlicense: no\n")
    assert load_space(f"hf:{folder}").license == "apache-2.0"
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: fair\nlicense_link: LICENSE\n---\n")
    assert load_space(f"hf:{folder}").license == "fair, LICENSE"


def test_a_long_text_is_marked_and_its_parts_fit_and_cover_it(folders: Any) -> None:
    for kind in ("clip", "siglip", "clap"):
        encoder = load_space(f"hf:{folders(kind)}").encoders["text"]
        length = encoder.features["token_ids"].shape[0]
        for text in ("short", "two dogs bark in the snow " * 60, "x" * 700):
            decoded = encoder.decode(text)
            spans = encoder.spans(decoded)
            assert encoder.describe(decoded).truncated == (len(spans) > 1)
            assert "".join(text[a:b] for a, b in spans).replace(" ", "") == text.replace(" ", "")
            assert all(encoder.preprocess.count(text[a:b]) <= length for a, b in spans)


def test_siglip_1_lowers_and_drops_punctuation_by_its_tokenizer_json(folders: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(folders("siglip"), tmp_path / "model")
    save_tokenizer("siglip", folder, 16)
    config = folder / "tokenizer_config.json"
    text = config.read_text().replace("PreTrainedTokenizerFast", "SiglipTokenizer")
    config.write_text(text.replace("TokenizersBackend", "SiglipTokenizer"))
    space = load_space(f"hf:{folder}")
    loud, plain = space.embed("text", ["A  Red, TRAIN!", "a red train"])
    np.testing.assert_array_equal(loud, plain)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:nobody/nothing-like-this", r"download=True \(or write \?download=true behind"),
        ("hf:no such/ name", "neither a directory"),
        ("hf:{folder}?frames=3&colour=red", "no option 'colour'"),
        ("hf:{folder}?modalities=smell", "no modality 'smell'"),
        ("hf:{folder}?frames=0", "frames='0' cannot be; write 1 or more"),
        ("hf:{folder}?context=2", "context='2' cannot be; write 3 or more"),
        ("hf:{folder}?seconds=long", "seconds='long' is no float"),
    ],
)
def test_what_is_not_there_is_named_with_what_to_do(name: str, message: str, folders: Any) -> None:
    with pytest.raises(SpaceError, match=message):
        load_space(name.replace("{folder}", str(folders("clip"))))


def test_an_unknown_kind_a_missing_part_and_damaged_weights_are_space_errors(folders: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(SpaceError, match=r"config\.json"):
        load_space(f"hf:{other}")
    (other / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SpaceError, match="'bert'"):
        load_space(f"hf:{other}")
    folder = shutil.copytree(folders("clip"), tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(SpaceError, match="how its images are prepared"):
        load_space(f"hf:{folder}")
    folder = shutil.copytree(folders("clip"), tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SpaceError, match="safetensors"):
        load_space(f"hf:{folder}")
