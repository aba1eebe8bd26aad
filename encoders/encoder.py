"""What an encoder is: one modality's way into a space. In: settings. Out: preprocess on CPU, a tower in torch.

An encoder file in `encoders/towers/` (or an installed package's entry point in the group `bindery.encoders`) registers a
factory by the name of its architecture; a space names the architecture, its settings and its weights.
B batch, D dimension of the space.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from encoders.cache import remembered
from encoders.errors import SpaceError
from encoders.media.types import Facts, Media
from encoders.onnx_tower import SUFFIX as ONNX
from encoders.onnx_tower import OnnxTower
from encoders.weights import FINGERPRINTS, Weights, fingerprint, uninitialised

ENTRY_POINT_GROUP = "bindery.encoders"

Augment = Callable[[Mapping[str, torch.Tensor], torch.Generator], dict[str, torch.Tensor]]
Spans = Callable[[Any], list[tuple[int, int]]]
Value = TypeVar("Value")


class Late(Generic[Value]):
    """A field that may be given as a function without arguments, which is called at the first look; its answer is kept."""

    def __init__(self, default: Value) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.slot = f"_{name}"

    def __get__(self, instance: Any, owner: type) -> Value:
        if instance is None:  # dataclasses ask the class for the field's default
            return self.default
        value = instance.__dict__[self.slot]
        if callable(value):
            value = instance.__dict__[self.slot] = value()
        return value  # type: ignore[no-any-return]

    def __set__(self, instance: Any, value: Value | Callable[[], Value]) -> None:
        instance.__dict__[self.slot] = value


@dataclass(frozen=True)
class Feature:
    """One array that `preprocess` makes of an item: numpy dtype name, and shape without the batch axis."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Encoder:
    """One modality's way in: `decode` and `preprocess` on CPU, `tower` in torch. Pickles without its tower.

    Attributes:
        architecture: the registered name, e.g. "demo/audio".
        modality: "image", "audio", ...
        dim: D, the length of its vectors.
        settings: what the factory was called with, JSON values only; part of the fingerprint.
        features: what `preprocess` returns, by name; the tower's `forward` takes the same names, batched.
        decode: media -> a decoded object (idempotent: a decoded object comes back as it is). Raises MediaError.
        preprocess: media or a decoded object -> {feature: array}. Raises MediaError.
        describe: a decoded object -> Facts for the table; called after `preprocess`.
        augment: what training may do to a batch of its features (encoders/training/augment.py); None: nothing.
        build_tower: () -> an untrained tower: (features, batched) -> (B, D), not normalised.
        weights: where the trained weights lie; None for an untrained encoder.
        fingerprint: 32 hex digits over canonical float32 weights, architecture, settings and assets; "" if untrained. May be
            given as a function, which is called at the first look: hashing a large tower takes seconds.
        logit_scale: what a cosine is multiplied by before softmax (or sigmoid); inverse temperature. May be a function too.
        logit_bias: what is added to that before a sigmoid (SigLIP); None: a softmax over the candidates. May be a function too.
        card: how the encoder came about: data, scores, the frozen tower it was trained against.
        spans: text only: a decoded text -> its parts as (first, end) characters that each fit the tower; one part: it fits.
        assets: small files that the factory needs beside settings and weights, e.g. "tokenizer.json", by name; saved with
            the space and handed back to the factory as `assets=`.
    """

    architecture: str
    modality: str
    dim: int
    settings: Mapping[str, Any]
    features: Mapping[str, Feature]
    decode: Callable[[Media], Any]
    preprocess: Callable[[Media], dict[str, np.ndarray]]
    describe: Callable[[Any], Facts]
    build_tower: Callable[[], nn.Module]
    augment: Augment | None = None
    weights: Weights | None = None
    fingerprint: Late[str] = Late("")
    logit_scale: Late[float] = Late(1 / 0.07)
    logit_bias: Late[float | None] = Late(None)
    card: Mapping[str, Any] = field(default_factory=dict)
    spans: Spans | None = None
    assets: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def tower(self) -> nn.Module:
        """The tower in float32, in evaluation mode, with its weights; built at first use.

        Raises:
            SpaceError: its weights cannot be read or do not fit.
        """
        if self.weights is None:
            tower = self.build_tower()
        elif self.weights.uri.endswith(ONNX):
            return OnnxTower(self.weights.uri, tuple(self.features)).eval()
        else:
            with uninitialised():
                tower = self.build_tower()
            self.weights.load_into(tower, self.architecture)
        return tower.float().eval().requires_grad_(False)

    def state(self) -> Mapping[str, torch.Tensor]:
        """The tower's weights by name, as they are stored; a tower that has a file is not built for it.

        Raises:
            SpaceError: they cannot be read or do not fit the tower.
        """
        if self.weights is None or not self.weights.uri:
            return self.tower.state_dict()
        if self.weights.uri.endswith(ONNX):
            raise SpaceError(f"{self.weights.uri} cannot be taken apart; use the space that it was exported from")
        with uninitialised():
            return self.weights.fitting(self.build_tower(), self.architecture)

    def with_weights(
        self,
        weights: Weights,
        fingerprint: str | Callable[[], str] | None,
        logit_scale: float | Callable[[], float],
        card: Mapping[str, Any],
        logit_bias: float | Callable[[], float | None] | None = None,
    ) -> Encoder:
        """This encoder, trained.

        Args:
            weights: where they lie.
            fingerprint: its name; None: it is computed at the first look.
            logit_scale: inverse temperature.
            card: how it came about.
            logit_bias: of a sigmoid, None for a softmax.
        """
        named = partial(_named, replace(self, weights=weights)) if fingerprint is None else fingerprint
        return replace(self, weights=weights, fingerprint=named, logit_scale=logit_scale, card=card, logit_bias=logit_bias)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "tower"}


def _named(encoder: Encoder) -> str:
    def named() -> str:
        return fingerprint(encoder.state(), encoder.architecture, encoder.settings, encoder.assets)

    weights = encoder.weights
    if weights is None or not weights.uri or type(weights).__module__.partition(".")[0] != __package__:
        return named()  # nothing tells when another program's way to read them changes
    path = weights.path()
    if not path.is_file():  # nor, of a folder, when what lies in it does
        return named()
    assets = {name: hashlib.sha256(content).hexdigest() for name, content in encoder.assets.items()}
    question = [FINGERPRINTS, encoder.architecture, encoder.settings, assets, type(weights).__qualname__, vars(weights)]
    return remembered(path, json.dumps(question, sort_keys=True), named)


Factory = Callable[..., Encoder]
_factories: dict[str, Factory] = {}
_small: dict[str, Mapping[str, Any]] = {}
_broken: dict[str, str] = {}  # installed packages whose encoders could not be imported, and why


def register(architecture: str, small: Mapping[str, Any] | None = None) -> Callable[[Factory], Factory]:
    """Decorate a factory `(**settings) -> Encoder` so that spaces and `--encoder` find it by name.

    Args:
        architecture: the name.
        small: settings that build it at a size for tests; None: the default settings do.
    """

    def keep(factory: Factory) -> Factory:
        if architecture in _factories and _factories[architecture].__module__ != factory.__module__:
            raise SpaceError(
                f"encoder {architecture!r} is registered twice: in {_factories[architecture].__module__} and in "
                f"{factory.__module__}; rename one"
            )
        _factories[architecture] = factory
        _small[architecture] = small or {}
        return factory

    return keep


@cache
def _discover() -> None:
    """Import every file of `encoders/towers/` and every installed entry point; each registers itself."""
    import encoders.towers

    for module in pkgutil.iter_modules(encoders.towers.__path__, "encoders.towers."):
        importlib.import_module(module.name)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry.load()
        except (ImportError, AttributeError, SyntaxError, ValueError) as error:  # told when something of it is asked for
            package = entry.dist.name if entry.dist is not None else entry.value
            _broken[package] = f"{type(error).__name__}: {error}"


def list_encoders(modality: str | None = None) -> list[str]:
    """The registered architectures, sorted; with `modality`, only those that default settings build for it."""
    _discover()
    if modality is None:
        return sorted(_factories)
    return sorted(name for name, make in _factories.items() if _has_defaults(make) and make().modality == modality)


def _has_defaults(factory: Factory) -> bool:
    parameters = inspect.signature(factory).parameters.values()
    return all(p.default is not p.empty or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)


def package_of(architecture: str) -> str:
    """The installed package's module that a registered encoder comes from; "" for those of this program."""
    _discover()
    top = _factories[architecture].__module__.partition(".")[0]
    return "" if top == __name__.partition(".")[0] else top


def small_settings(architecture: str) -> dict[str, Any]:
    """Settings that build a registered encoder at a size for tests."""
    _discover()
    return dict(_small[architecture])


def takes(architecture: str, setting: str) -> bool:
    """Whether a registered architecture has a setting of this name."""
    _discover()
    return architecture in _factories and setting in inspect.signature(_factories[architecture]).parameters


def build_encoder(
    architecture: str, settings: Mapping[str, Any] | None = None, assets: Mapping[str, bytes] | None = None
) -> Encoder:
    """An untrained encoder by its registered name; `assets` go to its factory as they are, if there are any.

    Raises:
        SpaceError: no such architecture, or a setting that it does not take or lacks; the message names those that there are.
    """
    _discover()
    if architecture not in _factories:
        broken = "".join(f" Package {name!r} has encoders, but cannot be imported: {why}." for name, why in _broken.items())
        raise SpaceError(
            f"no encoder {architecture!r} is registered here; there are {', '.join(sorted(_factories))}. If a package "
            f"provides it (entry-point group {ENTRY_POINT_GROUP!r}), install it here and on every worker.{broken}"
        )
    factory = _factories[architecture]
    given = {**(settings or {}), **({"assets": assets} if assets else {})}
    signature = inspect.signature(factory)
    try:
        signature.bind(**given)  # not the call itself: what goes wrong inside is another matter
    except TypeError as error:
        known = ", ".join(signature.parameters)
        raise SpaceError(
            f"encoder {architecture!r} cannot be built with these settings: {error}; it takes {known}. "
            "Correct them, or if another version of the program wrote them, install that version."
        ) from error
    return factory(**given)


def seeded_tower(encoder: Encoder, seed: int) -> nn.Module:
    """An untrained tower whose initial weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return encoder.build_tower()
