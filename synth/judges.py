"""Second opinions on images: every judge's score, where judges disagree, and which images to keep.

In: synthesized images and fitted models. A driver made the images and believes in them; a validator (other images,
other mapping, other network) did not. Out: tables, flags, and fewer but better images. Called by `evaluate_control`,
``npc synth`` and users.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet
from synth._objective_sites import read_columns, require_sites, targeted_columns
from synth._predictions import predict_on
from synth._recorded_scores import own_scores
from synth.objectives import Objective, SiteScale, parse_objective
from synth.synthesis import Synthesis

if TYPE_CHECKING:
    from synth.calibration import Calibration

Model = SiteModel | Ensemble

#: Driver and validator differ by more than this on 1 % of natural images that neither has seen, in standard deviations
#: of natural responses (two simulated brains of 16 sites, 91 crops of held-out photographs: 1.61 and 1.63).
NATURAL_DISAGREEMENT = 1.6


def judge_images(
    stimuli: StimulusSet,
    objectives: Sequence[Objective] | None,
    drivers: Sequence[Model],
    validators: Sequence[Model],
    device: str | torch.device | None = None,
) -> pd.DataFrame:
    """Let every model judge every image.

    Parameters
    ----------
    stimuli : StimulusSet
        The images, as saved.
    objectives : sequence of Objective or None
        The objective of each image; None reads the column ``objective`` of the set.
    drivers, validators : sequence of SiteModel or Ensemble
        The judges.
    device : str or torch.device, optional
        Where predictions are made; the best there is by default.

    Returns
    -------
    DataFrame
        One row an image: ``stimulus_id, objective, target_site``; for each judge ``driver_0_score`` (the objective's
        score on its predictions), ``driver_0_z`` (the target in standard deviations of natural responses; NaN without
        a target) and so on; ``score_mean, score_spread, z_mean, z_spread``: mean and standard deviation over judges.

    Raises
    ------
    ValueError
        When there is no judge, the column or an objective is missing, or an objective is not about sites.

    Examples
    --------
    >>> from neural_fits import SimulatedBrain, fit_sites
    >>> from stimuli import natural_photos
    >>> from synth.objectives import Stretch
    >>> natural = natural_photos(60, size_px=64)
    >>> brain = SimulatedBrain(natural, n_sites=2)
    >>> model = fit_sites(natural, brain.record(natural), backbone="efficientnet-lite0", layer="blocks.2")
    >>> judged = judge_images(natural.select([0, 1]), [Stretch("site00")] * 2, [model], [])
    >>> judged.shape, bool((judged["z_spread"] == 0).all())
    ((2, 9), True)
    """
    judges = [(f"driver_{k}", model) for k, model in enumerate(drivers)]
    judges += [(f"validator_{k}", model) for k, model in enumerate(validators)]
    if not judges:
        raise ValueError("no judge was given; name at least one model in drivers or validators")
    asked = _asked(stimuli, objectives)
    table = pd.DataFrame(
        {
            "stimulus_id": stimuli.stimulus_ids,
            "objective": [repr(objective) for objective in asked],
            "target_site": [objective.target for objective in asked],
        }
    )
    for name, model in judges:
        responses, scale = predict_on(model, stimuli, device), SiteScale.of(model)
        table[f"{name}_score"] = own_scores(asked, responses, scale)
        mean, std = scale.mean.numpy(), scale.std.numpy()
        table[f"{name}_z"] = [
            (row[column] - mean[column]) / std[column] if objective.target else np.nan
            for objective, row in zip(asked, responses, strict=True)
            for column in [scale.index(objective.target) if objective.target else 0]
        ]
    for kind in ("score", "z"):
        values = table[[f"{name}_{kind}" for name, _ in judges]]
        table[f"{kind}_mean"], table[f"{kind}_spread"] = values.mean(axis=1), values.std(axis=1, ddof=0)
    return table


def disagreement_flags(
    driver: NDArray[np.floating],
    validator: NDArray[np.floating],
    scale: SiteScale,
    objectives: Sequence[Objective],
    limit: float = NATURAL_DISAGREEMENT,
) -> list[str]:
    """Say for each image whether its judges disagree about what it does.

    Two rules. (1) At a site that the image was made for, driver and validator differ by more than `limit` standard
    deviations of natural responses, which on natural images neither has seen happens once in a hundred times, *and* the
    nearer to the natural mean of the two, or the other sign, is less than half of the other. A driver promises somewhat
    too much on every image that it made, so the difference alone would flag nearly all. (2) The image was made for one
    site against others (`OneHot`, `Contrast`), the driver sees its target ahead of them, and the validator sees another
    site ahead by more than `limit`.

    Parameters
    ----------
    driver, validator : ndarray, (image, site)
        Mean predictions of the drivers and of the validators, in the recording's unit; NaN where there is none.
    scale : SiteScale
        Names of the sites (columns), mean and standard deviation of natural responses.
    objectives : sequence of Objective
        The objective of every image.
    limit : float
        The difference that natural images hardly ever show.

    Returns
    -------
    list of str
        Words for each image, empty where judges agree or there is one only.

    Raises
    ------
    ValueError
        When shapes do not fit.

    Examples
    --------
    >>> from synth.objectives import Stretch
    >>> scale = SiteScale(("a",), torch.zeros(1), torch.ones(1))
    >>> disagreement_flags(np.array([[6.1], [6.1]]), np.array([[1.2], [4.9]]), scale, [Stretch("a")] * 2)
    ['judges disagree on a: driver +6.1 sd, validator +1.2 sd', '']
    """
    shape = (len(objectives), len(scale.site_ids))
    for name, values in (("driver", driver), ("validator", validator)):
        if np.shape(values) != shape:
            raise ValueError(
                f"{name} has shape {np.shape(values)}; expected {shape}, one row an image and one column a site"
            )
    mean, std = (part.double().cpu().numpy() for part in (scale.mean, scale.std))
    d, v = ((np.asarray(values, dtype=float) - mean) / std for values in (driver, validator))
    return [_flag(objective, d[k], v[k], scale, limit) for k, objective in enumerate(objectives)]


def _flag(objective: Objective, d: NDArray[np.float64], v: NDArray[np.float64], scale: SiteScale, limit: float) -> str:
    columns = targeted_columns(objective, scale)
    sizes = np.sort(np.abs([d[columns], v[columns]]), axis=0)
    opposed = (d[columns] * v[columns] < 0) | (sizes[0] < sizes[1] / 2)
    difference = np.where(opposed, np.abs(d[columns] - v[columns]), 0.0)
    if columns and difference.max() > limit:
        worst = columns[int(difference.argmax())]
        return f"judges disagree on {scale.site_ids[worst]}: driver {d[worst]:+.1f} sd, validator {v[worst]:+.1f} sd"
    others = [k for k in read_columns(objective, scale) if k not in columns]
    if objective.family in ("ohp", "contrast") and others and not np.isnan(v[others]).all():
        target, rival = columns[0], others[int(np.nanargmax(v[others]))]
        if d[target] > d[others].max() and v[rival] - v[target] > limit:
            return (
                f"judges disagree on selectivity: validator {scale.site_ids[rival]} {v[rival]:+.1f} sd, "
                f"{scale.site_ids[target]} {v[target]:+.1f} sd"
            )
    return ""


def split_judges(count: int, seed: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Say which of several validators select images and which forecast what the selected ones do.

    Parameters
    ----------
    count : int
        Number of validators, at least 1.
    seed : int
        Seed of the draw.

    Returns
    -------
    selectors, forecasters : tuple of int
        Places in the list of validators; a single one does both.

    Raises
    ------
    ValueError
        When there is none.

    Examples
    --------
    >>> selectors, forecasters = split_judges(3)
    >>> len(selectors), sorted(selectors + forecasters)
    (2, [0, 1, 2])
    """
    if count < 1:
        raise ValueError("no validator was given; images are selected by at least one model that did not make them")
    order = [int(k) for k in np.random.default_rng(seed).permutation(count)]
    half = math.ceil(count / 2)
    return tuple(sorted(order[:half])), tuple(sorted(order[half:] or order))


def keep_best(
    made: Synthesis,
    validators: Sequence[Model],
    keep: int,
    seed: int = 0,
    *,
    calibration: Calibration | None = None,
    device: str | torch.device | None = None,
) -> Synthesis:
    """Keep the images of each objective that judges score highest, and forecast them without the selection's bias.

    The best of several noisy scores is too high: where a judge's score is truth plus error, images are selected for
    both. With two or more validators one half of them selects (`split_judges`) and the other half, whose errors did not
    select, forecasts; give only those to `evaluate_control`. A single validator's forecast is moved toward the mean of
    its objective's n candidates, ``m + b (s - m)``, where b is the share of its preference that is real: the slope of
    the achieved on its predictions among images of one target, from the calibration, or else of the driver's scores on
    its own over all candidates, ``sum (d - m_d) (s - m) / sum (s - m)^2``, which estimates the same where the errors of
    driver and validator are independent and the driver's score follows the truth one for one.

    Parameters
    ----------
    made : Synthesis
        The candidates, several of each objective (and base image, where there are some).
    validators : sequence of SiteModel or Ensemble
        Models that did not make the images.
    keep : int
        Images kept of each objective (and base image).
    seed : int
        Seed of the split of the validators.
    calibration : Calibration, optional
        Gives the slope of a single validator.
    device : str or torch.device, optional
        Where predictions are made; the best there is by default.

    Returns
    -------
    Synthesis
        The kept images in their order, with the columns ``candidates`` (how many there were), ``selected_by`` (places
        of the validators that selected), ``judge_score`` (their mean score) and ``judge_forecast`` (the score without
        the selection's bias), and their traces.

    Raises
    ------
    ValueError
        When fewer candidates than `keep` were made, there is no validator, or an objective is not about sites.
    """
    stimuli, table = made.stimuli, made.stimuli.table
    asked = _asked(stimuli, None)
    # Images of an objective compete, wherever they started; those that change a given image compete for each of these.
    columns = ["objective", "base"] if made.config.start == "base" and "base" in table else ["objective"]
    keys = table[columns].astype(str).agg("\n".join, axis=1)
    place = pd.factorize(keys)[0]
    counts = np.bincount(place)
    if not 1 <= keep <= counts.min():
        raise ValueError(
            f"keep is {keep}; expected a number from 1 to the {counts.min()} images there are of an objective: make "
            "more of them (seeds)"
        )
    selectors, forecasters = split_judges(len(validators), seed)
    judged = np.array([own_scores(asked, predict_on(m, stimuli, device), SiteScale.of(m)) for m in validators])
    score = judged[list(selectors)].mean(0)
    if forecasters != selectors:
        forecast = judged[list(forecasters)].mean(0)
    else:
        center = (np.bincount(place, score) / counts)[place]
        forecast = center + _real_share(made, asked, score, place, calibration) * (score - center)
    order = np.lexsort((-score, place))
    rank = np.arange(len(order)) - np.searchsorted(place[order], place[order])
    kept = np.sort(order[rank < keep])
    best = stimuli.with_columns(
        candidates=counts[place].tolist(),
        selected_by=",".join(map(str, selectors)),
        judge_score=score.tolist(),
        judge_forecast=forecast.tolist(),
    ).select([int(k) for k in kept])
    trace = made.trace[made.trace["stimulus_id"].isin(best.stimulus_ids)].reset_index(drop=True)
    return dataclasses.replace(made, stimuli=best, trace=trace)


def _real_share(
    made: Synthesis,
    asked: Sequence[Objective],
    score: NDArray[np.float64],
    place: NDArray[np.intp],
    calibration: Calibration | None,
) -> NDArray[np.float64]:
    """Return for each image the part of the judge's preference that is expected to be real, from 0 to 1."""
    if calibration is not None and calibration.within_slope is not None:
        return np.full(len(score), calibration.within_slope)
    scores_of = made.trace.groupby("stimulus_id")["score"]
    kept = scores_of.last() if made.config.keep == "last" else scores_of.max()
    driver = kept.reindex(made.stimuli.stimulus_ids).to_numpy(dtype=float)
    frame = pd.DataFrame({"driver": driver, "judge": score, "place": place})
    inner = frame[["driver", "judge"]] - frame.groupby("place")[["driver", "judge"]].transform("mean")
    families = pd.Series([objective.family for objective in asked])
    products = (inner["driver"] * inner["judge"]).groupby(families).transform("sum")
    power = (inner["judge"] ** 2).groupby(families).transform("sum")
    return np.clip((products / power.where(power > 0)).fillna(0.0).to_numpy(), 0, 1)


def mean_prediction(
    models: Sequence[Model], stimuli: StimulusSet, sites: Sequence[str], device: str | torch.device | None = None
) -> NDArray[np.float64]:
    """Return what several models predict on average.

    Parameters
    ----------
    models : sequence of SiteModel or Ensemble
        The models.
    stimuli : StimulusSet
        The images.
    sites : sequence of str
        The sites wanted.
    device : str or torch.device, optional
        Where predictions are made; the best there is by default.

    Returns
    -------
    ndarray, (image, site)
        Responses in the recording's unit; NaN when there is no model.

    Raises
    ------
    ValueError
        When a model lacks a site.
    """
    if not models:
        return np.full((len(stimuli), len(sites)), np.nan)
    columns = [[SiteScale.of(model).index(site) for site in sites] for model in models]  # before the long work
    parts = [predict_on(model, stimuli, device)[:, own] for model, own in zip(models, columns, strict=True)]
    return np.mean(np.array(parts, dtype=np.float64), axis=0)


def _asked(stimuli: StimulusSet, objectives: Sequence[Objective] | None) -> list[Objective]:
    if objectives is None:
        if "objective" not in stimuli.table:
            raise ValueError("the stimulus set has no column 'objective'; give the objectives, one for each image")
        parsed = {text: parse_objective(text) for text in stimuli.table["objective"].unique()}
        objectives = [parsed[text] for text in stimuli.table["objective"]]
    if len(objectives) != len(stimuli):
        raise ValueError(f"{len(objectives)} objectives for {len(stimuli)} images; give one for each")
    require_sites(list(dict.fromkeys(objectives)))
    return list(objectives)
