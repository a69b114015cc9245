"""From raw sessions to recordings a model can be fitted to: joining, normalizing, choosing sites, rejecting trials.

Pure functions on `SiteRecordings`; each appends what it did to ``meta["preprocessing"]``, so that a file says how its
numbers came about. Called by users between `SiteRecordings.load` and `fit_sites`.
"""

from __future__ import annotations

import numpy as np

from neural_fits._recording_checks import changed, examples
from neural_fits._time_bins import refuse_time_resolved
from neural_fits.recordings import SiteRecordings
from neural_fits.sessions import join_sessions, normalize_sessions
from neural_fits.site_selection import ReliableSites, select_reliable

__all__ = ["ReliableSites", "join_sessions", "normalize_sessions", "reject_outliers", "select_reliable", "z_score"]

_FEWEST_TO_JUDGE = 3  # of two repeats that differ nobody can say which is wrong
_MAD_TO_SD = 1.4826  # from the median of |x| of a normal variable to its sd
_P90_TO_SD = 1.6449  # the 90th percentile of |x|, in sd


def z_score(recordings: SiteRecordings) -> SiteRecordings:
    """Scale every site so that its mean responses have mean 0 and sd 1 over stimuli.

    ``z = (y - mean) / sd`` with mean and sd (ddof 0) of the mean over repeats; turn predictions z back with
    ``z * sd + mean``.

    Parameters
    ----------
    recordings : SiteRecordings
        Trials of all sites.

    Returns
    -------
    SiteRecordings
        Responses in the unit ``"sd"``. The last entry of ``meta["preprocessing"]`` has the former ``unit`` and, by
        site id, ``mean`` and ``sd``.

    Raises
    ------
    ValueError
        If a site answers equally to all stimuli or not at all, or the recordings are time-resolved.

    Examples
    --------
    >>> import pandas as pd
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> scaled = z_score(SiteRecordings(np.array([[[2.0]], [[6.0]]]), ("a", "b"), sites))
    >>> scaled.responses.ravel().tolist(), scaled.meta["preprocessing"][-1]["sd"]
    ([-1.0, 1.0], {'s0': 2.0})
    """
    refuse_time_resolved(recordings, "z-scoring")
    mean = recordings.mean().astype(np.float64)
    shown = np.isfinite(mean)
    count = np.maximum(shown.sum(axis=0), 1)
    center = np.where(shown, mean, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(shown, np.square(mean - center), 0.0).sum(axis=0) / count)
    largest = np.where(shown, np.abs(mean), 0.0).max(axis=0, initial=0.0)
    flat = [site for site, same in zip(recordings.site_ids, spread <= 1e-6 * largest, strict=True) if same]
    if flat:
        raise ValueError(
            f"{len(flat)} sites answer equally to all stimuli or not at all ({examples(flat)}), so they have no sd; "
            "keep the others with recordings.select_sites([...])."
        )
    step = {
        "step": "z_score",
        "unit": recordings.unit,
        "mean": dict(zip(recordings.site_ids, center.tolist(), strict=True)),
        "sd": dict(zip(recordings.site_ids, spread.tolist(), strict=True)),
    }
    return changed(recordings, step, responses=(recordings.responses - center) / spread, unit="sd")


def reject_outliers(recordings: SiteRecordings, threshold: float = 8.0) -> SiteRecordings:
    """Drop single trials that lie far from the other repeats of their stimulus.

    A trial goes where ``|y - median over the repeats of its stimulus| > threshold * sd``. The site's robust sd is the
    larger of 1.4826 times the median and 1/1.645 times the 90th percentile of these distances over all trials: equal
    for normal noise, and only the second sees the spread of low counts.

    Parameters
    ----------
    recordings : SiteRecordings
        Trials of all sites.
    threshold : float
        Distance in robust sd, above 0.

    Returns
    -------
    SiteRecordings
        The same recordings with NaN for rejected trials; the last entry of ``meta["preprocessing"]`` counts them, in
        all and by site where there are any.

    Raises
    ------
    ValueError
        If `threshold` is not above 0 or the recordings are time-resolved.

    Notes
    -----
    Stimuli with fewer than three repeats are left alone, and so is a stimulus all of whose repeats would go: nobody
    can say which is wrong. One sd per site cannot follow noise that grows with the response, so a low threshold eats
    the strongest responses first. Measured on Poisson counts with 3 to 10 repeats, the default of 8 drops at most
    0.002 % of the trials at 5 spikes, and up to 0.6 % of those of the best twentieth of stimuli at sites whose rates
    vary e-fold (sd of log rate 1); a threshold of 4 drops 9 % of the latter.

    Examples
    --------
    >>> trials = np.random.default_rng(0).poisson(5.0, (3, 8, 1)).astype(float)
    >>> trials[1, 6] = 400.0
    >>> import pandas as pd
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> clean = reject_outliers(SiteRecordings(trials, ("a", "b", "c"), sites))
    >>> clean.n_repeats.ravel().tolist(), clean.meta["preprocessing"][-1]["rejected"]
    ([8, 7, 8], 1)
    """
    refuse_time_resolved(recordings, "a rejection of trials")
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}; give a distance in robust sd above 0, such as 8.")
    trials = recordings.responses.astype(np.float64)
    judged = np.isfinite(trials) & (recordings.n_repeats >= _FEWEST_TO_JUDGE)[:, None, :]
    distance = np.full(trials.shape, np.nan)
    stimulus, site = np.nonzero(judged.any(axis=1))
    if len(stimulus):
        rows = np.where(judged, trials, np.nan)[stimulus, :, site]
        distance[stimulus, :, site] = np.abs(rows - np.nanmedian(rows, axis=1, keepdims=True))
    scale = np.zeros(trials.shape[2])
    known = judged.any(axis=(0, 1))
    if known.any():
        half, ninety = np.nanquantile(distance[:, :, known].reshape(-1, known.sum()), [0.5, 0.9], axis=0)
        scale[known] = np.maximum(_MAD_TO_SD * half, ninety / _P90_TO_SD)
    with np.errstate(invalid="ignore"):
        far = judged & (distance > threshold * scale) & (scale > 0)
    far &= (judged & ~far).any(axis=1, keepdims=True)  # never all repeats of a stimulus
    counts = far.sum(axis=(0, 1))
    step = {
        "step": "reject_outliers",
        "threshold": threshold,
        "rejected": int(counts.sum()),
        "of": int(np.isfinite(trials).sum()),
        "by_site": {name: int(k) for name, k in zip(recordings.site_ids, counts, strict=True) if k},
    }
    return changed(recordings, step, responses=np.where(far, np.nan, trials))
