"""Items named by words alone. In: vectors of items, words. Out: the best word for each, and how likely it is.

N items, L labels, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from encoders.algebra import probabilities, similarity
from encoders.space import Space


def best_labels(
    space: Space, modalities: Sequence[str], vectors_ND: np.ndarray, labels: Sequence[str], text_LD: np.ndarray
) -> pd.DataFrame:
    """The best label of each item, its probability and its cosine, as `Index.zero_shot` gives them."""
    cosine_NL = similarity(vectors_ND, text_LD)
    encoders = [space.encoder(name) for name in modalities]
    scale_N = np.array([encoder.logit_scale for encoder in encoders])
    bias_N = np.array([encoder.logit_bias for encoder in encoders], np.float64)  # NaN where there is none
    best_N = cosine_NL.argmax(axis=1)
    each_N = np.arange(len(best_N))
    odds_NL = probabilities(cosine_NL, scale_N[:, None], bias_N[:, None])
    columns = {"label": np.asarray(labels, object)[best_N], "probability": odds_NL[each_N, best_N]}
    return pd.DataFrame({**columns, "similarity": cosine_NL[each_N, best_N]})
