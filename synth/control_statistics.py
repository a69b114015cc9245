"""How sure achieved control is: intervals over repeats and images, and which targets are significant.

In: scores and trials as arrays. Out: replicates, intervals, p-values. Called by `evaluate_control`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

REPLICATES = 1000
FALSE_DISCOVERY_RATE = 0.05
_CANDIDATES = 64  # natural images that can be the best of a replicate
_NEIGHBORS = 15  # natural images of similar score over which trial noise is pooled


def trial_deviations(trials: NDArray[np.floating], n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Resample the repeats of one image, to see by how much its mean response changes.

    Every repeat counts 0, 1, 2, ... times (Poisson with mean 1, the same for all sites). Deviations are enlarged by
    ``sqrt(repeats / (repeats - 1))``, without which few repeats look surer than they are.

    Parameters
    ----------
    trials : ndarray, (repeat, site)
        Responses; NaN = not recorded.
    n : int
        Number of replicates.
    rng : numpy.random.Generator
        Source of the counts.

    Returns
    -------
    ndarray, (replicate, site)
        Deviations from the mean over repeats; 0 at a site with fewer than two.

    Examples
    --------
    >>> moved = trial_deviations(np.array([[1.0], [3.0]]), 10_000, np.random.default_rng(0))
    >>> moved.std().round(1)  # of the mean of two repeats with standard deviation sqrt(2)
    np.float64(1.0)
    """
    recorded = ~np.isnan(trials)
    count = np.maximum(recorded.sum(axis=0), 1)
    filled = np.where(recorded, trials, 0.0).astype(np.float64)
    residuals = np.where(recorded, filled - filled.sum(axis=0) / count, 0.0)
    extra = rng.poisson(1.0, (n, len(trials))) - 1.0
    return extra @ (residuals / np.sqrt(count * np.maximum(count - 1, 1)))


def target_replicates(images: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Resample the images of one target, each with repeats resampled already.

    Parameters
    ----------
    images : ndarray, (image, replicate)
        Scores of each image with resampled repeats.
    rng : numpy.random.Generator
        Source of the choice of images.

    Returns
    -------
    ndarray, (replicate,)
        Means over as many images, drawn with replacement.

    Examples
    --------
    >>> target_replicates(np.full((1, 3), 2.0), np.random.default_rng(0))
    array([2., 2., 2.])
    """
    drawn = rng.integers(len(images), size=images.shape)
    return np.take_along_axis(images, drawn, axis=0).mean(axis=0)


def baseline_replicates(
    scores: NDArray[np.float64], variance: NDArray[np.float64], n: int, rng: np.random.Generator, splits: int = 4
) -> NDArray[np.float64]:
    """Repeat the choice and measurement of the best natural image with other trial noise.

    In each replicate the scores of the natural images move by normal noise of their own variance; halves of it choose
    and measure, as in `cross_validated`.

    Parameters
    ----------
    scores, variance : ndarray, (image,)
        Scores and their variance by trial noise; NaN is left out.
    n : int
        Number of replicates.
    rng : numpy.random.Generator
        Source of the noise.
    splits : int
        Random halves in each replicate.

    Returns
    -------
    ndarray, (replicate,)
        Measured scores of the chosen images. Noise counts twice in them, so their mean lies below the baseline: use
        their deviations from it.

    Examples
    --------
    >>> baseline_replicates(np.array([1.0, 5.0]), np.zeros(2), 3, np.random.default_rng(0))
    array([5., 5., 5.])
    """
    known = np.flatnonzero(np.isfinite(scores))
    top = known[np.argsort(-scores[known], kind="stable")[:_CANDIDATES]]
    sd = np.sqrt(variance[top])
    moved = scores[top] + sd * rng.standard_normal((n, 1, len(top)))
    apart = sd * rng.standard_normal((n, splits, len(top)))
    halves = np.stack([moved + apart, moved - apart])
    chosen = halves.argmax(axis=-1)[..., None]
    return np.take_along_axis(halves[::-1], chosen, axis=-1).mean(axis=(0, 2, 3))


def interval(replicates: NDArray[np.float64], center: float, level: float = 0.95) -> tuple[float, float]:
    """Return the quantiles of replicates, moved so that their mean is the estimate.

    Parameters
    ----------
    replicates : ndarray, (replicate,)
        Values of resampled data.
    center : float
        The estimate.
    level : float
        Coverage.

    Returns
    -------
    low, high : float
        Ends; NaN where a replicate or the estimate is NaN.

    Examples
    --------
    >>> interval(np.linspace(0, 2, 1001), 5.0)
    (4.05, 5.95)
    """
    tail = (1 - level) / 2
    low, high = np.quantile(replicates - replicates.mean() + center, [tail, 1 - tail])
    return float(low), float(high)


def pooled_variance(scores: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average the variance by trial noise over images of similar score: a few repeats alone do not tell it.

    Parameters
    ----------
    scores, variance : ndarray, (image,)
        Scores of the natural images and their variance; NaN is left out.

    Returns
    -------
    ndarray, (image,)
        Mean variance of the 15 images next in rank, NaN where there is none.

    Examples
    --------
    >>> pooled_variance(np.array([3.0, 1.0, np.nan]), np.array([1.0, 2.0, np.nan]))
    array([1.5, 1.5, nan])
    """
    known = np.flatnonzero(np.isfinite(scores))
    order = known[np.argsort(scores[known], kind="stable")]
    width = min(_NEIGHBORS, len(order))
    sums = np.concatenate([[0.0], np.cumsum(variance[order])])
    start = np.clip(np.arange(len(order)) - width // 2, 0, len(order) - width)
    pooled = np.full(len(scores), np.nan)
    pooled[order] = (sums[start + width] - sums[start]) / max(width, 1)
    return pooled


def beyond_baseline(difference: float, variance: float, freedom: int) -> float:
    """Test a target against the cross-validated best natural image: ``P(T_freedom > difference / sqrt(variance))``.

    The null is the baseline itself: what the image chosen by half of the repeats does on the others. Noise hides the
    truly best image from that choice, so a target that merely equals it may be significant; `beyond_every_image` is
    the strict test.

    Parameters
    ----------
    difference : float
        Achieved minus baseline.
    variance : float
        Sampling variance of the difference.
    freedom : int
        Degrees of freedom of the achieved mean.

    Returns
    -------
    float
        One-sided p-value.

    Examples
    --------
    >>> round(beyond_baseline(2.0, 1.0, 1000), 3)
    0.023
    """
    if variance <= 0:
        return float(difference <= 0)
    return float(stats.t.sf(difference / np.sqrt(variance), freedom))


def beyond_every_image(
    achieved: float,
    variance: float,
    freedom: float,
    scores: NDArray[np.float64],
    variances: NDArray[np.float64],
) -> float:
    """Test whether a target was driven beyond every natural image.

    One-sided Welch tests against each natural image; the largest of their p-values. "Beyond every image" is claimed
    only when each single test would claim it (an intersection-union test), so the level holds whatever the number of
    images, without a correction. It holds against the truly best image too, which lies above the cross-validated one.

    Parameters
    ----------
    achieved, variance : float
        Score of the target and its variance.
    freedom : float
        Degrees of freedom of that variance.
    scores, variances : ndarray, (image,)
        Scores of the natural images and their variances, taken as known; NaN is left out.

    Returns
    -------
    float
        p-value; NaN where the target's variance is not known.

    References
    ----------
    Berger, Technometrics 24, 1982, for intersection-union tests.

    Examples
    --------
    >>> round(beyond_every_image(4.0, 1.0, 1e9, np.array([0.0, 1.0]), np.array([1.0, 3.0])), 4)
    0.0668
    """
    if not np.isfinite(achieved) or not np.isfinite(variance) or freedom <= 0:
        return np.nan
    known = np.isfinite(scores)
    total = variance + variances[known]
    difference = achieved - scores[known]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(total > 0, difference / np.sqrt(total), np.where(difference > 0, np.inf, -np.inf))
        df = freedom * np.where(variance > 0, np.square(total / variance), np.inf)
    return float(stats.t.sf(t, df).max())


def discoveries(p_values: ArrayLike, families: Sequence[object], rate: float = FALSE_DISCOVERY_RATE) -> list[bool]:
    """Say which targets are significant, with the rate of false discoveries held within each family.

    Parameters
    ----------
    p_values : array_like
        One a target; NaN is never significant and does not count.
    families : sequence
        The family of every target.
    rate : float
        Expected share of false ones among the significant.

    Returns
    -------
    list of bool
        Whether each is.

    References
    ----------
    Benjamini & Hochberg, Journal of the Royal Statistical Society B 57, 1995.

    Examples
    --------
    >>> discoveries([0.04, 0.02, 0.04], ["a", "a", "b"])
    [True, True, True]
    """
    p, family = np.asarray(p_values, dtype=np.float64), np.asarray(families, dtype=object)
    significant = np.zeros(len(p), dtype=bool)
    for name in dict.fromkeys(family):
        mine = np.flatnonzero((family == name) & np.isfinite(p))
        if len(mine):
            significant[mine] = stats.false_discovery_control(p[mine]) <= rate
    return [bool(value) for value in significant]
