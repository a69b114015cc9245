"""Which sites are worth fitting: chosen on one half of the trials, so that the other half gives an honest ceiling."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits._recording_checks import changed
from neural_fits._time_bins import refuse_time_resolved
from neural_fits.halves import random_half_mask
from neural_fits.recordings import SiteRecordings
from neural_fits.reliability import spearman_brown, split_half_reliability

__all__ = ["ReliableSites", "select_reliable"]


@dataclass(frozen=True, eq=False)
class ReliableSites:
    """Sites chosen on some trials, and the other trials to score them on.

    Parameters
    ----------
    site_ids : tuple of str
        The chosen sites; fit on all their trials with ``recordings.select_sites(result.site_ids)``.
    scoring : SiteRecordings
        The chosen sites with only the trials that did not choose them: for reliabilities and ceilings.
    reliability : pandas.DataFrame
        Indexed by site_id, all sites: ``reliability`` of all repeats as estimated from the choosing trials, and
        ``chosen``.
    """

    site_ids: tuple[str, ...]
    scoring: SiteRecordings
    reliability: pd.DataFrame

    def __repr__(self) -> str:
        return f"ReliableSites({len(self.site_ids)} of {len(self.reliability)} sites)"


def select_reliable(recordings: SiteRecordings, minimum: float, seed: int, n_splits: int = 50) -> ReliableSites:
    """Choose sites by their reliability on one half of the trials, and keep the other half for scoring.

    A site chosen for a high reliability owes part of it to luck, and its ceiling measured on the same trials is too
    high by that luck: among sites of pure noise, those chosen look reliable. On other trials the luck is gone.

    Parameters
    ----------
    recordings : SiteRecordings
        Trials of all sites.
    minimum : float
        Smallest reliability of the mean over *all* repeats to keep a site, above -1 and below 1; 0.3 is usual.
    seed : int
        Seed of the choice of trials and of the splits.
    n_splits : int
        Number of random splits for the reliability.

    Returns
    -------
    ReliableSites
        The chosen sites, the trials left for scoring them, and the table of all sites.

    Raises
    ------
    ValueError
        If no site has repeats enough, no site is reliable enough, `minimum` makes no sense or the
        recordings are time-resolved.

    Notes
    -----
    The repeats of every stimulus are divided at random into two sets; the split-half reliability of the first,
    stepped up to all repeats by ``2 rel / (1 + rel)``, decides. A stimulus needs four repeats to count in both sets;
    one with three counts in one of them.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> trials = rng.normal(size=(200, 8, 2)) + rng.normal(size=(200, 1, 1)) * [2.0, 0.0]
    >>> sites = pd.DataFrame(index=pd.Index(["tuned", "noise"], name="site_id"))
    >>> recorded = SiteRecordings(trials, tuple(f"i{k}" for k in range(200)), sites)
    >>> found = select_reliable(recorded, minimum=0.5, seed=0)
    >>> found.site_ids, int(found.scoring.n_repeats.max())
    (('tuned',), 4)
    """
    refuse_time_resolved(recordings, "a choice of sites")
    if not -1.0 < minimum < 1.0:
        raise ValueError(f"minimum is {minimum}; give a reliability below 1, such as 0.3.")
    choosing = random_half_mask(recordings.responses, np.random.default_rng([seed, 1]))
    first = _with_trials(recordings, choosing)
    reliability = spearman_brown(split_half_reliability(first, n_splits=n_splits, seed=seed))
    if not np.isfinite(reliability).any():
        most = int(recordings.n_repeats.max(initial=0))
        raise ValueError(
            f"no site has repeats enough (the most is {most}; a stimulus needs four) to be chosen on other trials than "
            "it is scored on; record more, or choose with split_half_reliability and report no ceiling."
        )
    chosen = reliability >= minimum
    if not chosen.any():
        raise ValueError(
            f"none of the {len(chosen)} sites reaches a reliability of {minimum} (the best has "
            f"{np.nanmax(reliability):.2f}); lower minimum."
        )
    ids = tuple(site for site, good in zip(recordings.site_ids, chosen, strict=True) if good)
    step = {"step": "select_reliable", "minimum": minimum, "seed": seed, "chosen": len(ids), "of": len(chosen)}
    scoring = changed(_with_trials(recordings, ~choosing).select_sites(ids), step)
    table = pd.DataFrame({"reliability": reliability, "chosen": chosen}, index=recordings.sites.index)
    return ReliableSites(ids, scoring, table)


def _with_trials(recordings: SiteRecordings, keep: NDArray[np.bool_]) -> SiteRecordings:
    return dataclasses.replace(recordings, responses=np.where(keep, recordings.responses, np.float32(np.nan)))
