"""Bind a modality to a space: train its tower against the frozen image tower, and text, sound and all else come for free.

python -m jobs.bind audio --pairs pairs.parquet --space URI --out URI
In: a pairs manifest with the columns `image` and the modality's, or a corpus of videos; a space. Out: that space with one more
modality, and a report with the learning curve. docs/bind.md tells the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from encoders.space import Space, load_space
from encoders.training.choice import Wish, choose
from encoders.training.recipe import Recipe
from encoders.training.start import begin
from encoders.weights import DTYPES, Dtype
from jobs.config import DryRun, JsonReport, planned, refuse_to_overwrite, run_job
from jobs.proof import Proof, ProofSettings
from jobs.rehearsal import rehearse
from jobs.trainer import Plan, drop_checkpoints, fit, summary
from jobs.training_logs import check_logs
from pipelines.cluster import start_ray
from pipelines.forecast import Forecast
from pipelines.image_vectors import ImageVectors, foresee_image_vectors, image_vectors
from pipelines.pairs import column_of, columns_of, prepare_pairs, read_manifest
from pipelines.video_pairs import Videos, cut_pairs, find_videos


@dataclass(frozen=True, kw_only=True)
class BindRecipe(Recipe):
    """How to bind: the section `recipe` of the config file.

    Args:
        epochs: how often each pair is seen.
        temperature: of InfoNCE at the start.
        settings: of the encoder's architecture, as its factory takes them.
        head: "own" of the architecture, or a new one on top of it, "linear" or "mlp", into the space's dimension.
        lora_rank: with --start: train adapters of this rank beside the linear layers, and nothing else; 0: train all weights.
        dtype: of the stored weights.
        logs: a local folder for TensorBoard and MLflow.
        window_s: seconds of the windows that videos are cut into.
    """

    epochs: int = 8
    temperature: float = 0.05
    settings: Mapping[str, Any] = field(default_factory=dict)
    head: Literal["own", "linear", "mlp"] = "own"
    lora_rank: int = 0
    dtype: Dtype = "float32"
    logs: str = ""
    window_s: float = 2.0


@dataclass(frozen=True, kw_only=True)
class BindConfig(DryRun):
    """Bind a modality to a space by training its tower against the frozen image tower.

    Args:
        modality: to bind, e.g. audio.
        pairs: a pairs manifest, Parquet: URIs in the columns `image` and the modality's; or, for audio, a corpus of videos.
        space: to bind to: a shipped one, a folder or URI.
        out: where the space with the new modality goes, a folder or URI that holds none yet.
        encoder: architecture of the tower; by default the only one there is for the modality and the space's dimension.
        start: where its weights come from: "scratch", "image" (a copy of the image tower), "space" (what the space has for the
            modality), a space's folder or URI, or a file of weights.
        epochs: short for recipe.epochs.
        batch_size: short for recipe.batch_size, pairs a step; each is told from all the others.
        workers: how many share each batch: one a GPU, or one a CPU where there are none.
        held_out: pairs kept out of training: half choose the best epoch, half are for the scores.
        cache: LanceDB database whose table `media` holds or gets the images' vectors; by default one beside --out.
        no_cache: run the image tower in every step, so that augmentation reaches the images too.
        standalone: copy the space's other encoders; else the new space refers to them where they are.
        shuffle_pairs: train on wrong partners, as a control: the scores must fall to chance.
        min: what scores on held-out pairs must reach, as metric=value, such as audio.text.R@10=0.8.
        promote: the space directory that tables use: the encoder goes there if every minimum is reached.
        proof: how it is scored.
        recipe: the rest.
    """

    modality: str
    pairs: str
    space: str
    out: str
    encoder: str = ""
    start: str = "scratch"
    epochs: int | None = None
    batch_size: int | None = None
    workers: int = 1
    held_out: int = 256
    cache: str = ""
    no_cache: bool = False
    standalone: bool = False
    shuffle_pairs: bool = False
    min: Sequence[str] = ()
    promote: str = ""
    proof: ProofSettings = ProofSettings()  # noqa: RUF009 - it is frozen
    recipe: BindRecipe = BindRecipe()


def bind(config: BindConfig) -> JsonReport:
    """Train, save the space with the new modality, score it on held-out pairs, promote it if that is asked for and deserved.

    Raises:
        ValueError: bad input, before anything is trained; or a loss that is not finite.
    """
    refuse_to_overwrite(config.out)
    check_logs(config.recipe.logs)
    space = load_space(config.space)
    if config.modality == "image":
        raise ValueError("the image tower is what all others are bound to; choose another modality, or `pretrain` a new space")
    of_videos = _are_videos(config)
    if of_videos and config.dry_run:
        return planned("bind", _videos_plan(config, space))
    videos = _cut(config, space) if of_videos else None
    source = videos.manifest if videos else config.pairs
    manifest = read_manifest(source, [config.modality, "image"])
    plan = _plan(config, space, len(manifest))
    plan.check(len(manifest))
    proof = Proof.of(plan.query, space, source, config.held_out // 2, config.min, config.promote, config.proof)
    if config.dry_run:
        return planned("bind", _pairs_plan(config, space, plan, manifest))
    start_ray()
    frozen = None if config.no_cache else image_vectors(manifest["image"].to_pylist(), source, space, _cache(config, space))
    read = (plan.query, plan.target) if frozen is None else (plan.query,)
    pairs = prepare_pairs(manifest, source, {encoder.modality: encoder for encoder in read})
    pairs = pairs if frozen is None else pairs.without(frozen.problems, "image").alike(frozen.vectors)
    outcome = fit(plan, pairs, None if frozen is None else frozen.vectors, {"pairs": source}, config.out)
    (bound,) = outcome.encoders
    wider = replace(space, encoders={**space.encoders, config.modality: bound})
    saved = wider.save(config.out, DTYPES[config.recipe.dtype], refer_to=None if config.standalone else space)
    drop_checkpoints(config.out)
    told = {**summary(pairs, outcome, saved), "image_vectors": _told(frozen), "videos": asdict(videos) if videos else {}}
    verdict = proof.judge(saved, outcome.split.test.tolist(), outcome.trained.history)
    return JsonReport({**told, "evaluation": verdict.values}, verdict.exit_code)


def _are_videos(config: BindConfig) -> bool:
    """Whether --pairs is a corpus of videos, and no manifest of pairs.

    Raises:
        ValueError: it is, and videos have no such modality.
    """
    if config.pairs.endswith(".parquet"):
        there = columns_of(config.pairs)
        if "image" in there or not {"uri", "media"}.intersection(there):  # what a corpus calls its videos
            return False
    if config.modality != "audio":
        raise ValueError(
            f"--pairs {config.pairs}: pairs of {config.modality} cannot be cut from videos, only sound can; give a Parquet "
            f"manifest with the columns `image` and `{column_of(config.modality)}`"
        )
    return True


def _cut(config: BindConfig, space: Space) -> Videos:
    """The pairs of a corpus of videos; ValueError where it gives none."""
    start_ray()
    return cut_pairs(config.pairs, f"{_cache(config, space)}/pairs", config.recipe.window_s)


def _videos_plan(config: BindConfig, space: Space) -> dict[str, Any]:
    """How many videos would be cut. How many pairs that gives, and so what the training takes, is known when they are."""
    _, videos = find_videos(config.pairs, config.recipe.window_s)
    cut = {"videos": len(videos), "window_s": config.recipe.window_s, "pairs": None}
    return {"space": space.uri, "out": config.out, "cache": _cache(config, space), **cut, "seconds": None}


def _pairs_plan(config: BindConfig, space: Space, plan: Plan, manifest: pa.Table) -> dict[str, Any]:
    """What would be embedded, trained and written, and what that takes."""
    told, before = dict[str, Any](), dict[str, float]()
    if not config.no_cache:
        images = foresee_image_vectors(manifest["image"].to_pylist(), config.pairs, space, _cache(config, space))
        told = {"table": images.table, "found": images.tally.unchanged, "to_embed": images.tally.planned.total()}
        before = _image_parts(images.plan) if images.plan else {}
    rehearsed = rehearse(plan, manifest, config.pairs, not config.no_cache, before)
    where = {"space": space.uri, "out": config.out, "promote": config.promote, "minimums": list(config.min)}
    return {"modality": config.modality, **where, "image_vectors": told, **rehearsed}


def _image_parts(forecast: Forecast) -> dict[str, float]:
    """What embedding images takes: its start, and its work, of which the tower has the share of its seconds."""
    if not forecast.costs:
        return {}
    cost = forecast.costs["image"]
    share = cost.tower_s / (cost.core_s + cost.tower_s)
    work = {"preparing the images": forecast.work_s * (1 - share), "the tower of the images": forecast.work_s * share}
    return {"starting to embed": forecast.plan_s + forecast.start_s, **work}


def _plan(config: BindConfig, space: Space, num_pairs: int) -> Plan:
    recipe = config.recipe.with_short(config.epochs, config.batch_size)
    wish = Wish(
        modality=config.modality,
        encoder=config.encoder,
        start=config.start,
        settings=recipe.settings,
        head=recipe.head,
        lora_rank=recipe.lora_rank,
        pairs=num_pairs - config.held_out,
    )
    query, start = choose(wish, space)
    if start.origin is not None:
        begin(query, start, recipe.seed)  # weights that are not there or do not fit are found out before images are embedded
    return Plan(
        query=query,
        target=space.encoder("image"),
        recipe=recipe,
        held_out=config.held_out,
        dtype=recipe.dtype,
        start=start,
        workers=config.workers,
        shuffle_pairs=config.shuffle_pairs,
        logs=recipe.logs,
    )


def _cache(config: BindConfig, space: Space) -> str:
    """Where the images' vectors are: as told, or beside the new space, for all that is bound to this one."""
    out = config.out.rstrip("/")
    beside = out.rpartition("/")[0] or "."
    return config.cache or f"{out if beside.endswith(':/') else beside}/image-vectors-{space.fingerprint[:8]}"


def _told(frozen: ImageVectors | None) -> dict[str, Any]:
    if frozen is None:
        return {}
    return {"table": frozen.table, "found": frozen.found, "embedded": frozen.embedded}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from a command line."""
    return run_job(BindConfig, bind, argv, positional=("modality",))


if __name__ == "__main__":
    sys.exit(main())
