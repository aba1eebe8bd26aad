"""The directory of a space, as files. In: a root, an encoder, a document. Out: weights, small files, `space.json`, each whole.

`space.json` names every file, and files that a promotion adds have names of their own, so that whoever has read one
`space.json` finds what it names, whatever is promoted meanwhile. The first document and every later one are kept in
`revisions/`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import torch
from fsspec.implementations.local import LocalFileSystem

from encoders.encoder import Encoder
from encoders.errors import SpaceError
from encoders.weights import write_safetensors

DOCUMENT = "space.json"
TAG = 12  # hex digits of a fingerprint that name an encoder's files


@contextmanager
def replaced(filesystem: Any, path: str) -> Iterator[BinaryIO]:
    """A file to write that takes its place once it is whole: the old one may be mapped into memory, even as what is written.

    Args:
        filesystem: fsspec's.
        path: in it.
    """
    if isinstance(filesystem, LocalFileSystem):
        part = Path(f"{path}.part")
        with part.open("wb") as file:
            yield file
        part.replace(path)
        return
    with tempfile.NamedTemporaryFile() as file:
        yield file  # type: ignore[misc]
        file.flush()
        filesystem.put_file(file.name, path)


def write_entry(root: str, encoder: Encoder, weights: str, folder: str) -> dict[str, Any]:
    """What `space.json` says of an encoder, after its small files are written.

    Args:
        root: the space's directory or URI.
        encoder: trained.
        weights: the file of its weights in that directory.
        folder: below assets/, of its small files.
    """
    entry = {
        "architecture": encoder.architecture,
        "settings": dict(encoder.settings),
        "weights": weights,
        "fingerprint": encoder.fingerprint,
        "logit_scale": encoder.logit_scale,
        "card": dict(encoder.card),
        **({} if encoder.logit_bias is None else {"logit_bias": encoder.logit_bias}),
    }
    if encoder.assets:
        entry |= {"assets": sorted(encoder.assets), **({} if folder == encoder.modality else {"assets_folder": folder})}
        filesystem, path = fsspec.core.url_to_fs(root)
        for asset, content in encoder.assets.items():
            if "://" not in root:
                filesystem.makedirs(f"{path}/assets/{folder}", exist_ok=True)
            filesystem.pipe_file(f"{path}/assets/{folder}/{asset}", content)
    return entry


def write_document(root: str, document: Mapping[str, Any], name: str = DOCUMENT) -> None:
    """Write `space.json`, or another of its kind, in one step: a reader finds the former or this one, whole."""
    filesystem, path = fsspec.core.url_to_fs(root)
    with replaced(filesystem, f"{path}/{name}") as file:
        file.write(json.dumps(document, indent=1, sort_keys=True).encode())


def read_document(root: str, name: str = DOCUMENT) -> dict[str, Any]:
    """`space.json`, or another of its kind, as it is now.

    Raises:
        FileNotFoundError: there is none.
        SpaceError: it is not JSON.
    """
    filesystem, path = fsspec.core.url_to_fs(root)
    try:
        document: dict[str, Any] = json.loads(filesystem.cat_file(f"{path}/{name}"))  # asks for it whole, whatever is cached
    except json.JSONDecodeError as error:
        raise SpaceError(f"{root}/{name} is not JSON: {error}; save the space again") from error
    return document


def add_files(root: str, encoder: Encoder) -> dict[str, Any]:
    """Write an encoder's weights and small files under names of their own; what `space.json` is to say of it.

    Raises:
        SpaceError: its weights cannot be copied.
    """
    tag = f"{encoder.modality}-{encoder.fingerprint[:TAG]}"
    state = encoder.state()
    stored = next((t.dtype for t in state.values() if t.is_floating_point()), torch.float32)
    filesystem, path = fsspec.core.url_to_fs(root)
    with replaced(filesystem, f"{path}/{tag}.safetensors") as file:
        write_safetensors(state, file, stored)
    return write_entry(root, encoder, f"{tag}.safetensors", tag)


def revision_of(document: Mapping[str, Any]) -> int:
    """The number of a document: 0 as the space was saved, one more with every promotion and roll back."""
    return int(document.get("revision", 0))


def kept_document(root: str, revision: int) -> dict[str, Any]:
    """A document of the past.

    Raises:
        SpaceError: it was not kept.
    """
    try:
        return read_document(root, _name(revision))
    except FileNotFoundError as error:
        raise SpaceError(f"{root} keeps no revision {revision}; look into {root}/revisions") from error


def kept_entry(root: str, modality: str, fingerprint: str) -> dict[str, Any] | None:
    """What the newest kept document says of an encoder of this fingerprint, whose files lie there still; None if none does."""
    try:
        newest = revision_of(read_document(root))
    except FileNotFoundError:  # a family's
        return None
    for revision in range(newest, -1, -1) if newest else ():
        entry = kept_document(root, revision)["encoders"].get(modality, {})
        if entry.get("fingerprint") == fingerprint and "weights" in entry:
            return dict(entry)
    return None


def publish_document(root: str, document: Mapping[str, Any]) -> int:
    """Make this the space's document, as a revision of its own; the one it replaces is kept. One writer at a time.

    Returns:
        The number of the new revision.
    """
    current = read_document(root)
    revision = revision_of(current) + 1
    filesystem, path = fsspec.core.url_to_fs(root)
    if "://" not in root:
        filesystem.makedirs(f"{path}/revisions", exist_ok=True)
    write_document(root, current, _name(revision - 1))
    made = {**document, "revision": revision}
    write_document(root, made, _name(revision))
    write_document(root, made)  # the step that readers see
    return revision


def _name(revision: int) -> str:
    return f"revisions/{revision:06d}.json"
