"""A space of a Hugging Face directory through the whole job and back: real Ray, real Lance, a model made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hf_models import save_model
from PIL import Image, ImageDraw

from encoders import load_space
from pipelines import open_index
from pipelines.embed import EmbedSettings, embed

pytestmark = pytest.mark.usefixtures("ray_local")
TEXTS = {"a": "a red train in the snow", "b": "waves of the sea", "c": "two dogs bark"}


def write_media(folder: Path) -> None:
    """Four pictures and three texts."""
    folder.mkdir()
    for index, colour in enumerate(["red", "blue", "white", "olive"]):
        image = Image.new("RGB", (60 + 9 * index, 50), colour)
        ImageDraw.Draw(image).ellipse((5, 5, 20 + 9 * index, 40), fill="black")
        image.save(folder / f"{index}.png")
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text(text)


def test_a_folder_is_embedded_by_a_hugging_face_directory_and_found_by_text(tmp_path: Path) -> None:
    write_media(tmp_path / "media")
    model = save_model("clip", tmp_path / "model")
    name = f"hf:{model}?frames=2"
    settings = EmbedSettings(corpus=str(tmp_path / "media"), db=str(tmp_path / "db"), space=name)
    report = embed(settings)
    assert (report.tally.embedded, report.tally.rejected, report.failures) == (7, 0, [])
    assert embed(settings).tally.unchanged == 7
    index = open_index(str(tmp_path / "db"))
    space = load_space(name)
    assert index.stats().space_fingerprint == space.fingerprint and index.stats().rows == 7
    found = index.search(TEXTS["b"], k=7, calibrated=False).to_pandas()
    assert found["uri"][0].endswith("b.txt") and found["similarity"][0] == pytest.approx(1, abs=1e-5)
    pictures = index.search(TEXTS["b"], modality="image", k=4).to_pandas()
    media = [Path(uri.removeprefix("file://")) for uri in pictures["uri"]]
    wanted = space.embed("image", media) @ space.embed("text", [TEXTS["b"]])[0]
    np.testing.assert_allclose(pictures["similarity"], wanted, atol=1e-5)
    assert (np.diff(wanted) <= 1e-6).all()
