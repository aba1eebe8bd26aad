"""Write a space's towers as ONNX, one file each, beside a space.json: a space like any other, run by onnxruntime.

python -m jobs.export demo --out spaces/demo-onnx
In: a space. Out: a space directory whose vectors are those of the original, checked on media of the demo world, and a report.
Fingerprints stay those of the origin, so that its tables can be gone on with.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cosine_similarity

from encoders.encoder import Encoder
from encoders.onnx_tower import EXTERNAL_BYTES, SUFFIX, TRACED_BATCH, OnnxTower, check_exporter, write_onnx
from encoders.space import load_space
from encoders.tower_size import TowerSize
from jobs.config import DONE, GATE_FAILED, DryRun, JsonReport, planned, refuse_to_overwrite, run_job
from pipelines.demo_world import grid
from pipelines.demo_world.files import MODALITIES, scene_files
from pipelines.log import say
from pipelines.storage import filesystem

CHECKED_BATCHES = (1, 3)
MIN_COSINE = 0.99999


@dataclass(frozen=True, kw_only=True)
class ExportConfig(DryRun):
    """Write a space's towers as ONNX files, check them against the originals, and make a space of them.

    Args:
        space: a shipped space's name, or the directory or URI of a saved one.
        out: where the new space goes, a folder or URI; there must be no space yet.
    """

    space: str
    out: str


def export(config: ExportConfig) -> JsonReport:
    """Every tower in turn; a space only if all of them agree with their originals."""
    refuse_to_overwrite(config.out)
    space = load_space(config.space)
    if strange := sorted(set(space.modalities) - set(MODALITIES)):
        raise ValueError(f"there are no sample media of {', '.join(strange)} to check a tower with; leave it out of the space")
    check_exporter()
    if config.dry_run:
        sizes = {modality: asdict(TowerSize.of(encoder)) for modality, encoder in space.encoders.items()}
        beside = [modality for modality, size in sizes.items() if size["bytes"] >= EXTERNAL_BYTES]
        about = {"space": space.name, "license": space.license, "out": config.out, "towers": sizes}
        return planned("export", {**about, "weights_beside": beside, "bytes": sum(size["bytes"] for size in sizes.values())})
    store, out = filesystem(config.out)
    store.makedirs(out, exist_ok=True)
    towers: dict[str, dict[str, Any]] = {}
    for modality in space.modalities:
        say(f"{modality}: writing")
        with tempfile.TemporaryDirectory() as folder:
            towers[modality] = _export(space.encoders[modality], Path(folder))
            for path in Path(folder).iterdir():
                store.put_file(str(path), f"{out}/{path.name}")
    agreed = all(tower["cosine"] >= MIN_COSINE for tower in towers.values())
    if agreed:
        space.publish(config.out, {modality: f"{modality}{SUFFIX}" for modality in towers})
    report = {"space": space.name, "license": space.license, "out": config.out, "written": agreed, "towers": towers}
    return JsonReport(report, DONE if agreed else GATE_FAILED)


def _export(encoder: Encoder, folder: Path) -> dict[str, Any]:
    """One tower into a folder: its size, how long it took, and its worst cosine to the original."""
    began = time.monotonic()
    scenes = grid(1)[: max(*CHECKED_BATCHES, TRACED_BATCH)]
    rows = [encoder.preprocess(scene_files(scene, [encoder.modality])[encoder.modality][1]) for scene in scenes]
    features = {name: torch.stack([torch.from_numpy(row[name]) for row in rows]) for name in encoder.features}
    path = folder / f"{encoder.modality}{SUFFIX}"
    tower = copy(encoder).tower  # the copy's: it goes once it is written
    write_onnx(tower, {name: values[:TRACED_BATCH] for name, values in features.items()}, path)
    written = OnnxTower(str(path), tuple(encoder.features))
    cosines = []
    for count in CHECKED_BATCHES:
        batch = {name: values[-count:] for name, values in features.items()}
        with torch.inference_mode():
            cosines.append(cosine_similarity(tower(**batch).double(), written(**batch).double(), dim=-1).min().item())
    size = sum(file.stat().st_size for file in folder.iterdir())
    return {"cosine": min(cosines), "bytes": size, "seconds": round(time.monotonic() - began, 1)}


def main(argv: Sequence[str] | None = None) -> int:
    """argv -> exit code."""
    return run_job(ExportConfig, export, argv, positional=("space",))


if __name__ == "__main__":
    sys.exit(main())
