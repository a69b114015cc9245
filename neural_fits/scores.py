"""How well a prediction explains a site, corrected for the noise of the recording.

In: predictions (stimulus, site) and `SiteRecordings`. Out: raw r, reliability and r^2 / reliability per site, and other
corrections by name. This one, CCnorm^2, r2_ER and FEVE agree and are unbiased for the model at hand; dividing by the
reliability of the model as well (2019) answers another question. Called by `fit_sites` and users.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neural_fits._weighted_scores import FEWEST_STIMULI, SCORE_NAMES, check_predicted, pair, score
from neural_fits.corrections import cc_norm, explained_variance_2019, fev, feve, oracle_correlation, r2_er
from neural_fits.intervals import bootstrap_interval, population_interval, score_intervals
from neural_fits.reliability import pearson_r, split_half_reliability
from stimuli.hints import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from neural_fits.recordings import SiteRecordings

__all__ = [
    "bootstrap_interval",
    "cc_norm",
    "explained_variance",
    "explained_variance_2019",
    "fev",
    "feve",
    "oracle_correlation",
    "pearson_r",
    "population_interval",
    "r2_er",
    "score_intervals",
    "site_scores",
]

_ALWAYS = ("r", "reliability", "explained_variance")


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


def site_scores(
    predicted: ArrayLike,
    recordings: SiteRecordings,
    n_splits: int = 50,
    seed: int = 0,
    metrics: Sequence[str] = (),
    half_predictions: tuple[ArrayLike, ArrayLike] | None = None,
) -> pd.DataFrame:
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
    metrics : sequence of str
        Further columns: ``cc_norm``, ``fev``, ``feve``, ``r2_er``, ``oracle_jackknife``, ``oracle_conservative`` or
        ``explained_variance_2019``, as in the functions of these names.
    half_predictions : tuple of array_like, optional
        For ``explained_variance_2019``: predictions of two models fitted on two halves of the repeats.

    Returns
    -------
    pandas.DataFrame
        Indexed by site_id, with columns ``r`` (raw correlation with the mean response), ``reliability``,
        ``explained_variance`` and ``n_stimuli`` (how many stimuli r is over), then those of `metrics`.

    Raises
    ------
    ValueError
        If `predicted` is not (stimulus, site) of the recordings' size, a metric is unknown or lacks its predictions,
        or the recordings are time-resolved.

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

    guess, counts = check_predicted(predicted, recordings), recordings.n_repeats
    known = [name for name in SCORE_NAMES if name not in _ALWAYS]
    for name in metrics:
        if name not in known:
            raise ValueError(f"unknown metric {name!r}; {did_you_mean(name, known)}known: {', '.join(known)}.")
    shown = np.isfinite(guess) & (counts >= 1)
    repeated = shown & (counts >= 2)
    enough = repeated.sum(axis=0) >= FEWEST_STIMULI
    used = np.where(enough, repeated, shown)
    trials = np.where(used[:, None, :], recordings.responses, np.nan)
    scored = dataclasses.replace(recordings, responses=trials)
    r = pearson_r(guess, scored.mean())
    reliability = np.where(enough, split_half_reliability(scored, n_splits=n_splits, seed=seed), np.nan)
    paired = pair(guess, recordings, half_predictions, n_splits, seed)
    return pd.DataFrame(
        {
            "r": r,
            "reliability": reliability,
            "explained_variance": explained_variance(r, reliability),
            "n_stimuli": used.sum(axis=0),
            **{name: score(name, paired)[0] for name in metrics},
        },
        index=recordings.sites.index,
    )
