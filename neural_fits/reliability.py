"""How well a site repeats itself: random split halves, Spearman-Brown, and the reliability every score is divided by.

In: trials (stimulus, repeat, site), NaN where nothing was recorded. Out: one number per site.
Used by `scores` and by anyone who chooses sites.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neural_fits._time_bins import refuse_time_resolved
from neural_fits.halves import iterate_halves, random_halves

if TYPE_CHECKING:
    from neural_fits.recordings import SiteRecordings

__all__ = ["half_correlation", "pearson_r", "random_halves", "spearman_brown", "split_half_reliability"]

_FEWEST_STIMULI = 3  # two points always lie on a line
_FLAT = 1e-13  # spread relative to the values below which only rounding is left


def pearson_r(predicted: ArrayLike, measured: ArrayLike) -> NDArray[np.float64]:
    """Correlate prediction and measurement over stimuli, one Pearson r per site.

    ``r = cov(p, y) / (sd(p) sd(y))`` over the stimuli where both are finite.

    Parameters
    ----------
    predicted : array_like
        Predicted responses, shape (stimulus, site).
    measured : array_like
        Measured responses, same shape; NaN = not measured.

    Returns
    -------
    ndarray
        Shape (site,), in [-1, 1]. NaN where fewer than three stimuli are finite in both, or where either is constant.

    Raises
    ------
    ValueError
        If the two are not of the same two-dimensional shape.

    Examples
    --------
    >>> pearson_r([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], [[2.0, 5.0], [4.0, 4.0], [6.0, 3.0]]).round(6)
    array([ 1., -1.])
    """
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(
            f"predicted has shape {x.shape} and measured {y.shape}; both must be (stimulus, site) of the same size, "
            "so align the recordings with the stimuli first (recordings.align(stimuli))."
        )
    both = np.isfinite(x) & np.isfinite(y)
    count = both.sum(axis=0)
    x, flat_x = _centered(x, both, count)
    y, flat_y = _centered(y, both, count)
    undefined = (count < _FEWEST_STIMULI) | flat_x | flat_y
    scale = np.sqrt((x * x).sum(axis=0)) * np.sqrt((y * y).sum(axis=0))
    r = (x * y).sum(axis=0) / np.where(undefined, 1.0, scale)
    return np.where(undefined, np.nan, np.clip(r, -1.0, 1.0))


def _centered(
    values: NDArray[np.float64], keep: NDArray[np.bool_], count: NDArray[np.int_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values scaled to at most 1 and centered over `keep` (0 elsewhere), and which columns are constant there."""
    kept = np.where(keep, values, 0.0)
    largest = np.abs(kept).max(axis=0, initial=0.0)
    kept = kept / np.where(largest == 0, 1.0, largest)  # squares neither overflow nor vanish
    centered = np.where(keep, kept - kept.sum(axis=0) / np.maximum(count, 1), 0.0)
    return centered, np.abs(centered).max(axis=0, initial=0.0) <= _FLAT


def half_correlation(recordings: SiteRecordings, n_splits: int = 50, seed: int = 0) -> NDArray[np.float64]:
    """Correlate the two halves of the repeats over stimuli, averaged over random splits.

    This is the reliability of *half* the repeats; `split_half_reliability` corrects it to all of them.

    Parameters
    ----------
    recordings : SiteRecordings
        Trials of all sites.
    n_splits : int
        Number of random splits.
    seed : int
        Seed of the splits.

    Returns
    -------
    ndarray
        Mean Pearson r, shape (site,); NaN where no split gives one.

    Raises
    ------
    ValueError
        If `n_splits` is below 1, or the recordings are time-resolved.

    Examples
    --------
    >>> import pandas as pd
    >>> from neural_fits.recordings import SiteRecordings
    >>> trials = np.repeat(np.arange(4.0)[:, None, None], 2, axis=1)
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> half_correlation(SiteRecordings(trials, ("a", "b", "c", "d"), sites)).round(6)
    array([1.])
    """
    if n_splits < 1:
        raise ValueError(f"n_splits is {n_splits}; give at least 1 random split (50 is usual).")
    refuse_time_resolved(recordings, "a reliability")
    total, count = np.zeros((2, recordings.shape[2]))
    for first, second in iterate_halves(recordings.responses, n_splits, seed):
        r = pearson_r(first, second)
        defined = np.isfinite(r)
        total += np.where(defined, r, 0.0)
        count += defined
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def spearman_brown(r: ArrayLike) -> NDArray[np.float64]:
    """Predict the reliability of all repeats from the correlation of two halves.

    ``rel = 2 r / (1 + r)``

    Parameters
    ----------
    r : array_like
        Correlation of two halves, any shape.

    Returns
    -------
    ndarray
        Reliability of the mean over all repeats, same shape; NaN for r = -1, where it is not defined.

    Examples
    --------
    >>> spearman_brown([0.0, 0.5, 1.0]).round(4)
    array([0.    , 0.6667, 1.    ])
    """
    half = np.asarray(r, dtype=np.float64)
    defined = half > -1.0
    return np.where(defined, 2.0 * half / np.where(defined, 1.0 + half, 1.0), np.nan)


def split_half_reliability(recordings: SiteRecordings, n_splits: int = 50, seed: int = 0) -> NDArray[np.float64]:
    """Estimate the share of the variance of a site's mean response that is signal.

    ``rel = 2 r / (1 + r)`` with r the half correlation averaged over splits *first*; ``rel`` estimates
    ``Var(signal) / Var(mean over repeats)``, so it is the ceiling of r squared and ``sqrt(rel)`` that of r.

    Parameters
    ----------
    recordings : SiteRecordings
        Trials of all sites.
    n_splits : int
        Number of random splits.
    seed : int
        Seed of the splits.

    Returns
    -------
    ndarray
        Shape (site,). Only stimuli with at least two repeats count; a site with fewer than three of them is NaN.

    Raises
    ------
    ValueError
        If `n_splits` is below 1, or the recordings are time-resolved.

    Notes
    -----
    Stimuli with an odd number n of repeats are split unevenly, which makes the halves noisier by 1/(n^2 - 1) of
    their noise variance (an eighth for n = 3, a hundredth for n = 10) and the estimate that little too low.

    Examples
    --------
    >>> import pandas as pd
    >>> from neural_fits.recordings import SiteRecordings
    >>> rng = np.random.default_rng(0)
    >>> trials = rng.normal(size=(500, 1, 1)) + rng.normal(size=(500, 10, 1))
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> recorded = SiteRecordings(trials, tuple(f"i{k}" for k in range(500)), sites)
    >>> bool(abs(split_half_reliability(recorded)[0] - 10 / 11) < 0.03)
    True
    """
    return spearman_brown(half_correlation(recordings, n_splits=n_splits, seed=seed))
