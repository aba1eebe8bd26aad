"""Which tower to bind, and what it starts from. In: words of a command line, a space. Out: an untrained encoder, a start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encoders.encoder import Encoder, build_encoder, list_encoders, takes
from encoders.errors import SpaceError
from encoders.space import Space, load_space
from encoders.training.start import Start
from encoders.weights import TORCH_SUFFIXES, Weights

SIZES = (("tiny", 20_000), ("small", 500_000))  # of an architecture that has sizes: up to how many pairs; beyond, "base"
WEIGHTS = (".safetensors", *TORCH_SUFFIXES)


@dataclass(frozen=True)
class Wish:
    """What a user asks for.

    Attributes:
        modality: to bind.
        encoder: architecture, or "".
        start: "scratch", "image", "space", a space's name or URI, or a file of weights.
        settings: of the architecture.
        head: "own", "linear" or "mlp".
        lora_rank: of adapters; 0: none.
        pairs: how many there are, which an architecture's size follows unless `settings` says one.
    """

    modality: str
    encoder: str = ""
    start: str = "scratch"
    settings: Mapping[str, Any] | None = None
    head: str = "own"
    lora_rank: int = 0
    pairs: int = 0


def choose(wish: Wish, space: Space) -> tuple[Encoder, Start]:
    """The encoder to train in a space, and what its tower starts from.

    Raises:
        SpaceError: no architecture fits, or the words contradict each other.
    """
    if wish.start == "image":
        return _from_image(wish, space)
    if wish.start.endswith(WEIGHTS):
        encoder = _architecture(wish, space.dim)
        file = wish.start if "://" in wish.start else str(Path(wish.start).absolute())  # a worker's current folder is another
        return encoder, Start(encoder.with_weights(Weights(file), None, encoder.logit_scale, {}), "", wish.lora_rank)
    if wish.start != "scratch":
        origin = (space if wish.start == "space" else load_space(wish.start)).encoder(wish.modality)
        if wish.encoder not in ("", origin.architecture):
            raise SpaceError(
                f"--start {wish.start} has {origin.architecture!r} for {wish.modality}, not {wish.encoder!r}; omit --encoder"
            )
        encoder = build_encoder(origin.architecture, origin.settings, origin.assets)
        headed = _headed(encoder, wish.head, space.dim)
        return headed, Start(origin, "" if headed is encoder else "base", wish.lora_rank)
    if wish.lora_rank:
        raise SpaceError(f"recipe.lora_rank {wish.lora_rank} adapts a trained tower; say which with --start")
    return _architecture(wish, space.dim), Start()


def _from_image(wish: Wish, space: Space) -> tuple[Encoder, Start]:
    """A sensor seen as a picture by a copy of the image tower."""
    image = space.encoder("image")
    names = [wish.encoder] if wish.encoder else list_encoders(wish.modality)
    named = [name for name in names if build_encoder(name, _settings(name, wish)).modality == wish.modality]
    if not named:
        raise SpaceError(f"--encoder {wish.encoder or '(not given)'}: no architecture says how {wish.modality} is read")
    settings = {
        "sensor": named[0], "image": image.architecture, "settings": _settings(named[0], wish),
        "image_settings": dict(image.settings),
    }  # fmt: skip
    encoder = build_encoder("as-picture", settings)
    return _headed(encoder, wish.head, space.dim), Start(image, "image" if wish.head == "own" else "base.image", wish.lora_rank)


def _architecture(wish: Wish, dim: int) -> Encoder:
    """The untrained encoder to train."""
    names = [wish.encoder] if wish.encoder else list_encoders(wish.modality)
    built = [build_encoder(name, _settings(name, wish)) for name in names]
    headed = [_headed(one, wish.head, dim) if one.modality == wish.modality else one for one in built]
    fitting = {name: one for name, one in zip(names, headed, strict=True) if one.modality == wish.modality and one.dim == dim}
    if len(fitting) > 1:
        raise SpaceError(f"{' and '.join(fitting)} fit {wish.modality} in {dim} dimensions; name one with --encoder")
    if not fitting:
        raise SpaceError(
            f"--encoder {wish.encoder or '(not given)'}: of {', '.join(names) or 'no architecture'}, none fits "
            f"{wish.modality} in {dim} dimensions; name one with --encoder, or set recipe.head for one of another dimension"
        )
    return next(iter(fitting.values()))


def _settings(name: str, wish: Wish) -> dict[str, Any]:
    """What the user says, and a size that suits the data where the architecture has sizes."""
    size = next((size for size, most in SIZES if wish.pairs <= most), "base")
    return {**({"size": size} if takes(name, "size") else {}), **(wish.settings or {})}


def _headed(encoder: Encoder, head: str, dim: int) -> Encoder:
    if head == "own":
        return encoder
    settings = {"base": encoder.architecture, "dim": dim, "head": head, "settings": dict(encoder.settings)}
    return build_encoder("headed", settings, encoder.assets)
