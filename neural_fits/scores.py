"""How well a prediction explains a site, corrected for the noise of the recording.

In: predictions (stimulus, site) and `SiteRecordings`. Out: raw r, reliability and r^2 / reliability per site, and an
interval over sites. Of the corrections in the literature this one, CCnorm and r2_ER agree and are unbiased for the
model at hand; dividing by the reliability of the model as well answers another question and is not done here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neural_fits.reliability import pearson_r, split_half_reliability

if TYPE_CHECKING:
    import pandas as pd

    from neural_fits.recordings import SiteRecordings

__all__ = ["bootstrap_interval", "explained_variance", "pearson_r", "site_scores"]

_FEWEST_STIMULI = 3


def explained_variance(r: ArrayLike, reliability: ArrayLike) -> NDArray[np.float64]:
    """Divide r squared by the reliability: the share of the explainable variance that is explained.

    ``EV = r^2 / rel`` for r >= 0, and 0 for r < 0: a prediction that runs against the site explains nothing of it.

    Parameters
    ----------
    r : array_like
        Correlation of the prediction with the mean response, shape (site,).
    reliability : array_like
        Spearman-Brown corrected reliability of that mean, shape (site,).

    Returns
    -------
    ndarray
        Shape (site,). NaN where r or reliability is NaN or reliability is not positive. Never clipped: by chance a
        value may lie above 1, and clipping it would bias every average downward.

    Examples
    --------
    >>> explained_variance([0.6, -0.6, 0.9, 0.5], [0.72, 0.72, 0.75, 0.0]).round(4)
    array([0.5 , 0.  , 1.08,  nan])
    """
    corr, rel = np.asarray(r, dtype=np.float64), np.asarray(reliability, dtype=np.float64)
    defined = np.isfinite(corr) & np.isfinite(rel) & (rel > 0)
    explained = np.square(np.maximum(corr, 0.0)) / np.where(defined, rel, 1.0)
    return np.where(defined, explained, np.nan)


def site_scores(predicted: ArrayLike, recordings: SiteRecordings, n_splits: int = 50, seed: int = 0) -> pd.DataFrame:
    """Score a prediction against recordings, site by site.

    ``EV = r^2 / rel``, with r and rel over the *same* stimuli: those with a finite prediction and at least two
    repeats. A site with fewer than three such stimuli gets the r over all its stimuli and no reliability.

    Parameters
    ----------
    predicted : array_like
        Predicted responses, shape (stimulus, site), in the order of `recordings`; NaN = not predicted.
    recordings : SiteRecordings
        Trials to compare with.
    n_splits : int
        Number of random splits for the reliability.
    seed : int
        Seed of the splits.

    Returns
    -------
    pandas.DataFrame
        Indexed by site_id, with columns ``r`` (raw correlation with the mean response), ``reliability``,
        ``explained_variance`` and ``n_stimuli`` (how many stimuli r is over).

    Raises
    ------
    ValueError
        If `predicted` is not (stimulus, site) of the recordings' size.

    Examples
    --------
    >>> import pandas as pd
    >>> from neural_fits.recordings import SiteRecordings
    >>> trials = np.repeat(np.arange(4.0)[:, None, None], 2, axis=1)
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> recorded = SiteRecordings(trials, ("a", "b", "c", "d"), sites)
    >>> scores = site_scores([[0.0], [1.0], [2.0], [3.0]], recorded)
    >>> float(scores.loc["s0", "explained_variance"].round(6)), int(scores.loc["s0", "n_stimuli"])
    (1.0, 4)
    """
    import pandas as pd

    guess = np.asarray(predicted, dtype=np.float64)
    counts = recordings.n_repeats
    if guess.shape != counts.shape:
        raise ValueError(
            f"predicted has shape {guess.shape} but the recordings have {counts.shape[0]} stimuli and "
            f"{counts.shape[1]} sites; predict the same stimuli and sites in the same order "
            "(recordings.align(stimuli), recordings.select_sites(site_ids))."
        )
    shown = np.isfinite(guess) & (counts >= 1)
    repeated = shown & (counts >= 2)
    enough = repeated.sum(axis=0) >= _FEWEST_STIMULI
    used = np.where(enough, repeated, shown)
    trials = np.where(used[:, None, :], recordings.responses, np.nan)
    scored = dataclasses.replace(recordings, responses=trials)
    r = pearson_r(guess, scored.mean())
    reliability = np.where(enough, split_half_reliability(scored, n_splits=n_splits, seed=seed), np.nan)
    return pd.DataFrame(
        {
            "r": r,
            "reliability": reliability,
            "explained_variance": explained_variance(r, reliability),
            "n_stimuli": used.sum(axis=0),
        },
        index=recordings.sites.index,
    )


def bootstrap_interval(
    values: ArrayLike,
    seed: int,
    n: int = 2000,
    level: float = 0.95,
    statistic: Callable[..., Any] = np.median,
) -> tuple[float, float]:
    """Resample values with replacement and return the percentile interval of a statistic.

    Parameters
    ----------
    values : array_like
        One value per site, shape (site,); values that are not finite are left out.
    seed : int
        Seed of the resampling.
    n : int
        Number of resamples.
    level : float
        Coverage, between 0 and 1.
    statistic : callable
        Function of an array and ``axis``, such as `numpy.median` or `numpy.mean`.

    Returns
    -------
    low : float
        Lower end; NaN if no value is finite.
    high : float
        Upper end; NaN if no value is finite.

    Raises
    ------
    ValueError
        If `level` is not between 0 and 1 or `n` is below 1.

    Notes
    -----
    Sites of one animal are not independent animals: the interval speaks for sites like these, not for monkeys.

    Examples
    --------
    >>> low, high = bootstrap_interval(np.linspace(0.0, 1.0, 101), seed=0)
    >>> low < 0.5 < high
    True
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; give a coverage between 0 and 1, such as 0.95.")
    if n < 1:
        raise ValueError(f"n is {n}; give at least 1 resample (2000 is usual).")
    finite = np.asarray(values, dtype=np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return float("nan"), float("nan")
    picks = np.random.default_rng(seed).integers(finite.size, size=(n, finite.size))
    replicates = np.asarray(statistic(finite[picks], axis=1))
    low, high = np.quantile(replicates, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)
