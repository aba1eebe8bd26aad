"""Write any space as a directory of its own: safetensors and space.json. In: a space's name. Out: the directory, a report.

python -m jobs.convert imagebind-huge --checkpoint imagebind_huge.pth --out spaces/imagebind --dtype bfloat16
python -m jobs.convert imagebind-huge --download --out s3://bucket/spaces/imagebind --modalities image,text
python -m jobs.convert open_clip:ViT-B-32/laion2b_s34b_b79k --out spaces/clip
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from encoders.errors import NotHereError
from encoders.families import family_of, parse
from encoders.space import Space, load_space
from encoders.tower_size import TowerSize
from encoders.weights import DTYPES, Dtype
from jobs.config import DryRun, JsonReport, planned, refuse_to_overwrite, run_job
from pipelines.storage import filesystem


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(DryRun):
    """Write a space as a directory that needs nothing else; fingerprints stay those of the origin.

    Args:
        space: "imagebind-huge", "open_clip:ARCH/TAG", "hf:REPO", or the directory or URI of a saved space.
        out: where it goes, a folder or URI that holds no space yet.
        checkpoint: path or URI of the weights, for a space that takes one.
        dtype: of the stored weights; computing is the same whatever it is.
        modalities: only these, words with commas.
        profile: how media are prepared, for a space that has a choice.
        download: fetch what is not on this machine, under the license that the report names.
    """

    space: str
    out: str
    checkpoint: str | None = None
    dtype: Dtype = "float32"
    modalities: str | None = None
    profile: str | None = None
    download: bool = False


def convert(config: ConvertConfig) -> JsonReport:
    """Run the job.

    Raises:
        ValueError: the space cannot be loaded, its weights do not fit, or `out` holds a space already.
    """
    refuse_to_overwrite(config.out)
    if config.dry_run:
        return planned("convert", _plan(config))
    store, folder = filesystem(config.out)
    saved = _narrowed(_loaded(config, config.download), config.modalities).save(config.out, DTYPES[config.dtype])
    return JsonReport(_summary(saved, store, folder, config.dtype))


def _loaded(config: ConvertConfig, download: bool) -> Space:
    asked = {"checkpoint": config.checkpoint, "profile": config.profile, "download": download or None}
    return load_space(config.space, **{option: value for option, value in asked.items() if value is not None})


def _plan(config: ConvertConfig) -> dict[str, Any]:
    """What would be written. A space that would have to be fetched first is not: of that only so much is known."""
    values: dict[str, Any] = {"space": config.space, "out": config.out, "dtype": config.dtype}
    try:
        space = _loaded(config, config.download and family_of(parse(config.space)[0]) is None)
    except NotHereError as error:
        if not config.download:
            raise
        return {**values, "to_fetch": str(error)}
    space = _narrowed(space, config.modalities)
    towers, files = {}, dict[str, int]()  # towers that share their weights, as image and video do, share a file
    for modality, encoder in sorted(space.encoders.items()):
        size = TowerSize.of(encoder, DTYPES[config.dtype])
        towers[modality] = asdict(size)
        files.setdefault(str(encoder.weights or modality), size.bytes)
    told = {"name": space.name, "license": space.license, "dim": space.dim, "towers": towers}
    return {**values, **told, "files": len(files), "weights_bytes": sum(files.values())}


def _narrowed(space: Space, modalities: str | None) -> Space:
    """The space with these modalities only, and with the same name."""
    if modalities is None:
        return space
    return replace(space, encoders={modality: space.encoder(modality) for modality in modalities.split(",")})


def _summary(space: Space, store: Any, folder: str, dtype: str) -> dict[str, Any]:
    files = {encoder.weights.uri.rpartition("/")[2] for encoder in space.encoders.values() if encoder.weights}
    return {
        "space": space.uri,
        "name": space.name,
        "fingerprint": space.fingerprint,
        "license": space.license,
        "dim": space.dim,
        "dtype": dtype,
        "encoders": {modality: encoder.fingerprint for modality, encoder in space.encoders.items()},
        "weights_bytes": {file: store.size(f"{folder}/{file}") for file in sorted(files)},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from a command line."""
    return run_job(ConvertConfig, convert, argv, positional=("space",))


if __name__ == "__main__":
    sys.exit(main())
