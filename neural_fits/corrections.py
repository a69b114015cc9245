"""The noise corrections of the literature, each under its own name: what other papers report, on the same trials.

In: predictions (stimulus, site) and `SiteRecordings`. Out: one number per site. All of them use the stimuli with a
finite prediction and at least two repeats, weigh each of these once, allow any number of repeats per stimulus, and
are NaN where fewer than three such stimuli are left or no signal is measurable. The default is in `scores`.

Repeats may differ between stimuli. Stimulus i has n_i of them, mean ybar_i and variance s2_i (ddof 1); the noise of
the means is then N = mean_i s2_i / n_i, and the signal power SP = Var_i(ybar_i) - N (ddof 1) is unbiased.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from numpy.typing import ArrayLike, NDArray

from neural_fits._weighted_scores import Floats, pair, score

if TYPE_CHECKING:
    import numpy as np

    from neural_fits.recordings import SiteRecordings

__all__ = ["cc_norm", "explained_variance_2019", "fev", "feve", "oracle_correlation", "r2_er"]


def explained_variance_2019(
    predicted: ArrayLike,
    recordings: SiteRecordings,
    half_predictions: tuple[ArrayLike, ArrayLike],
    n_splits: int = 50,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Divide r squared by the reliabilities of the data and of the model, as in 2019.

    ``r(p, ybar)^2 / (rel_data rel_model)``, with ``rel_model = 2 c / (1 + c)`` and c the correlation between the
    predictions of two models fitted on two halves of the repeats. It estimates what a model fitted on infinitely many
    repeats would explain, so it lies above `explained_variance`, which judges the model at hand: for comparison with
    published numbers only.

    Parameters
    ----------
    predicted : array_like
        Predicted responses, shape (stimulus, site), of the model fitted on all repeats.
    recordings : SiteRecordings
        Trials to compare with.
    half_predictions : tuple of array_like
        Held-out predictions of the two models, each (stimulus, site).
    n_splits : int
        Number of random splits for the reliability of the data.
    seed : int
        Seed of the splits.

    Returns
    -------
    ndarray
        Shape (site,); NaN where either reliability is not positive.

    Raises
    ------
    ValueError
        If a prediction is not (stimulus, site) of the recordings' size.

    References
    ----------
    Bashivan, Kar & DiCarlo, Science 2019.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from neural_fits.recordings import SiteRecordings
    >>> trials = np.repeat(np.arange(4.0)[:, None, None], 2, axis=1)
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> recorded = SiteRecordings(trials, ("a", "b", "c", "d"), sites)
    >>> predicted = np.arange(4.0)[:, None]
    >>> explained_variance_2019(predicted, recorded, (predicted, predicted)).round(6)
    array([1.])
    """
    return _one("explained_variance_2019", predicted, recordings, half_predictions, n_splits, seed)


def cc_norm(predicted: ArrayLike, recordings: SiteRecordings) -> NDArray[np.float64]:
    """Normalize the covariance of prediction and response by the signal power: a correlation without noise.

    ``CCnorm = Cov(p, ybar) / sqrt(Var(p) SP)``; its square is comparable with `explained_variance`.

    Parameters
    ----------
    predicted : array_like
        Predicted responses, shape (stimulus, site).
    recordings : SiteRecordings
        Trials to compare with.

    Returns
    -------
    ndarray
        Shape (site,), with the sign of the correlation; may pass 1 by chance. NaN where SP is not positive.

    Raises
    ------
    ValueError
        If `predicted` is not (stimulus, site) of the recordings' size.

    Notes
    -----
    Schoppe's SP takes the noise after removing the mean of every repeat over stimuli, which needs every stimulus in
    every repeat. Here the noise is the variance within a stimulus, so that repeats may be ragged; without drift
    between repeats the two are the same in expectation.

    References
    ----------
    Schoppe et al., Frontiers in Computational Neuroscience 10:10, 2016.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from neural_fits.recordings import SiteRecordings
    >>> trials = np.repeat(np.arange(4.0)[:, None, None], 2, axis=1)
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> recorded = SiteRecordings(trials, ("a", "b", "c", "d"), sites)
    >>> predicted = np.arange(4.0)[:, None]
    >>> cc_norm(-predicted, recorded).round(6)
    array([-1.])
    """
    return _one("cc_norm", predicted, recordings)


def fev(recordings: SiteRecordings) -> NDArray[np.float64]:
    """Estimate the share of the variance of single trials that is signal: the explainable variance.

    ``FEV = SP / (SP + s2)`` with s2 the mean over stimuli of the variance over repeats.

    Parameters
    ----------
    recordings : SiteRecordings
        Trials of all sites.

    Returns
    -------
    ndarray
        Shape (site,), above 0 and at most 1; NaN where SP is not positive.

    Raises
    ------
    ValueError
        If the recordings are time-resolved.

    References
    ----------
    Cadena et al., PLoS Computational Biology 2019.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from neural_fits.recordings import SiteRecordings
    >>> trials = np.repeat(np.arange(4.0)[:, None, None], 2, axis=1)
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> recorded = SiteRecordings(trials, ("a", "b", "c", "d"), sites)
    >>> fev(recorded).round(6)
    array([1.])
    """
    return _one("fev", None, recordings)


def feve(predicted: ArrayLike, recordings: SiteRecordings) -> NDArray[np.float64]:
    """Compare the squared error without noise with the explainable variance: errors of scale and offset count.

    ``FEVE = 1 - (mean_i (ybar_i - p_i)^2 - N) / SP``, which for equal repeats is
    ``1 - (mean_ik (y_ik - p_i)^2 - s2) / (total variance - s2)``.

    Parameters
    ----------
    predicted : array_like
        Predicted responses, shape (stimulus, site), in the unit of the recordings.
    recordings : SiteRecordings
        Trials to compare with.

    Returns
    -------
    ndarray
        Shape (site,); negative for predictions worse than the mean response. NaN where SP is not positive.

    Raises
    ------
    ValueError
        If `predicted` is not (stimulus, site) of the recordings' size.

    References
    ----------
    Cadena et al., PLoS Computational Biology 2019.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from neural_fits.recordings import SiteRecordings
    >>> trials = np.repeat(np.arange(4.0)[:, None, None], 2, axis=1)
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> recorded = SiteRecordings(trials, ("a", "b", "c", "d"), sites)
    >>> predicted = np.arange(4.0)[:, None]
    >>> feve(predicted, recorded).round(6), feve(predicted + 10, recorded) < 0
    (array([1.]), array([ True]))
    """
    return _one("feve", predicted, recordings)


def r2_er(predicted: ArrayLike, recordings: SiteRecordings) -> NDArray[np.float64]:
    """Subtract what noise adds to the numerator and denominator of r squared.

    ``r2_ER = ((p.ybar)^2 - N p.p) / (p.p ybar.ybar - (m - 1) N p.p)`` for centered p and ybar over m stimuli.

    Parameters
    ----------
    predicted : array_like
        Predicted responses, shape (stimulus, site).
    recordings : SiteRecordings
        Trials to compare with.

    Returns
    -------
    ndarray
        Shape (site,); around 0 without correlation, so it may be negative, and blind to the sign of the correlation:
        read r beside it. NaN where SP is not positive.

    Raises
    ------
    ValueError
        If `predicted` is not (stimulus, site) of the recordings' size.

    References
    ----------
    Pospisil & Bair, PLoS Computational Biology 17:e1009212, 2021.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from neural_fits.recordings import SiteRecordings
    >>> trials = np.repeat(np.arange(4.0)[:, None, None], 2, axis=1)
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> recorded = SiteRecordings(trials, ("a", "b", "c", "d"), sites)
    >>> predicted = np.arange(4.0)[:, None]
    >>> r2_er(predicted, recorded).round(6)
    array([1.])
    """
    return _one("r2_er", predicted, recordings)


def oracle_correlation(
    recordings: SiteRecordings, method: Literal["jackknife", "conservative"] = "jackknife"
) -> NDArray[np.float64]:
    """Correlate the best predictor that trials allow with single trials.

    ``"jackknife"``: correlation over all trials of a trial with the mean of the other repeats of its stimulus, which is
    too low, as that mean is noisy. ``"conservative"``: ``sqrt(V / (V + s2))`` with V the variance over stimuli of the
    mean response, which is too high, as V holds noise.

    Parameters
    ----------
    recordings : SiteRecordings
        Trials of all sites.
    method : {"jackknife", "conservative"}
        Which of the two.

    Returns
    -------
    ndarray
        Shape (site,); NaN where the responses do not vary.

    Raises
    ------
    ValueError
        If the method is unknown or the recordings are time-resolved.

    References
    ----------
    Walker et al., Nature Neuroscience 2019, for the jackknife.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from neural_fits.recordings import SiteRecordings
    >>> trials = np.repeat(np.arange(4.0)[:, None, None], 2, axis=1)
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> recorded = SiteRecordings(trials, ("a", "b", "c", "d"), sites)
    >>> oracle_correlation(recorded).round(6)
    array([1.])
    """
    if method not in ("jackknife", "conservative"):
        raise ValueError(f"method is {method!r}; give 'jackknife' or 'conservative'.")
    return _one(f"oracle_{method}", None, recordings)


def _one(
    name: str,
    predicted: ArrayLike | None,
    recordings: SiteRecordings,
    half_predictions: tuple[ArrayLike, ArrayLike] | None = None,
    n_splits: int = 1,
    seed: int = 0,
) -> Floats:
    return score(name, pair(predicted, recordings, half_predictions, n_splits, seed))[0]
