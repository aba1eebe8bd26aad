"""What a space is worth: every score that held-out things allow. In: a space, vectors of things in several modalities, labels.

Out: an `Evaluation`: retrieval between modalities, classes told by words alone, how well vectors align and spread. A score is
*emergent* where the two encoders never met in training: each was bound to something else.  N things, D dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations, permutations
from typing import Any, Literal

import numpy as np

from encoders.errors import SpaceError
from encoders.space import Space
from encoders.training.evaluate import (
    KS,
    alignment,
    chance_of_recall,
    classifier,
    precision_at_1,
    recall,
    uniformity,
)

# What a label's value is put into where nobody says it better; the class is the mean of them all.
TEMPLATES = ("{}", "a {}", "a photo of a {}", "a picture of a {}", "this is a {}", "there is a {}", "the sound of a {}")
MOST_CLASSES = 1000
LEAST_ITEMS = 2  # things that two modalities must share to be compared

Relation = Literal["trained", "emergent", "unknown"]
Prompts = Mapping[str, Mapping[str, Sequence[str]]]  # label -> its value -> the sentences that say it


@dataclass(frozen=True)
class Sample:
    """Things that training has not seen, each in several modalities.

    Attributes:
        vectors: modality -> float32 (N, D) unit vectors; a row of NaN where a thing lacks the modality.
        identities: modality -> (N,) numbers; equal ones are the same medium, as where a picture has several captions.
        labels: name -> N values, None where unknown.
    """

    vectors: Mapping[str, np.ndarray]
    identities: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: Mapping[str, Sequence[str | None]] = field(default_factory=dict)

    def present(self, modality: str) -> np.ndarray:
        """bool (N,): which things have the modality."""
        return np.asarray(np.isfinite(self.vectors[modality]).all(axis=1))


@dataclass(frozen=True)
class Retrieval:
    """Queries of one modality, the gallery of another.

    Attributes:
        query, target: the modalities.
        relation: whether their encoders met in training.
        of: size of the gallery.
        recall: {"R@1": ...}: how often the query's own partner is among the first k.
        chance: the same by chance.
        same_label: label -> how often the nearest item of another thing has the query's label (precision at 1).
        alignment: mean squared distance of partners, 0 best.
    """

    query: str
    target: str
    relation: Relation
    of: int
    recall: Mapping[str, float]
    chance: Mapping[str, float]
    same_label: Mapping[str, float]
    alignment: float


@dataclass(frozen=True)
class ZeroShot:
    """Classes told by words alone: the nearest class's mean sentence.

    Attributes:
        modality: of what is classified.
        label: which label.
        relation: whether its encoder met the text encoder in training.
        of: how many things.
        accuracy: share of them told right.
        per_class: mean over the classes of the share told right.
        classes: how many there are; 1 / classes is `per_class` at chance.
        majority: share of the commonest class, the accuracy of always saying that.
    """

    modality: str
    label: str
    relation: Relation
    of: int
    accuracy: float
    per_class: float
    classes: int
    majority: float


@dataclass(frozen=True)
class Evaluation:
    """All scores of one space on one sample.

    Attributes:
        items: modality -> how many things have it.
        retrieval: every ordered pair of modalities that was asked for.
        zero_shot: every modality and label.
        uniformity: modality -> log mean Gaussian potential, lower is better.
        classes: label -> {value: share of the sample}, what chance is for `same_label`.
    """

    items: Mapping[str, int]
    retrieval: Sequence[Retrieval]
    zero_shot: Sequence[ZeroShot]
    uniformity: Mapping[str, float]
    classes: Mapping[str, Mapping[str, float]]

    def metrics(self) -> dict[str, float]:
        """Every score that may be asked a minimum of, by the names of `metric_names`."""
        found: dict[str, float] = {}
        for one in self.retrieval:
            found |= {f"{one.query}.{one.target}.{name}": value for name, value in one.recall.items()}
            found |= {f"{one.query}.{one.target}.{label}@1": value for label, value in one.same_label.items()}
        return found | {f"{one.modality}.{one.label}.accuracy": one.accuracy for one in self.zero_shot}

    def to_dict(self) -> dict[str, Any]:
        """Its values, for JSON."""
        return asdict(self)


def metric_names(space: Space, modalities: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The names of the scores that a sample of these modalities and labels may have, in this space.

    `audio.image.R@5`: sounds that find their picture among the first five. `audio.imu.thing@1`: sounds whose nearest motion
    trace of another scene has the same thing. `audio.thing.accuracy`: sounds whose thing is told by words alone.
    """
    scores = [f"R@{k}" for k in KS] + [f"{label}@1" for label in labels]
    names = [f"{query}.{target}.{score}" for query, target in permutations(modalities, 2) for score in scores]
    if "text" in space.modalities:
        names += [f"{modality}.{label}.accuracy" for modality in modalities if modality != "text" for label in labels]
    return names


def relation(space: Space, one: str, other: str) -> Relation:
    """Whether two encoders of a space met in training, as far as their cards say what each was trained against.

    An encoder that was made from another one, as video is from pictures, has met whatever that one has met.
    """
    one, other = (next(iter(space.encoder(m).card.get("made_from") or {m: ""})) for m in (one, other))
    cards = [space.encoder(modality).card for modality in (one, other)]
    if one == other or any(name in (card.get("frozen") or {}) for card, name in zip(cards, (other, one), strict=True)):
        return "trained"
    if any(card.get("frozen") for card in cards):
        return "emergent"
    return "trained" if all("frozen" in card for card in cards) else "unknown"


def default_prompts(labels: Mapping[str, Sequence[str | None]], given: Prompts) -> dict[str, dict[str, list[str]]]:
    """For each label the sentences of each of its values: those given, else its value in TEMPLATES.

    Raises:
        SpaceError: given sentences lack a value, a label has one value only, or too many to be classes.
    """
    prompts = {}
    for label, values in labels.items():
        there = sorted({value for value in values if value is not None})
        if not 2 <= len(there) <= MOST_CLASSES:
            raise SpaceError(f"label {label!r} has {len(there)} different values; classes are 2 to {MOST_CLASSES}")
        said = given.get(label)
        if said is not None and (missing := [value for value in there if not said.get(value)]):
            raise SpaceError(f"the prompts of {label!r} have no sentence for {missing[0]!r}; add one")
        prompts[label] = (
            {value: list(sentences) for value, sentences in said.items()}
            if said is not None
            else {value: [template.format(value) for template in TEMPLATES] for value in there}
        )
    return prompts


def evaluate(space: Space, sample: Sample, prompts: Prompts | None = None, focus: Sequence[str] = ()) -> Evaluation:
    """All the scores of a sample.

    Args:
        space: that made its vectors; its text encoder says the classes.
        sample: at least two modalities.
        prompts: sentences for labels, see `default_prompts`.
        focus: only scores that one of these modalities has a part in; all if left out.

    Raises:
        SpaceError: no two modalities share things, or labels that are no classes.
    """
    modalities = [modality for modality in space.modalities if modality in sample.vectors]
    focused = [pair for pair in permutations(modalities, 2) if not focus or set(pair) & set(focus)]
    refuse_unshared({m: set(np.flatnonzero(sample.present(m)).tolist()) for m in modalities}, focus)
    retrieval = [one for query, target in focused if (one := _retrieval(space, sample, query, target)) is not None]
    classes = default_prompts(sample.labels, prompts or {}) if "text" in space.modalities else {}
    zero_shot = [
        one
        for label, said in classes.items()
        for classifier_CD in [classifier(space, said)]
        for modality in modalities
        if modality != "text" and (not focus or modality in focus)
        for one in _zero_shot(space, sample, modality, label, list(said), classifier_CD)
    ]
    spread = {m: sample.vectors[m][sample.present(m)] for m in modalities if not focus or m in focus}
    return Evaluation(
        items={modality: int(sample.present(modality).sum()) for modality in modalities},
        retrieval=retrieval,
        zero_shot=zero_shot,
        uniformity={m: uniformity(vectors) for m, vectors in spread.items() if len(vectors) >= LEAST_ITEMS},
        classes={label: _shares(values) for label, values in sample.labels.items()},
    )


def refuse_unshared(things: Mapping[str, set[int]], focus: Sequence[str]) -> None:
    """Refuse a sample in which nothing can be compared.

    Args:
        things: modality -> those that it is there of.
        focus: as of `evaluate`.

    Raises:
        SpaceError: no two modalities, one of them in focus, share enough things.
    """
    pairs = (pair for pair in combinations(things, 2) if not focus or set(pair) & set(focus))
    if any(len(things[one] & things[other]) >= LEAST_ITEMS for one, other in pairs):
        return
    there = ", ".join(things) or "no modality"
    what = f"of {there}, none shares things with {' or '.join(focus)}" if focus else f"no two of {there} are of the same things"
    raise SpaceError(
        f"{what}, so nothing can be compared; check what tells that rows belong together, and which rows are stale"
    )


def _retrieval(space: Space, sample: Sample, query: str, target: str) -> Retrieval | None:
    rows = np.flatnonzero(sample.present(query) & sample.present(target)).tolist()
    if len(rows) < LEAST_ITEMS:
        return None
    query_ND, target_ND = (sample.vectors[modality][rows] for modality in (query, target))
    same = [sample.identities[modality][rows] for modality in (query, target) if modality in sample.identities]
    same_label = {}
    for label, values in sample.labels.items():
        known = [k for k, row in enumerate(rows) if values[row] is not None]
        if len(known) >= LEAST_ITEMS:
            codes = [each[known] for each in same]
            same_label[label] = precision_at_1(query_ND[known], target_ND[known], [values[rows[k]] for k in known], codes)
    return Retrieval(
        query=query,
        target=target,
        relation=relation(space, query, target),
        of=len(rows),
        recall=recall(query_ND, target_ND, KS, same),
        chance=chance_of_recall(len(rows), KS, same),
        same_label=same_label,
        alignment=alignment(query_ND, target_ND),
    )


def _zero_shot(
    space: Space, sample: Sample, modality: str, label: str, names: Sequence[str], classifier_CD: np.ndarray
) -> Iterator[ZeroShot]:
    values = sample.labels[label]
    rows = [row for row in np.flatnonzero(sample.present(modality)).tolist() if values[row] is not None]
    if not rows:
        return
    truth = np.array([names.index(str(values[row])) for row in rows])
    right = np.argmax(sample.vectors[modality][rows] @ classifier_CD.T, axis=1) == truth
    counts = np.bincount(truth, minlength=len(names))
    per_class = np.bincount(truth, right, len(names))[counts > 0] / counts[counts > 0]
    yield ZeroShot(
        modality=modality,
        label=label,
        relation=relation(space, modality, "text"),
        of=len(rows),
        accuracy=float(right.mean()),
        per_class=float(per_class.mean()),
        classes=len(names),
        majority=float(counts.max() / len(rows)),
    )


def _shares(values: Sequence[str | None]) -> dict[str, float]:
    known = [value for value in values if value is not None]
    return {value: known.count(value) / len(known) for value in sorted(set(known))}
