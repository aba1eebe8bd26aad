"""Series of numbers over time: other rates without aliasing, even steps. In: float (T, C). Out: float32 (T, C)."""

from __future__ import annotations

import numpy as np

ZERO_CROSSINGS = 16  # of the windowed sinc on each side: a transition of about 1/8 of the cutoff
ROLL_OFF = 0.94  # of the lower Nyquist frequency, where the response is 1/2
CHUNK_NUMBERS = 2_000_000  # of the table of neighbours at a time


def resampled(samples_TC: np.ndarray, at: np.ndarray, step: float) -> np.ndarray:
    """The series at fractional places, low-passed where that is coarser: a Hann-windowed sinc for any ratio of rates.

    Tones up to 0.8 of the lower Nyquist frequency are kept within 1 %, of those from 1.05 on less than 1 % is left. Beyond its
    ends the series stands still, so that a constant stays that constant.

    Args:
        samples_TC: (T, C).
        at: (N,) rising places in samples of `samples_TC`.
        step: samples of `samples_TC` from one place to the next; above 1 it is a coarser rate.

    Returns:
        float32 (N, C).
    """
    cutoff = ROLL_OFF / max(step, 1.0)  # of the series' own Nyquist frequency
    reach = int(np.ceil(ZERO_CROSSINGS / cutoff))
    offsets = np.arange(-reach, reach + 1)
    rows = max(1, CHUNK_NUMBERS // len(offsets))
    return np.concatenate([_filtered(samples_TC, at[k : k + rows], offsets, cutoff) for k in range(0, len(at), rows)])


def even(samples_TC: np.ndarray, times_s: np.ndarray, rate_hz: float) -> np.ndarray:
    """The series at even steps of 1 / rate_hz from its first time to its last, by linear interpolation; float (T, C)."""
    grid_s = times_s[0] + np.arange(round((times_s[-1] - times_s[0]) * rate_hz) + 1) / rate_hz
    return np.stack([np.interp(grid_s, times_s, column) for column in samples_TC.T], axis=1)


def _filtered(samples_TC: np.ndarray, at: np.ndarray, offsets: np.ndarray, cutoff: float) -> np.ndarray:
    start = max(0, int(at[0]) + int(offsets[0]) - 1)
    samples_TC, at = samples_TC[start : max(0, int(at[-1])) + int(offsets[-1]) + 2], at - start  # what the chunk needs
    nearest = np.rint(at).astype(np.int64)
    distance = cutoff * (at[:, None] - nearest[:, None] - offsets)
    window = np.cos(np.clip(distance / ZERO_CROSSINGS, -1, 1) * (np.pi / 2)) ** 2
    weights = np.sinc(distance) * window
    weights /= weights.sum(axis=1, keepdims=True)
    neighbours = np.clip(nearest[:, None] + offsets, 0, len(samples_TC) - 1)
    columns = [np.einsum("nk,nk->n", weights, column[neighbours]) for column in samples_TC.T.astype(np.float64)]
    return np.stack(columns, axis=1).astype(np.float32)
