"""What every fit of one recording shares: aligned data, groups and folds, and how held-out predictions are scored.

In: stimuli and recordings as a user has them. Out: a checked `FitTask`. Used by `fit_sites` and `transfer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from neural_fits.folds import Fold, group_folds, group_labels, part_of_groups
from neural_fits.parallel import side_by_side
from neural_fits.recordings import SiteRecordings
from neural_fits.scores import score_intervals, site_scores
from neural_fits.site_model import Ensemble, SiteInfo, SiteModel
from neural_fits.site_selection import select_reliable
from stimuli import StimulusSet
from stimuli.provenance import provenance_record, sha256_bytes


@dataclass(frozen=True, eq=False)
class FitTask:
    """Data of one fit.

    Parameters
    ----------
    stimuli : StimulusSet
        The images.
    responses : ndarray, (stimulus, site)
        Mean responses in the recording's unit; NaN where a site was not recorded.
    scoring : SiteRecordings
        Trials that held-out predictions are scored on.
    groups : ndarray, (stimulus,)
        Stimuli with one label stay on one side.
    folds : list of (train, test)
        Cross-validation folds.
    info : SiteInfo
        Names and statistics of the sites.
    seed : int
        Seed of splits, folds and intervals.
    record : dict
        Hashes of what went in, for the provenance.
    fitted_on : dict
        Which images and groups the fit sees: ``images`` (hashes of pixels), ``group`` (the column), ``groups``.
    """

    stimuli: StimulusSet
    responses: NDArray[np.float32]
    scoring: SiteRecordings
    groups: NDArray[np.generic]
    folds: list[Fold]
    info: SiteInfo
    seed: int
    record: dict[str, str]
    fitted_on: dict[str, Any]

    def scored(self, predicted: NDArray[np.float32]) -> pd.DataFrame:
        """Score held-out predictions, with an interval over stimuli.

        Parameters
        ----------
        predicted : ndarray, (stimulus, site)
            Predictions by models that did not see the stimulus.

        Returns
        -------
        DataFrame
            `site_scores` with ``explained_variance_low`` and ``explained_variance_high``, a 95 % interval.
        """
        table = site_scores(predicted, self.scoring, seed=self.seed)
        ends = score_intervals(predicted, self.scoring, seed=self.seed, groups=self.groups.tolist())
        return table.assign(explained_variance_low=ends["low"], explained_variance_high=ends["high"])

    def assembled(
        self, models: list[SiteModel], predictions: list[NDArray[np.float32]], settings: dict[str, Any]
    ) -> SiteModel | Ensemble:
        """Return the only model, or the ensemble of several, scored by the mean of their held-out predictions.

        Parameters
        ----------
        models : list of SiteModel
            One per network.
        predictions : list of ndarray, (stimulus, site)
            Their held-out predictions.
        settings : dict
            How they were fitted.

        Returns
        -------
        SiteModel or Ensemble
            The model.
        """
        if len(models) == 1:
            return models[0]
        return Ensemble(models, self.scored(np.mean(predictions, axis=0)), self.provenance(settings))

    def provenance(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the record of a fit with these settings.

        Parameters
        ----------
        settings : dict
            How it was fitted.

        Returns
        -------
        dict
            Versions, seed, settings, hashes of the inputs.
        """
        record = provenance_record(seed=self.seed, config=settings, inputs=self.record)
        return {**record, "fitted_on": self.fitted_on}


def prepare(
    stimuli: StimulusSet,
    recordings: SiteRecordings,
    *,
    split: str | None,
    group: str,
    folds: int,
    seed: int,
    min_reliability: float | None = None,
) -> FitTask:
    """Align, choose sites and stimuli, and check that everything can be fitted.

    Parameters
    ----------
    stimuli : StimulusSet
        The images shown.
    recordings : SiteRecordings
        Responses to exactly these stimuli.
    split : str, optional
        Part of the groups, see `part_of_groups`.
    group : str
        Column of the groups, see `group_labels`.
    folds : int
        Number of folds.
    seed : int
        Seed of all choices.
    min_reliability : float, optional
        Leave out sites less reliable than this, as measured on one half of the trials; the other half scores.

    Returns
    -------
    FitTask
        The data.

    Raises
    ------
    ValueError
        When ids do not match, a site has no usable response, or a name is unknown.
    """
    recordings.check_usable()
    recordings = recordings.align(stimuli)
    scoring = recordings
    if min_reliability is not None:
        reliable = select_reliable(recordings, min_reliability, seed)
        recordings, scoring = recordings.select_sites(reliable.site_ids), reliable.scoring
    groups = group_labels(stimuli, group)
    if split is not None:
        chosen = part_of_groups(groups, split, seed)
        stimuli = stimuli.select(chosen)
        recordings, scoring = (data.select_stimuli(stimuli.stimulus_ids) for data in (recordings, scoring))
        groups = groups[chosen]
        recordings.check_usable()
    responses = recordings.mean()
    pairs = group_folds(groups, folds, seed)
    _check_enough(responses, recordings.site_ids, folds)
    _check_trainable(responses, recordings.site_ids, pairs)
    images = _pixel_hashes(stimuli)
    record = {
        "stimuli": sha256_bytes("\n".join([*stimuli.stimulus_ids, *images]).encode()),
        "responses": sha256_bytes(np.ascontiguousarray(recordings.responses).tobytes()),
    }
    info = _site_info(stimuli, recordings, responses)
    fitted_on = {"images": images, "group": group, "groups": sorted({str(label) for label in groups})}
    return FitTask(stimuli, responses, scoring, groups, pairs, info, seed, record, fitted_on)


def _pixel_hashes(stimuli: StimulusSet) -> list[str]:
    """Sixteen hexadecimal digits per image."""

    def digest(index: int) -> str:
        return sha256_bytes(stimuli.codes([index]).tobytes())[:16]

    return side_by_side(digest, range(len(stimuli)), torch.device("cpu"))


def _site_info(stimuli: StimulusSet, recordings: SiteRecordings, responses: NDArray[np.float32]) -> SiteInfo:
    constant = np.nanmax(responses, axis=0) == np.nanmin(responses, axis=0)
    if constant.any():
        silent = [site for site, same in zip(recordings.site_ids, constant, strict=True) if same]
        raise ValueError(
            f"{len(silent)} site(s) respond equally to every stimulus: {', '.join(silent[:5])}; drop them with "
            "recordings.select_sites([...])"
        )
    exact = responses.astype(np.float64)
    return SiteInfo(
        tuple(recordings.site_ids),
        tuple(np.nanmean(exact, axis=0).tolist()),
        tuple(np.nanstd(exact, axis=0).tolist()),
        stimuli.size_px,
        float(stimuli.size_deg),
        recordings.unit,
        stimuli.shape[0],
    )


def _check_enough(responses: NDArray[np.float32], site_ids: Sequence[str], folds: int) -> None:
    shown = np.isfinite(responses).sum(0)
    few = [site for site, n in zip(site_ids, shown, strict=True) if n < 4 * folds]
    if few:
        raise ValueError(
            f"{len(few)} site(s) have responses to fewer than {4 * folds} stimuli: {', '.join(few[:5])}; record more, "
            "or drop them with recordings.select_sites([...])"
        )


def _check_trainable(responses: NDArray[np.float32], site_ids: Sequence[str], pairs: Sequence[Fold]) -> None:
    fewest = np.min([np.isfinite(responses[train]).sum(0) for train, _ in pairs], axis=0)
    lost = [site for site, n in zip(site_ids, fewest, strict=True) if n < 2]
    if lost:
        raise ValueError(
            f"{len(lost)} site(s) were recorded on too few groups of stimuli, so that a fold has nothing to train on: "
            f"{', '.join(lost[:5])}; drop them with recordings.select_sites([...])"
        )
