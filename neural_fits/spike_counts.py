"""Spikes counted in a window after each onset."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def count_in_windows(
    times_s: NDArray[np.float64], onsets_s: NDArray[np.float64], window_ms: tuple[float, float]
) -> NDArray[np.int64]:
    """Count the spikes in [onset + start, onset + end) after each onset.

    Parameters
    ----------
    times_s : ndarray
        Spike times in s, in any order; NaN, with which arrays of several sites are padded, is no spike.
    onsets_s : ndarray
        Onsets in s, shape (presentation,); no NaN.
    window_ms : tuple of float
        Start and end of the window after onset, in ms.

    Returns
    -------
    ndarray of int
        Number of spikes, shape (presentation,).

    Examples
    --------
    >>> count_in_windows(np.array([0.08, 0.10, 0.17]), np.array([0.0, 1.0]), (70, 170)).tolist()
    [2, 0]
    """
    times = np.asarray(times_s, dtype=np.float64)
    times = times[~np.isnan(times)]  # a comparison with NaN is false: it would pass for sorted
    if (np.diff(times) < 0).any():
        times = np.sort(times)
    start, end = onsets_s + window_ms[0] / 1000, onsets_s + window_ms[1] / 1000
    return np.searchsorted(times, end, side="left") - np.searchsorted(times, start, side="left")
