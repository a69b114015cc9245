"""Held-out scores of a time-resolved model, beside a linear readout of the same features fitted to each bin alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from neural_fits.cross_validation import cross_validate
from neural_fits.folds import Fold
from neural_fits.networks._recurrent_inputs import local_option, varies
from neural_fits.networks.timeline import bin_name
from neural_fits.recordings import SiteRecordings
from neural_fits.scores import site_scores


def recurrent_scores(
    predicted: NDArray[np.float32],
    recordings: SiteRecordings,
    features: Tensor,
    folds: list[Fold],
    groups: NDArray[np.generic],
    seed: int,
) -> pd.DataFrame:
    """Return one row for each site and bin; NaN where a site does not vary in a bin."""
    bins = recordings.time_bins_ms or ()
    flat = by_bin(recordings)
    mean = flat.mean()
    usable = np.all([varies(mean[train]) for train, _ in folds], axis=0)
    table = pd.DataFrame(index=flat.sites.index)
    table["start_ms"], table["end_ms"] = ([edge[k] for _ in recordings.site_ids for edge in bins] for k in (0, 1))
    if usable.any():
        chosen = flat.select_sites([name for name, use in zip(flat.site_ids, usable, strict=True) if use])
        baseline = cross_validate([local_option(features)], mean[:, usable], folds, groups, seed)[2]
        own = site_scores(predicted.reshape(len(predicted), -1)[:, usable], chosen, seed=seed)
        other = site_scores(baseline, chosen, seed=seed)[["r", "explained_variance"]].add_prefix("baseline_")
        table = table.join(own.join(other))
    table["n_stimuli"] = table["n_stimuli"].fillna(0).astype(int) if "n_stimuli" in table else 0
    names = pd.Index([site for site in recordings.site_ids for _ in bins], name="site_id")
    return table.set_axis(names, axis=0)


def by_bin(recordings: SiteRecordings) -> SiteRecordings:
    """Return every site in every bin as a site of its own."""
    bins = recordings.time_bins_ms or ()
    names = [f"{site}@{bin_name(each)}" for site in recordings.site_ids for each in bins]
    responses = recordings.responses.reshape(*recordings.shape[:2], -1)
    sites = pd.DataFrame(index=pd.Index(names, name="site_id"))
    return dataclasses.replace(recordings, responses=responses, sites=sites, time_bins_ms=None, meta={})
