"""Where sources come from. In: a folder, prefix, manifest, list of URLs or tar shards. Out: a stream of sources, and counts.

Formats are found by their place, formats/: a new one is one new file there.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Sequence

from pipelines.corpus import formats
from pipelines.corpus.corpus import BATCH_ROWS, COLUMNS, STANDARD_MODALITIES, Corpus, CorpusError, Wanted
from pipelines.corpus.globs import Filter
from pipelines.corpus.modality import find_modalities
from pipelines.corpus.place import Place
from pipelines.reach import Reach

__all__ = ["COLUMNS", "Corpus", "CorpusError", "find_modalities", "open_corpus"]


def open_corpus(
    uri: str,
    *,
    name: str | None = None,
    modality: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
    reserved: Collection[str] = (),
    modalities: Collection[str] = STANDARD_MODALITIES,
    allow_hosts: Sequence[str] = (),
) -> Corpus:
    """A corpus, whatever its format; nothing but what is needed to refuse it has been read.

    Args:
        uri: a folder or prefix (local, s3://, gs://, ...), a manifest (.parquet, .csv, .jsonl, .lance), a text file of http(s)
            URLs, tar shards (`dir/*.tar`, `dir/shard-{000..012}.tar`), or one file.
        name: the corpus's id; by default its canonical root.
        modality: of every source whose manifest does not say its own.
        include: globs of paths relative to the root; only what matches one is wanted. pipelines/corpus/globs.py says how.
        exclude: globs of what is not wanted.
        limit: so many sources at most.
        reserved: names that a manifest's own columns may not have.
        modalities: those of the space at hand; the standard seven are known besides.
        allow_hosts: the only hosts that http(s) URLs may name besides its own; none: all with public addresses.

    Raises:
        CorpusError: there is no such place, it is empty, may not be read, or does not say what it must.
    """
    known = {*STANDARD_MODALITIES, *modalities}
    if modality is not None and modality not in known:
        raise CorpusError(f"modality {modality!r} is unknown; it is one of {', '.join(sorted(known))}")
    if limit is not None and limit < 1:
        raise CorpusError(f"limit {limit} leaves nothing to do; it must be at least 1")
    place = Place.of(uri)
    reach = Reach(tuple(allow_hosts), place.uri)
    wanted = Wanted(modality, known, reserved, Filter(include, exclude), min(BATCH_ROWS, limit or BATCH_ROWS), reach)
    modules = [importlib.import_module(f"{formats.__name__}.{found.name}") for found in pkgutil.iter_modules(formats.__path__)]
    opened = max(modules, key=lambda module: module.certainty(place)).open_format(place, wanted)
    return Corpus(name or place.uri, opened.columns, opened.rows, limit, reach)
