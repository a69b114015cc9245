"""Did it work? Achieved control beside the forecasts, on recorded responses.

In: synthesized and natural stimuli, drivers, validators, recordings of both sets. Out: a `ControlReport` with one row
per image and per target. Every prediction is made from the images as saved. Called by users, ``npc evaluate``, demo.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from neural_fits.fit import best_device
from neural_fits.recordings import SiteRecordings
from stimuli import StimulusSet
from stimuli.files import atomic_write
from synth import _recorded_scores as recorded_scores
from synth import control_statistics as statistics
from synth._control_forecasts import Model, add_forecasts
from synth._control_summary import rounded, summarize
from synth._control_tables import add_baselines, add_statistics, ends, of_bases, per_target
from synth.baselines import family_baselines, natural_baselines

if TYPE_CHECKING:
    from synth.calibration import Calibration

__all__ = ["ControlReport", "evaluate_control", "rounded"]


@dataclass(frozen=True, eq=False)
class ControlReport:
    """Achieved control, forecasts and baselines.

    Parameters
    ----------
    images : DataFrame
        One row per synthesized image: objective, target, forecasts, achieved value with its interval, flag.
    targets : DataFrame
        One row per objective: means over its images, baselines, gain with its interval, significance.
    summary : dict
        Numbers over targets: a block for ``stretch``, one for ``ohp``, and ``other`` where there are others.
    stimuli, reference : StimulusSet
        The images judged and the natural images compared with.
    best_natural_ids : dict
        For every objective, as written in the tables, the natural image that serves as its baseline most often.
    families : DataFrame
        The same baselines in each family of reference images: one row per objective and ``reference_family``.
    natural_means : ndarray, (reference image, site)
        Mean recorded responses to the reference, NaN where there is none.
    achieved_means : ndarray, (image, site), optional
        Mean recorded responses to the images judged; None before they were shown.
    site_ids : tuple of str
        Names of the columns of both.
    unit : str
        Unit of both.
    """

    images: pd.DataFrame
    targets: pd.DataFrame
    summary: dict[str, Any]
    stimuli: StimulusSet
    reference: StimulusSet
    best_natural_ids: dict[str, str]
    families: pd.DataFrame = field(default_factory=pd.DataFrame)
    natural_means: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    achieved_means: NDArray[np.float32] | None = None
    site_ids: tuple[str, ...] = ()
    unit: str = ""

    def to_html(self, path: str | Path, facts: Mapping[str, str] | None = None) -> Path:
        """Write a self-contained page: pictures, forecast against achieved, tables.

        Parameters
        ----------
        path : str or Path
            File to write.
        facts : mapping of str to str, optional
            What the report cannot know itself, such as the repeats of an image; see `synth.report.render_report`.

        Returns
        -------
        Path
            The file.
        """
        from synth.report import render_report

        return atomic_write(path, render_report(self, facts=facts))

    def to_json(self, path: str | Path) -> Path:
        """Write the summary as JSON; missing numbers become null.

        Parameters
        ----------
        path : str or Path
            File to write.

        Returns
        -------
        Path
            The file.
        """
        return atomic_write(path, json.dumps(self.summary, indent=1, allow_nan=False))

    def _repr_html_(self) -> str:
        return f"<p><b>{html.escape(repr(self))}</b></p>{self.targets.round(3).to_html()}"

    def __repr__(self) -> str:
        return f"ControlReport({len(self.images)} images, {len(self.targets)} targets)"


def evaluate_control(
    stimuli: StimulusSet,
    *,
    reference: StimulusSet,
    recordings: SiteRecordings,
    drivers: Sequence[Model],
    validators: Sequence[Model] = (),
    calibration: Calibration | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> ControlReport:
    """Compare what synthesized images do with what natural images do, and with what was forecast.

    *Stretch*: mean response of the target site to the images made for it, over images and repeats, against the best
    natural image. *One-hot*: ``softmax_target(z)`` over the population, with responses z-scored over natural images,
    against the natural image that scores best. *Any other objective of sites*: its own score, and the gain is a
    difference. The best natural image (the five best, the 99th percentile) is chosen on one random half of the
    repeats and measured on the other (mean over splits and both directions), because the maximum of many noisy means is
    biased upward. Scores that are not linear in responses are taken on at most as many trials for synthesized images,
    so that noise enters both alike. Noise also hides the truly best image from the choosing half, so this baseline is a
    lower bound and gains are upper bounds; ``best_natural_upper``, the maximum over the means of all repeats, is biased
    upward and bounds it from above. The summary counts targets above either.

    Intervals (95 %) resample repeats within images, and images within targets, and speak of the images shown, not of
    others that the recipe could make; the baseline is chosen and measured anew with its own trial noise. ``p_value``
    tests a target against that baseline, ``p_every_image`` against every natural image, the truly best one included,
    which costs power where there are many and few repeats of each; the rate of false discoveries is held at .05 within
    each family (``significant``, ``significant_every_image``).

    Parameters
    ----------
    stimuli : StimulusSet
        Synthesized images with the columns ``objective`` and ``target_site``, as saved; with a column ``base``, the
        image that each was made from is a further baseline where it was recorded.
    reference : StimulusSet
        Natural images; a column ``family`` divides them into families, each with baselines of its own.
    recordings : SiteRecordings
        Responses to the natural images, and to the synthesized ones if they were shown; without any of the latter the
        report holds forecasts only.
    drivers : sequence of SiteModel or Ensemble
        Models that made the images; the sites of the first are the population of a `OneHot` that names none.
    validators : sequence of SiteModel or Ensemble
        Models that did not: fitted on other images, with another mapping or network.
    calibration : Calibration, optional
        Maps predictions to what is achieved; without it the columns ``forecast`` are missing numbers.
    seed : int
        Seed of the splits and of the resampling.
    device : str or torch.device, optional
        Where the models predict, and from where they return; the best there is by default.

    Returns
    -------
    ControlReport
        Tables and summary.

    Raises
    ------
    ValueError
        When columns, sites or stimuli are missing, an objective measures layers or images and not sites, or fewer than
        two repeats of the natural images were recorded.

    References
    ----------
    Bashivan, Kar & DiCarlo, Science 2019, for the two settings.

    Examples
    --------
    >>> report = evaluate_control(  # doctest: +SKIP
    ...     made.stimuli, reference=natural, recordings=recorded, drivers=[driver], validators=[judge]
    ... )
    >>> report.targets[["target_site", "gain", "gain_low", "gain_high", "significant"]]  # doctest: +SKIP
    """
    if not drivers:
        raise ValueError("no driver was given; name at least one model in drivers=[...]")
    objectives = recorded_scores.judged_objectives(stimuli, drivers[0].site_ids)
    natural = recordings.align(reference, extra="drop")
    natural.check_usable()
    shown = set(recordings.stimulus_ids) & set(stimuli.stimulus_ids)  # some but not all is an error, not a forecast
    achieved = recordings.align(stimuli, extra="drop") if shown else None
    scale = recorded_scores.recorded_scale(natural)
    baselines = natural_baselines(natural, objectives, scale, seed)

    images = stimuli.table[["stimulus_id", "objective", "target_site"]].copy()
    named = images["target_site"].notna()  # a pattern has no one target; a missing name must not drop it from the table
    images["target_site"] = images["target_site"].astype(object).where(named, "")
    images["family"] = [objective.family for objective in objectives]
    add_forecasts(images, stimuli, objectives, drivers, validators, calibration, scale, best_device(device))
    images["best_natural"] = [baselines[objective].best for objective in objectives]
    images["best_natural_upper"] = [baselines[objective].upper for objective in objectives]
    trials = recorded_scores.half_of_trials(natural)
    images[["achieved", "achieved_low", "achieved_high"]] = np.nan
    replicates = np.full((len(images), statistics.REPLICATES), np.nan)
    if achieved is not None:
        images["achieved"] = recorded_scores.achieved_scores(achieved, objectives, scale, trials, seed)
        replicates = recorded_scores.image_replicates(achieved, objectives, scale, images["achieved"].to_numpy(), seed)
        rows = zip(images["family"], replicates, images["achieved"], strict=True)
        found = [ends(family, values, value) for family, values, value in rows]
        once = recorded_scores.fewest_repeats(achieved, objectives, scale) < 2
        images[["achieved_low", "achieved_high"]] = np.where(once[:, None], np.nan, found)
    if "base" in stimuli.table:
        images["base_achieved"] = of_bases(stimuli, recordings, objectives, scale, trials, seed)

    targets = per_target(images)
    add_baselines(targets, images, objectives, baselines)
    add_statistics(targets, images, objectives, baselines, replicates, achieved, scale, seed)
    texts = dict(zip(images["objective"], objectives, strict=True))
    families = reference.table["family"] if "family" in reference.table else ["natural"] * len(reference)
    return ControlReport(
        images,
        targets,
        summarize(images, targets, len(reference), seed),
        stimuli,
        reference,
        {text: natural.stimulus_ids[baselines[objective].image] for text, objective in texts.items()},
        family_baselines({text: (each, baselines[each]) for text, each in texts.items()}, list(families)),
        natural.mean(),
        None if achieved is None else achieved.mean(),
        tuple(natural.site_ids),
        natural.unit,
    )
