"""Small calls over vectors of one shared space. In: numpy arrays, or a space and media. Out: cosines, ranks, probabilities.

N, M, Q counts, D dimension, K results, L labels. Rows need not be unit vectors: every call divides by the norm first, so all
"similarity" here is the cosine, in [-1, 1]. Vectors of two spaces must not be mixed; arrays don't tell, tables do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from encoders.media.types import Media
from encoders.space import Space

Method = Literal["mean", "concat", "attention"]


def units(vectors: np.ndarray, name: str = "vectors") -> np.ndarray:
    """The rows divided by their norm: float32 (..., D).

    Raises:
        ValueError: a row is not finite, or is all zeros and so has no direction.
    """
    rows = np.asarray(vectors, np.float64)  # float64, so that neither tiny nor huge rows lose their norm
    if rows.ndim == 0 or not np.isfinite(rows).all():
        raise ValueError(f"{name} must be an array of finite numbers; {_first_bad(rows)}")
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    if not norms.all():
        raise ValueError(f"{name} has a row of zeros only, which points nowhere; leave it out")
    return np.asarray(rows / norms, np.float32)


def similarity(a_ND: np.ndarray, b_MD: np.ndarray) -> np.ndarray:
    """Cosine of every row of one array with every row of another.

    Args:
        a_ND: (N, D), or (D,) as one row.
        b_MD: (M, D), or (D,) as one row.

    Returns:
        float32 (N, M) in [-1, 1]: 1 same direction, 0 unrelated, -1 opposite.

    Raises:
        ValueError: the dimensions differ, or a row has no direction.
    """
    a, b = units(np.atleast_2d(a_ND), "a_ND"), units(np.atleast_2d(b_MD), "b_MD")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"cannot compare shapes {np.shape(a_ND)} and {np.shape(b_MD)}: both must be (count, D) of one space")
    return np.asarray(np.clip(a @ b.T, -1, 1))


def retrieve(query_QD: np.ndarray, gallery_ND: np.ndarray, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """The K = min(k, N) rows of the gallery nearest to each query, best first; equals in the gallery's order.

    Returns:
        Indices into the gallery, int64 (Q, K), and their cosines, float32 (Q, K).

    Raises:
        ValueError: k < 1, or as for `similarity`.
    """
    if k < 1:
        raise ValueError(f"k is {k}; ask for at least 1 result")
    cosine_QN = similarity(query_QD, gallery_ND)
    order_QK = np.argsort(-cosine_QN, axis=1, kind="stable")[:, :k]
    return order_QK, np.take_along_axis(cosine_QN, order_QK, axis=1)


def best_match(query_QD: np.ndarray, gallery_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The one nearest row of the gallery for each query: indices int64 (Q,) and cosines float32 (Q,).

    Raises:
        ValueError: the gallery is empty, or as for `similarity`.
    """
    if len(gallery_ND) == 0:
        raise ValueError("the gallery is empty: there is nothing to match")
    order_Q1, cosine_Q1 = retrieve(query_QD, gallery_ND, k=1)
    return order_Q1[:, 0], cosine_Q1[:, 0]


def label_vectors(space: Space, labels: Sequence[str], template: str) -> np.ndarray:
    """The labels, each put into the template's `{}`, as text vectors: float32 (L, D).

    Raises:
        ValueError: no labels, one that is no word, the same label twice, or a template without `{}`.
    """
    words = {label for label in labels if isinstance(label, str) and label.strip()}
    if isinstance(labels, str) or not labels or len(words) < len(labels):
        raise ValueError(f"labels must be a list of different words, at least one, not {labels!r:.80}")
    if "{}" not in template:
        raise ValueError(f"the template {template!r} has no {{}} for the label to go into")
    return space.embed("text", [template.replace("{}", label) for label in labels])


def probabilities(
    cosine_NL: np.ndarray, logit_scale: np.ndarray | float, logit_bias: np.ndarray | float | None = None
) -> np.ndarray:
    """What cosines with L labels say of each, in the way the encoder was trained.

    Without a bias softmax(logit_scale * cosine) over the labels: rows sum to 1, and are 1/L where all cosines are equal.
    With one (SigLIP) sigmoid(logit_scale * cosine + logit_bias): each label by itself, so that all may be near 0, or near 1.

    Args:
        cosine_NL: (N, L), in [-1, 1].
        logit_scale: of the media's encoder; a number, or (N, 1).
        logit_bias: of the media's encoder; a number, or (N, 1) with NaN in rows whose encoder has none; None where none has.

    Returns:
        float64 (N, L) in [0, 1].
    """
    logits = np.asarray(cosine_NL, np.float64) * logit_scale
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = np.asarray(odds / odds.sum(axis=1, keepdims=True))
    if logit_bias is None:
        return shares
    each = 0.5 * (1 + np.tanh((logits + logit_bias) / 2))  # the sigmoid, without overflow
    return np.where(np.isnan(logit_bias), shares, each)


def zero_shot(
    space: Space, modality: str, media: Sequence[Media], labels: Sequence[str], template: str = "a photo of a {}"
) -> list[dict[str, float]]:
    """Classify media by words alone: `probabilities` of cosine(medium, label), by the encoder's logit_scale and logit_bias.

    Args:
        space: has an encoder for `modality` and one for "text".
        modality: of all the media.
        media: as `Space.embed` takes them.
        labels: the classes, in words.
        template: the sentence around a label.

    Returns:
        One {label: probability} a medium, in the order of `labels`; probabilities sum to 1 and are 1/L at chance. Of an encoder
        with a logit_bias (SigLIP) each is by itself: how likely the label fits, whatever the others are.

    Raises:
        MediaError: a medium cannot be used.
        ValueError: as for `label_vectors`, or the space has no such encoder.
    """
    text_LD = label_vectors(space, labels, template)
    if not media:
        return []
    encoder = space.encoder(modality)
    odds_NL = probabilities(similarity(space.embed(modality, media), text_LD), encoder.logit_scale, encoder.logit_bias)
    return [dict(zip(labels, row, strict=True)) for row in odds_NL.tolist()]


def rank_texts(space: Space, modality: str, media: Sequence[Media], texts: Sequence[str]) -> list[list[tuple[str, float]]]:
    """The texts for each medium with their cosine, best first: N lists of L pairs (text, cosine).

    Raises:
        MediaError: a medium cannot be used.
        ValueError: no texts, or the space has no such encoder.
    """
    if isinstance(texts, str) or not texts:
        raise ValueError(f"texts must be a list of at least one text, not {texts!r:.80}")
    if not media:
        return []
    order_NL, cosine_NL = retrieve(space.embed(modality, media), space.embed("text", texts), k=len(texts))
    return [
        [(texts[i], cosine) for i, cosine in zip(order, row, strict=True)]
        for order, row in zip(order_NL.tolist(), cosine_NL.tolist(), strict=True)
    ]


def fuse(vectors: Sequence[np.ndarray], method: Method = "mean", weights: Sequence[float] | None = None) -> np.ndarray:
    """Several views of the same things as one unit vector each. With u_m the unit rows of view m, and weights w_m:

    - "mean": normalise(sum_m w_m u_m). Stays in the space, so it can query a table. Negative weights subtract.
    - "concat": normalise(w_1 u_1, w_2 u_2, ...). Dimension M * D: cannot query a table.
    - "attention": normalise(sum_m w_m a_m u_m), a = softmax over m of the mean cosine of u_m to the other views: a view that
      agrees with the others counts for more. Stays in the space. Equals "mean" for one or two views.

    Args:
        vectors: M arrays, one a view (a modality, say), each (N, D) or each (D,); row i of all is the same thing.
        method: as above.
        weights: M numbers; 1 for all if left out.

    Returns:
        float32 (N, D), or (N, M * D) for "concat"; without the first axis if the views came without. Norm 1.

    Raises:
        ValueError: no views, shapes that differ, weights that are not M finite numbers, or a sum that cancels to zero.
    """
    shapes = {np.shape(view) for view in vectors}
    if len(shapes) != 1:
        raise ValueError(f"fuse takes at least one array, all of one shape, not shapes {sorted(shapes)}")
    w_M = np.ones(len(vectors)) if weights is None else np.asarray(weights, np.float64)
    if w_M.shape != (len(vectors),) or not np.isfinite(w_M).all():
        raise ValueError(f"weights must be {len(vectors)} finite numbers, one an array, not {weights!r:.80}")
    u_MND = np.stack([units(view, f"array {m}") for m, view in enumerate(vectors)]).astype(np.float64)
    if method == "concat":
        fused = np.concatenate([w * u for w, u in zip(w_M, u_MND, strict=True)], axis=-1)
    elif method == "mean":
        fused = np.einsum("m,m...->...", w_M, u_MND)
    elif method == "attention":
        fused = np.einsum("m,m...,m...d->...d", w_M, _agreement(u_MND), u_MND)
    else:
        raise ValueError(f"no way to fuse is called {method!r}; there are 'mean', 'concat' and 'attention'")
    if (np.linalg.norm(fused, axis=-1) < 1e-6).any():
        raise ValueError(f"with weights {w_M.tolist()} the vectors cancel to zero: nothing is left to search for")
    return units(fused)


def arithmetic(plus: Sequence[np.ndarray], minus: Sequence[np.ndarray] = ()) -> np.ndarray:
    """This and that without the other: normalise(sum_i u(plus_i) - sum_j u(minus_j)), u the unit vector. Stays in the space.

    Args:
        plus: at least one array, (N, D) or (D,), all of one shape.
        minus: any number of the same shape.

    Returns:
        float32, the shape of one of them; norm 1.

    Raises:
        ValueError: nothing to add, shapes that differ, or a sum that cancels to zero.
    """
    if len(plus) == 0:
        raise ValueError("there is nothing to subtract from; give at least one vector in `plus`")
    return fuse([*plus, *minus], weights=[1.0] * len(plus) + [-1.0] * len(minus))


@dataclass(frozen=True)
class PairScore:
    """How well a pair fits, and against what.

    Attributes:
        cosine: of the pair, in [-1, 1].
        rank: 1 + how many of the others fit at least as well as the true partner; 1 is best, None without others.
        margin: the cosine minus that of the best other, in [-2, 2]; above 0 the pair wins; None without others.
        count: how many candidates the rank is among: the partner and the others.
        probability: of the partner, in [0, 1], by `probabilities`: among the candidates, 1 / count at chance; or by itself
            where a bias is given. None without a logit_scale.
    """

    cosine: float
    rank: int | None = None
    margin: float | None = None
    count: int = 1
    probability: float | None = None


def pair_score(
    a_D: np.ndarray,
    b_D: np.ndarray,
    others_ND: np.ndarray | None = None,
    logit_scale: float | None = None,
    logit_bias: float | None = None,
) -> PairScore:
    """The fit of `a_D` and `b_D`: their cosine and, as a bare cosine means little across modalities, what it is worth: its rank
    and margin among wrong partners, and the probability that the encoder's own scale gives it.

    Args:
        a_D: the query, (D,).
        b_D: its true partner, (D,).
        others_ND: wrong partners, (N, D), of the partner's modality.
        logit_scale, logit_bias: of the query's encoder.

    Raises:
        ValueError: as for `similarity`, or `a_D` or `b_D` is not one vector.
    """
    if np.ndim(a_D) != 1 or np.ndim(b_D) != 1:
        raise ValueError(f"pair_score takes one pair of vectors (D,), not shapes {np.shape(a_D)} and {np.shape(b_D)}")
    others = np.empty((0, len(b_D))) if others_ND is None or len(others_ND) == 0 else np.asarray(others_ND)
    cosine_1N = similarity(a_D, np.vstack([b_D, others]))
    odds = None if logit_scale is None else float(probabilities(cosine_1N, logit_scale, logit_bias)[0, 0])
    cosine, *rest = cosine_1N[0].tolist()
    if not rest:
        return PairScore(cosine, probability=odds)
    return PairScore(cosine, 1 + sum(other >= cosine for other in rest), cosine - max(rest), 1 + len(rest), odds)


def _agreement(u_MND: np.ndarray) -> np.ndarray:
    """softmax over M of the mean cosine of each view to the others: (M, N), columns sum to 1."""
    views = len(u_MND)
    cosine_MMN = np.einsum("m...d,l...d->ml...", u_MND, u_MND)
    mean_MN = (cosine_MMN.sum(axis=1) - 1) / max(1, views - 1)  # without the view itself
    odds_MN = np.exp(mean_MN)
    return np.asarray(odds_MN / odds_MN.sum(axis=0))


def _first_bad(rows: np.ndarray) -> str:
    if rows.ndim == 0:
        return f"got the single value {rows!s:.40}"
    first = np.argwhere(~np.isfinite(rows))[0].tolist()
    return f"position {first} holds {rows[tuple(first)]}"
