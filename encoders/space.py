"""One shared vector space and its encoders. In: a name, a directory or a URI. Out: a `Space` that embeds any of its modalities.

On disk a space is a directory: `space.json` (names, settings, fingerprints, scores) and safetensors files. Nothing in it is
executable. B batch, D dimension.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import fsspec
import numpy as np
import torch

from encoders.embedder import Embedder
from encoders.encoder import Encoder, Late, build_encoder
from encoders.errors import SpaceError
from encoders.families import family_of, parse, spelled
from encoders.media.types import Media
from encoders.space_files import kept_entry, read_document, replaced, write_document, write_entry
from encoders.weights import Weights, fingerprint, write_safetensors

FORMAT = 1
SHIPPED = Path(__file__).parent / "spaces"
_PLAIN = re.compile(r"\w[\w. -]*")  # of modalities, weights and assets: no path, no URI


@dataclass(frozen=True)
class Space:
    """One shared vector space.

    Attributes:
        name: what people call it.
        dim: D, the length of every vector.
        fingerprint: 32 hex digits over the frozen image tower's fingerprint and D; vectors of spaces whose fingerprints
            differ are never compared. May be given as a function, which is called at the first look.
        license: of the weights.
        encoders: by modality.
        uri: where it was loaded from, in a form that loads it again anywhere; "" for one that was never saved.
        elsewhere: modality -> URI of the space that holds its encoder, for those that the directory only refers to.
    """

    name: str
    dim: int
    fingerprint: Late[str] = Late("")  # noqa: RUF009 - a descriptor
    license: str = ""
    encoders: Mapping[str, Encoder] = field(default_factory=dict)
    uri: str = ""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    _embedders: dict[tuple[str, int], Embedder] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that have an encoder here, sorted."""
        return tuple(sorted(self.encoders))

    def encoder(self, modality: str) -> Encoder:
        """The encoder of one modality.

        Raises:
            SpaceError: this space has none for it.
        """
        if modality not in self.encoders:
            raise SpaceError(
                f"space {self.name!r} has no encoder for {modality!r}; it has {', '.join(self.modalities)}. "
                f"`bindery bind {modality}` trains one."
            )
        return self.encoders[modality]

    def preprocess(self, modality: str, media: Media) -> dict[str, np.ndarray]:
        """One medium as the arrays that the tower takes, without a batch axis.

        Raises:
            MediaError: the medium cannot be used.
        """
        return self.encoder(modality).preprocess(media)

    def embed(self, modality: str, media: Sequence[Media], batch_size: int = 32) -> np.ndarray:
        """Unit vectors of media of one modality.

        Args:
            modality: one of `modalities`.
            media: pathlib.Path, encoders.URI, bytes, PIL images or arrays as the modality documents; str for "text" only.
            batch_size: how many go through the tower at once.

        Returns:
            float32 (N, D), each of norm 1, in the order of `media`.

        Raises:
            MediaError: a medium cannot be used.
            SpaceError: no encoder for the modality.
        """
        encoder = self.encoder(modality)
        if isinstance(media, str | bytes | Path):
            raise TypeError(f"embed takes a list of media, not one {type(media).__name__}: write [{media!r:.60}]")
        if not media:
            return np.empty((0, self.dim), np.float32)
        if (modality, batch_size) not in self._embedders:
            self._embedders[modality, batch_size] = Embedder(encoder, batch_size)
        embedder = self._embedders[modality, batch_size]
        vectors = []
        for start in range(0, len(media), batch_size):
            rows = [encoder.preprocess(one) for one in media[start : start + batch_size]]
            vectors.append(embedder({name: np.stack([row[name] for row in rows]) for name in encoder.features}))
        return np.concatenate(vectors)

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32, refer_to: Space | None = None) -> Space:
        """Write the space as a directory of safetensors and `space.json`, and return it as loaded from there.

        Fingerprints are kept: a converted or partial copy keeps the name of its origin. Memory holds one tower at a time.

        Args:
            path: a local directory or a URI; made if it is not there.
            dtype: of the stored weights: float32, float16 or bfloat16.
            refer_to: a space that can be loaded from its `uri`; its encoders are not copied, but named by URI and fingerprint.
        """
        root = str(path).rstrip("/")
        filesystem, folder = fsspec.core.url_to_fs(root)
        if "://" not in root:  # on object stores folders come by themselves, and a bucket is not ours to make
            filesystem.makedirs(folder, exist_ok=True)
        files: dict[str, str] = {}  # by modality
        elsewhere: dict[str, str] = {}  # by modality
        shapes: dict[str, dict[str, torch.Size]] = {}  # of the weights that are written, by modality
        for modality in self.modalities:
            if refer_to is not None and refer_to.encoders.get(modality) is self.encoders[modality]:
                elsewhere[modality] = refer_to.elsewhere.get(modality, refer_to.uri)
                continue
            state = self.encoders[modality].state()
            shape = {name: tensor.shape for name, tensor in state.items()}
            alike = [other for other in shapes if shapes[other] == shape]  # encoders may share a tower, as image and video do
            twin = next((other for other in alike if _equal(self.encoders[other].state(), state)), None)
            if twin is not None:
                files[modality] = files[twin]
                continue
            files[modality], shapes[modality] = f"{modality}.safetensors", shape
            with replaced(filesystem, f"{folder}/{files[modality]}") as opened:
                write_safetensors(state, opened, dtype)
        return self.publish(root, files, elsewhere)

    def publish(self, path: str | Path, files: Mapping[str, str], elsewhere: Mapping[str, str] | None = None) -> Space:
        """Make a space of a directory that holds weights already: write what else it needs, and return it as loaded from there.

        Args:
            path: a local directory or a URI.
            files: by modality, the file of its weights in that directory.
            elsewhere: by modality, the URI of the space that holds it, for those that have no file here.
        """
        root = str(path).rstrip("/")
        entries = {
            m: write_entry(root, encoder, files[m], m)
            if m in files
            else {"space": (elsewhere or {})[m], "fingerprint": encoder.fingerprint}
            for m, encoder in sorted(self.encoders.items())
        }
        card = {"format": FORMAT, "name": self.name, "dim": self.dim, "fingerprint": self.fingerprint, "license": self.license}
        write_document(root, {**card, "encoders": entries})  # last: without it there is no space
        return load_space(root)


def _equal(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> bool:
    """Whether tensors of the same names and shapes have the same values, in whatever type they are held."""
    return all(torch.equal(ours[name].cpu().to(theirs[name].dtype), theirs[name].cpu()) for name in ours)


def space_fingerprint(image_tower: str, dim: int) -> str:
    """The name of a shared space: its frozen image tower's fingerprint and the dimension."""
    return hashlib.sha256(f"{image_tower}\n{dim}".encode()).hexdigest()[:32]


def trained(
    encoder: Encoder, tower: torch.nn.Module, logit_scale: float, card: Mapping[str, Any], dtype: torch.dtype
) -> Encoder:
    """`encoder` with the weights of a tower that has just been trained, rounded to `dtype` and named by a fingerprint."""
    state = {k: v.to(dtype).float() if v.is_floating_point() else v for k, v in tower.state_dict().items()}
    tower.load_state_dict(state)
    name = fingerprint(state, encoder.architecture, encoder.settings, encoder.assets)
    made = encoder.with_weights(Weights(""), name, logit_scale, card)
    made.__dict__["tower"] = tower.float().eval().requires_grad_(False)  # the cached property, filled by hand
    return made


def list_spaces() -> list[str]:
    """The spaces that ship with Bindery, by name."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/space.json"))


def load_space(name: str | Path, **options: Any) -> Space:
    """A space by the name of a shipped one, by the directory or URI it was saved to, or by the name of a family.

    Towers are built at first use, so loading reads little: `space.json`, or a checkpoint's table of contents.

    Args:
        name: "demo"; a directory or URI; "imagebind-huge", "open_clip:ARCH/TAG", "hf:REPO" (encoders/families/), whose
            options may stand behind the name: "imagebind-huge?checkpoint=/data/imagebind_huge.pth&modalities=image,text".
        options: what that family documents; they win over those in the name.

    Raises:
        SpaceError: there is none, or its space.json or options cannot be used.
    """
    base, in_name = parse(str(name))
    family = None if isinstance(name, Path) or base in list_spaces() else family_of(base)
    if family is not None:
        return _from_family(family, base, {**in_name, **options})
    if options:
        raise SpaceError(
            f"{str(name)!r} is a directory or a shipped space, which takes no options; leave out {sorted(options)}"
        )
    return _from_directory(str(name).rstrip("/"))


def _from_directory(uri: str, follow: bool = True) -> Space:
    """A saved or shipped space; without `follow`, one that lacks the encoders that it only refers to."""
    _refuse_secrets(uri)
    name, shipped = uri, uri in list_spaces()
    if not shipped and "://" not in uri:
        uri = str(Path(uri).absolute())  # a worker's current folder is another, and a table names its space
    root = str(SHIPPED / uri) if shipped else uri
    try:
        card = read_document(root)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SpaceError(
            f"no space {name!r}: neither a shipped one ({', '.join(list_spaces())}) nor a directory or URI that holds a "
            "space.json, nor a name like imagebind-huge, open_clip:ARCH/TAG or hf:REPO"
        ) from error
    if card.get("format") != FORMAT:
        raise SpaceError(f"{root}/space.json has format {card.get('format')!r}, this program reads {FORMAT}; upgrade bindery")
    try:
        elsewhere = {modality: entry["space"] for modality, entry in card["encoders"].items() if "space" in entry}
        encoders = {m: _encoder(root, m, entry) for m, entry in card["encoders"].items() if m not in elsewhere}
        if follow:
            others = {other: _referred(other) for other in set(elsewhere.values())}
            encoders |= {
                m: _taken(root, m, card["encoders"][m]["fingerprint"], others[other]) for m, other in elsewhere.items()
            }
        return Space(card["name"], card["dim"], card["fingerprint"], card["license"], encoders, uri=uri, elsewhere=elsewhere)
    except KeyError as error:
        raise SpaceError(f"{root}/space.json has no entry {error}; save the space again") from error


def _refuse_secrets(uri: str) -> None:
    """A space's URI, or that of its weights, is kept in every table and by every job: with what is secret it is no name.

    Raises:
        SpaceError: it has a password, or a query, which may be a signature.
    """
    parts = urlsplit(uri) if "://" in uri else None
    if parts is not None and (parts.password is not None or (parts.scheme in ("http", "https") and parts.query)):
        raise SpaceError(
            f"{parts.scheme}://{parts.hostname}{parts.path} was given with a password or a query, and tables keep the URI of "
            "their space: leave those out and give credentials by the environment, or copy the files to where none are needed"
        )


def _referred(uri: str) -> Space:
    """A space that encoders of another one lie in; a directory that refers on is not followed, so there are no circles."""
    return load_space(uri) if family_of(parse(uri)[0]) is not None else _from_directory(uri, follow=False)


def _taken(root: str, modality: str, name: str, other: Space) -> Encoder:
    """An encoder that lies in another space: the one that was meant, which a promotion there may have replaced since."""
    encoder = other.encoders.get(modality)
    if encoder is not None and family_of(parse(other.uri)[0]) is not None:  # hashing its weights takes seconds, and its name
        return replace(encoder, fingerprint=name)  # says which they are
    if encoder is not None and encoder.fingerprint == name:
        return encoder
    if other.uri not in list_spaces() and (entry := kept_entry(other.uri, modality, name)):
        return _encoder(other.uri, modality, entry)
    if encoder is None:
        raise SpaceError(f"{root}/space.json refers to {other.uri} for {modality}, which has none; bind it again")
    raise SpaceError(
        f"{root}/space.json refers to {other.uri} for {modality} as fingerprint {name[:8]}, but there it is now "
        f"{encoder.fingerprint[:8]}; put the old one back, or bind anew"
    )


def _from_family(family: ModuleType, name: str, options: Mapping[str, Any]) -> Space:
    known = [option for option in inspect.signature(family.load).parameters if option != "name"]
    if unknown := sorted(options.keys() - set(known)):
        raise SpaceError(f"{name!r} knows no option {unknown[0]!r}; it takes {', '.join(known)}")
    for value in options.values():
        _refuse_secrets(str(value))
    space: Space = family.load(name, **options)
    if space.uri:
        return space
    return replace(space, uri=spelled(name, options), fingerprint=partial(getattr, space, "fingerprint"))  # not yet looked at


def _encoder(root: str, modality: str, entry: Mapping[str, Any]) -> Encoder:
    folder = entry.get("assets_folder", modality)
    for name in (modality, folder, entry["weights"], *entry.get("assets", ())):
        if not _PLAIN.fullmatch(str(name)):  # a stranger's space neither reads nor, saved again, writes elsewhere
            raise SpaceError(f"{root}/space.json names {name!r}, which is no plain name in its own directory")
    assets = {}
    for asset in entry.get("assets", ()):
        try:
            with fsspec.open(f"{root}/assets/{folder}/{asset}", "rb") as file:
                assets[asset] = file.read()
        except FileNotFoundError as error:
            raise SpaceError(f"{root}/assets/{folder} has no {asset!r}, as space.json says; save the space again") from error
    encoder = build_encoder(entry["architecture"], entry["settings"], assets)
    if encoder.modality != modality:
        raise SpaceError(
            f"{root}/space.json has {encoder.architecture!r}, an encoder of {encoder.modality}, under {modality!r}; "
            f"put it under {encoder.modality!r} or save the space again"
        )
    weights = Weights(f"{root}/{entry['weights']}")
    return encoder.with_weights(weights, entry["fingerprint"], entry["logit_scale"], entry["card"], entry.get("logit_bias"))
