"""Recordings of two days: how much stronger one answers than the other, and one brought to the scale of the other.

A change of gain between the day of the natural images and that of the synthesized ones would count as control.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from neural_fits import SiteRecordings

_FEWEST_REFERENCES = 5
_FEWEST_ALIKE = 20  # so many equal responses are no chance


def to_scale_of(recordings: SiteRecordings, natural: SiteRecordings, name: str) -> SiteRecordings:
    """Scale recordings so that the natural images shown again answer as before.

    Site by site, ``y' = (y - m) / s * S + M`` with m, s the mean and standard deviation of the recordings over the
    images shown in both, from equally many trials, and M, S those of the natural recordings.

    Parameters
    ----------
    recordings : SiteRecordings
        The later recordings, at the sites of the natural ones.
    natural : SiteRecordings
        The natural recordings.
    name : str
        What to call the later ones in an error.

    Returns
    -------
    SiteRecordings
        The later recordings in the scale of the natural ones.

    Raises
    ------
    ValueError
        When fewer than 5 images were shown in both.
    """
    again = [name for name in natural.stimulus_ids if name in set(recordings.stimulus_ids)]
    if len(again) < _FEWEST_REFERENCES:
        raise ValueError(
            f"{name} shows {len(again)} natural images again; to scale its responses by them takes at least "
            f"{_FEWEST_REFERENCES}, or leave normalize out"
        )
    before, after = (_first_trials(natural, again), _first_trials(recordings, again))
    trials = min(before.shape[1], after.shape[1])  # noise widens a spread, so it must be as large on both sides
    before, after = before[:, :trials].mean(1), after[:, :trials].mean(1)
    # a site, or an image at a site, that one side lacks
    both = np.isfinite(before) & np.isfinite(after)
    count = np.maximum(both.sum(0), 1)

    def moments(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        kept = np.where(both, values, 0.0)
        mean = kept.sum(0) / count
        return mean, np.sqrt((np.where(both, values - mean, 0.0) ** 2).sum(0) / count)

    (old_mean, old_sd), (new_mean, new_sd) = moments(before), moments(after)
    usable = (both.sum(0) >= _FEWEST_REFERENCES) & (new_sd > 0)
    gain = np.where(usable, old_sd / np.where(new_sd > 0, new_sd, 1.0), np.nan)
    scaled = (recordings.responses - new_mean) * gain + old_mean
    step = {"step": "normalize", "what": name, "natural_images": len(again), "trials": trials}
    meta = {**recordings.meta, "preprocessing": [*recordings.meta.get("preprocessing", []), step]}
    return dataclasses.replace(recordings, responses=scaled.astype(np.float32), meta=meta)


def _first_trials(recordings: SiteRecordings, ids: list[str]) -> NDArray[np.float64]:
    """Return the trials of some stimuli, those recorded first, as many as most of them have."""
    chosen = recordings.select_stimuli(ids).responses.astype(np.float64)
    order = np.argsort(np.isnan(chosen), axis=1, kind="stable")
    counts = np.isfinite(chosen).sum(1)
    most = int(np.median(counts[counts > 0])) if counts.any() else 1
    return np.take_along_axis(chosen, order, axis=1)[:, :most]


def gain_between(first: SiteRecordings, later: SiteRecordings) -> tuple[int, float]:
    """Return how much stronger the sites answered later to the images shown in both.

    Parameters
    ----------
    first, later : SiteRecordings
        Recordings of two days.

    Returns
    -------
    images : int
        How many images were shown in both.
    gain : float
        Median over the sites of both of the ratio of mean responses to those images; not a number without any.

    Raises
    ------
    ValueError
        When the trials of those images are the same: one file given twice.

    Examples
    --------
    >>> import pandas as pd
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> monday, tuesday = (SiteRecordings(np.array([[[k * 1.0]]]), ("a",), sites) for k in (2, 3))
    >>> gain_between(monday, tuesday)
    (1, 1.5)
    """
    known, common = set(later.stimulus_ids), [site for site in first.site_ids if site in set(later.site_ids)]
    again = [name for name in first.stimulus_ids if name in known]
    if not again or not common:
        return len(again), float("nan")
    before, after = (each.select_stimuli(again).select_sites(common) for each in (first, later))
    trials = min(before.shape[1], after.shape[1])
    one, two = before.responses[:, :trials], after.responses[:, :trials]
    finite = np.isfinite(one) & np.isfinite(two)
    if finite.sum() >= _FEWEST_ALIKE and np.array_equal(one, two, equal_nan=True) and np.ptp(one[finite]) > 0:
        raise ValueError(
            f"two of the recordings hold the same trials of {len(again)} images, which would count them twice; give "
            "each file once"
        )
    old, new = before.mean().astype(np.float64), after.mean().astype(np.float64)
    both = np.isfinite(old) & np.isfinite(new)
    sums = [np.where(both, values, 0.0).sum(axis=0) for values in (old, new)]
    usable = sums[0] > 0
    return len(again), float(np.median(sums[1][usable] / sums[0][usable])) if usable.any() else float("nan")
