"""ImageBind with its published weights. In: a checkpoint. Out: a space of seven modalities, of which any may be left out.

The weights are Meta's, under CC BY-NC-SA 4.0, and their model card rules out commercial and any other real-world deployment.
Nothing is fetched unless asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from encoders.cache import cache_folder, fetch
from encoders.encoder import Encoder, build_encoder
from encoders.errors import SpaceError
from encoders.families import chosen, flag, spelled
from encoders.imagebind.model import ALIASES, MAX_SCALE
from encoders.imagebind.model import MODALITIES as OFFICIAL
from encoders.space import Space, space_fingerprint
from encoders.weights import Weights

NAMES = ("imagebind-huge",)
MODALITIES = ("image", "video", "text", "audio", "depth", "thermal", "imu")
LICENSE = "CC BY-NC-SA 4.0: non-commercial, research only, not for real-world deployment"
FILE = "imagebind_huge.pth"
URL = f"https://dl.fbaipublicfiles.com/imagebind/{FILE}"
SIZE = 4_803_584_173  # bytes
# Meta publishes no digest that we know of. This one is what one public project noted down of the file at this address; others
# note its beginning, and the same size. It says that the file came whole, and is the one that they have.
SHA256 = "d6f6c22bedcc90708448d5d2fbb7b2db9c73f505dc89bd0b2e09b23af1b62157"
PARTS = ("modality_preprocessors", "modality_trunks", "modality_heads", "modality_postprocessors")
TEXT_SCALE = "modality_postprocessors.text.1.log_logit_scale"
SCALES = {"audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0}  # fixed by the model; image, video, text: learned
WITHOUT_PROFILES = ("imu",)  # nothing was ever published for it to be compared with


def load(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    modalities: str | Sequence[str] | None = None,
    profile: str = "bindery",
    download: bool | str = False,
    sizes: str | Mapping[str, Any] | None = None,
    settings: str | Mapping[str, Mapping[str, Any]] | None = None,
) -> Space:
    """The space of an official checkpoint; towers are read and built at first use, each from its own entries.

    An encoder's `logit_scale`, for a softmax over cosines, is what the model itself multiplies with: for image, video and text
    the learned one of the text encoder (its exponential, at most 100), for audio 20, depth 5, thermal 10, imu 5.

    Args:
        name: "imagebind-huge".
        checkpoint: path or URI of imagebind_huge.pth, or of a safetensors file with the same names; None: the one in the cache
            folder (`BINDERY_CACHE`).
        modalities: those wanted, a list or words with commas; None: all seven.
        profile: "reference" for the published loaders' preprocessing, "bindery" for ours; see docs/imagebind.md.
        download: fetch the official checkpoint into the cache folder if it is not there: 4.8 GB, its digest checked.
        sizes: for a model of other sizes than the published one, also as JSON; see `encoders.imagebind.build`.
        settings: of encoders, by modality, also as JSON: `{"depth": {"focal_length_px": 570.5}}`; see docs/media.md.

    Raises:
        SpaceError: no checkpoint, or an unknown modality, profile or setting.
    """
    wanted = chosen(modalities, MODALITIES, "ImageBind")
    if profile not in ("bindery", "reference"):
        raise SpaceError(f"profile {profile!r} is neither 'bindery' nor 'reference'")
    made = _mapping("sizes", sizes)
    file = _checkpoint(checkpoint, flag(download))
    given = _mapping("settings", settings)
    chosen(list(given), MODALITIES, "ImageBind")  # or it is refused
    encoders = {modality: _encoder(modality, file, made, profile, given.get(modality, {})) for modality in wanted}
    image = _encoder("image", file, made, "bindery", {})  # the space is the same whatever is loaded of it, and however prepared
    if "image" in encoders and encoders["image"].settings == image.settings:
        image = encoders["image"]  # whose fingerprint is computed once
    options = {
        "checkpoint": file if checkpoint is not None else None,
        "modalities": wanted if len(wanted) < len(MODALITIES) else None,
        "profile": profile if profile != "bindery" else None,
        "settings": given or None,
        "sizes": made or None,
    }
    named = partial(_space_name, image)
    return Space(name, image.dim, named, LICENSE, encoders, uri=spelled(name, options))


def part_of(checkpoint: str, modality: str) -> Weights:
    """The entries of one modality of an official checkpoint. What belongs to no modality at all does not fit and is named."""
    official = ALIASES.get(modality, modality)
    return Weights(checkpoint, tuple(f"{part}.{other}." for part in PARTS for other in OFFICIAL if other != official))


def _encoder(modality: str, checkpoint: str, sizes: Mapping[str, Any], profile: str, given: Mapping[str, Any]) -> Encoder:
    settings = {"sizes": sizes} if modality in WITHOUT_PROFILES else {"sizes": sizes, "profile": profile}
    known = build_encoder(f"imagebind/{modality}", settings).settings
    if unknown := given.keys() - known.keys():
        raise SpaceError(f"{modality} has no setting {min(unknown)!r}; there are {', '.join(sorted(known))}")
    encoder = build_encoder(f"imagebind/{modality}", {**settings, **given})
    scale = SCALES.get(modality) or partial(_learned_scale, checkpoint)
    return encoder.with_weights(part_of(checkpoint, modality), None, scale, {"checkpoint": Path(checkpoint).name})


def _mapping(option: str, value: str | Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        return dict(json.loads(value) if isinstance(value, str) else value or {})
    except (json.JSONDecodeError, TypeError) as error:
        raise SpaceError(f"{option}={value!r} is no JSON object: {error}") from error


def _learned_scale(checkpoint: str) -> float:
    state = part_of(checkpoint, "text").read()
    if TEXT_SCALE not in state:
        raise SpaceError(f"{checkpoint} has no {TEXT_SCALE}, so no scale for zero-shot; pass one with the text encoder")
    return min(float(state[TEXT_SCALE].exp()), MAX_SCALE)


def _space_name(image: Encoder) -> str:
    return space_fingerprint(image.fingerprint, image.dim)


def _checkpoint(asked: str | Path | None, download: bool) -> str:
    """Where the checkpoint lies: absolute, so that it is found from any folder."""
    if asked is not None:
        if "://" in str(asked):
            return str(asked)
        path = Path(asked).expanduser().absolute()
        if not path.is_file():
            raise SpaceError(f"no checkpoint at {path}; pass the path or URI of {FILE}, from {URL} ({LICENSE})")
        return str(path)
    path = cache_folder() / FILE
    if download:
        fetch(URL, path, SIZE, SHA256)
    if not path.is_file():
        raise SpaceError(
            f"imagebind-huge needs the official checkpoint, which does not come with Bindery: {URL} (4.8 GB), licensed "
            f"{LICENSE}. If that suits you, fetch it with `python -m jobs.convert imagebind-huge --download --out DIR`, "
            f"or pass checkpoint=PATH (--checkpoint PATH). It was looked for at {path}."
        )
    return str(path)
