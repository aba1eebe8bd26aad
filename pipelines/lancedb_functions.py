"""Plain LanceDB, with our encoders. In: `import pipelines.lancedb_functions`. Out: LanceDB's own `table.search("words")` works.

Our tables name this function in their schema metadata, under `embedding_functions`, as the JSON
`[{"name": "bindery", "model": {"space": SPACE_URI}, "source_column": "text", "vector_column": "vector"}]`
(pipelines/table.py writes it, without LanceDB). LanceDB looks the name up among the functions that have been imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from lancedb.embeddings import EmbeddingFunction, register
from PIL import Image

from encoders.errors import DecodeError
from encoders.media.sniff import HEAD_BYTES, sniff
from encoders.media.types import URI, Media, open_media
from encoders.space import Space, load_space
from pipelines.corpus.modality import FolderNames

Texts: TypeAlias = Sequence[str | None] | pa.Array | pa.ChunkedArray


@register("bindery")  # type: ignore[no-untyped-call]
class BinderyFunction(EmbeddingFunction):
    """Embeds queries and texts with a space.

    Args:
        space: the name or URI of the space.
    """

    space: str

    def ndims(self) -> int:
        """D, the length of a vector."""
        return _space(self.space).dim

    def compute_query_embeddings(self, query: Media) -> list[np.ndarray]:  # type: ignore[override]
        """One query's unit vector, float32 (D,), in a list of one.

        Args:
            query: a str is text, never a path or URL; a pathlib.Path, encoders.URI, bytes or PIL image is judged by its bytes,
                a path or URI whose bytes don't tell by a folder on it that is named like a modality.

        Raises:
            MediaError: it cannot be decoded, or its bytes don't tell its modality.
        """
        space = _space(self.space)
        return [space.embed(modality_of(query, space.modalities), [query])[0]]

    def compute_source_embeddings(self, texts: Texts) -> list[np.ndarray | None]:
        """Unit vectors of the source column's texts; None for null."""
        values = texts.to_pylist() if isinstance(texts, pa.Array | pa.ChunkedArray) else list(texts)
        given = [text for text in values if text is not None]
        vectors = iter(_space(self.space).embed("text", given))
        return [None if text is None else next(vectors) for text in values]

    def compute_query_embeddings_with_retry(self, query: Media) -> list[np.ndarray]:  # type: ignore[override]
        """Without retries: nothing here is a service that may recover, and LanceDB's back-off would hide the error."""
        return self.compute_query_embeddings(query)

    def compute_source_embeddings_with_retry(self, texts: Texts) -> list[np.ndarray | None]:
        """Without retries, as for queries."""
        return self.compute_source_embeddings(texts)


def modality_of(query: Media, modalities: Sequence[str]) -> str:
    """What a query is: a str is text, a PIL image an image, anything else what its first bytes say, or else its folder's name.

    Raises:
        DecodeError: the bytes don't tell.
    """
    if isinstance(query, str):
        return "text"
    if isinstance(query, Image.Image):
        return "image"
    name = str(query.absolute()) if isinstance(query, Path) else query.uri if isinstance(query, URI) else ""
    with open_media(query) as file:
        guess = sniff(file.read(HEAD_BYTES), name)
    modality = guess.modality or FolderNames(modalities).modality(name.rpartition("/")[0])
    if modality is None:
        raise DecodeError(
            f"{name or 'the query'} does not tell its modality: {guess.detail}; where it is told, as in "
            "pipelines.open_index(db).search(imu=...), it can be used"
        )
    return modality


@cache
def _space(uri: str) -> Space:
    return load_space(uri)
