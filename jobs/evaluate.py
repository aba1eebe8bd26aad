"""Score a space on things that training has not seen, and let what is good enough into the space that tables use.

python -m jobs.evaluate SPACE --pairs held_out/pairs.parquet --labels thing --out report
python -m jobs.evaluate SPACE --db s3://bucket/index --same scene --modality audio --min audio.text.R@10=0.8 --promote URI
In: a space, and a pairs manifest or a table. Out: scores as JSON, an HTML page, pictures; exit code 1 where a minimum failed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from encoders.evaluation import evaluate, metric_names
from encoders.gate import checked, parse_minimums
from encoders.space import Space, load_space
from jobs.config import DryRun, JsonReport, planned, run_job
from jobs.verdict import Goal, conclude, read_prompts
from pipelines.evaluation_page import Findings
from pipelines.held_out import HeldOut, embed_pairs, modalities_of, read_items
from pipelines.held_out_plan import plan_items, plan_pairs


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DryRun):
    """Score a space on things that training has not seen: retrieval, zero-shot, what is emergent.

    Args:
        space: to score: a shipped one, a folder or URI, a family's name.
        pairs: a pairs manifest, Parquet: a column of URIs for each modality, and `caption` for text; embedded by the space.
        db: or a LanceDB database, whose table's vectors are taken as they are; beside pairs, with promote, its
            stale rows are counted.
        table: its table.
        same: the table's column that has one value for all rows of a thing, such as a scene's number.
        labels: columns whose values are classes.
        prompts: JSON, {label: {value: [sentences]}}, what each class is called; by default its value in seven sentences.
        modality: only scores of these; with promote the one to promote.
        control: a space that was trained on wrong partners (bind --shuffle-pairs), scored beside.
        limit: so many things at most, drawn at random.
        out: the folder or URI of the report, its page and its pictures.
        min: what scores must reach, as metric=value, such as audio.text.R@10=0.8 or audio.thing.accuracy=0.9.
        promote: the space directory that tables use: the modality's encoder goes there if every minimum is reached.
    """

    space: str
    pairs: str = ""
    db: str = ""
    table: str = "media"
    same: str = ""
    labels: Sequence[str] = ()
    prompts: str = ""
    modality: Sequence[str] = ()
    control: str = ""
    limit: int = 5000
    out: str = ""
    min: Sequence[str] = ()
    promote: str = ""


def run(config: EvaluateConfig) -> JsonReport:
    """Score, report, and promote what is good enough.

    Raises:
        ValueError: bad input, before anything is embedded.
    """
    if bool(config.pairs) == bool(config.db) and not (config.pairs and config.promote):
        raise ValueError("score on --pairs MANIFEST, or on --db URI with --same COLUMN: one of them")
    if not config.pairs and not config.same:
        raise ValueError("--db needs --same COLUMN: what tells which rows of the table are of the same thing?")
    if not config.pairs and config.control:
        raise ValueError("--control needs --pairs: a table holds the vectors of one space")
    space, prompts = load_space(config.space), read_prompts(config.prompts)
    control = _control(config.control) if config.control else None
    for modality in config.modality:
        space.encoder(modality)
    scored = modalities_of(config.pairs, space, config.labels) if config.pairs else space.modalities
    minimums = parse_minimums(config.min, metric_names(space, scored, config.labels))
    goal = _goal(config, space)
    if goal is not None:
        goal.check(space, minimums)
    if config.dry_run:
        return planned("evaluate", {**_plan(config, space, control), "minimums": dict(minimums)})
    held_out = _held_out(config, space)
    evaluation = evaluate(space, held_out.sample, prompts, config.modality)
    findings = Findings(
        space=space,
        held_out=held_out,
        evaluation=evaluation,
        focus=tuple(config.modality),
        checks=checked(evaluation.metrics(), minimums),
        control=None if control is None else evaluate(control, _held_out(config, control).sample, prompts, config.modality),
    )
    return conclude(findings, config.out, goal)


def _plan(config: EvaluateConfig, space: Space, control: Space | None) -> dict[str, Any]:
    """What would be scored, and what embedding it takes."""
    about = {"space": space.uri, "license": space.license, "out": config.out, "promote": config.promote}
    if config.pairs:
        return {**about, **plan_pairs([space, *([control] if control else [])], config.pairs, config.labels, config.limit)}
    return {**about, **plan_items(config.db, config.table, space, config.same, config.labels, config.limit, config.modality)}


def _control(uri: str) -> Space:
    """The space to score beside; it must say that it was trained on wrong partners, as the report will.

    Raises:
        ValueError: no encoder of it was.
    """
    space = load_space(uri)
    if not any(encoder.card.get("shuffled_pairs") for encoder in space.encoders.values()):
        raise ValueError(f"--control {uri} was not trained on wrong partners; make one by `bindery bind` with --shuffle-pairs")
    return space


def _goal(config: EvaluateConfig, space: Space) -> Goal | None:
    if not config.promote:
        return None
    if len(config.modality) != 1:
        raise ValueError("--promote needs --modality with the one to promote")
    return Goal(config.modality[0], config.promote, config.db, config.table)


def _held_out(config: EvaluateConfig, space: Space) -> HeldOut:
    if config.pairs:
        return embed_pairs(space, config.pairs, config.labels, limit=config.limit)
    return read_items(config.db, config.table, space, config.same, config.labels, config.limit)


def main(argv: Sequence[str] | None = None) -> int:
    """argv -> exit code."""
    return run_job(EvaluateConfig, run, argv, positional=("space",))


if __name__ == "__main__":
    sys.exit(main())
