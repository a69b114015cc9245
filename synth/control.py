"""Did it work? Achieved control beside the forecasts, on recorded responses.

In: synthesized and natural stimuli, drivers, validators, recordings of both sets. Out: a `ControlReport` with one row
per image and per target. Every prediction is made from the images as saved. Called by users, ``npc evaluate``, demo.
"""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from neural_fits.recordings import SiteRecordings
from neural_fits.scores import bootstrap_interval
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet
from stimuli.files import atomic_write
from synth.objectives import Objective, OneHot, SiteScale, Stretch, parse_objective

Model = SiteModel | Ensemble
_SPLITS = 20


@dataclass(frozen=True, eq=False)
class ControlReport:
    """Achieved control, forecasts and baselines.

    Parameters
    ----------
    images : DataFrame
        One row per synthesized image: objective, target, forecasts and achieved value.
    targets : DataFrame
        One row per objective: means over its images, baseline, gain.
    summary : dict
        Numbers over targets, one block for ``stretch`` and one for ``ohp``.
    stimuli, reference : StimulusSet
        The images judged and the natural images compared with.
    best_natural_ids : dict
        For every objective, as written in the tables, the natural image that serves as its baseline most often.
    """

    images: pd.DataFrame
    targets: pd.DataFrame
    summary: dict[str, Any]
    stimuli: StimulusSet
    reference: StimulusSet
    best_natural_ids: dict[str, str]

    def to_html(self, path: str | Path) -> Path:
        """Write a self-contained page: pictures, forecast against achieved, tables.

        Parameters
        ----------
        path : str or Path
            File to write.

        Returns
        -------
        Path
            The file.
        """
        from synth.report import render_report

        return atomic_write(path, render_report(self))

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
    seed: int = 0,
) -> ControlReport:
    """Compare what synthesized images do with what natural images do, and with what was forecast.

    *Stretch*: mean response of the target site to the images made for it, over images and repeats, against the best
    natural image. *One-hot*: ``softmax_target(z)`` over the population, with responses z-scored over natural images,
    against the natural image that scores best. Either way the best natural image is chosen on one random half of the
    repeats and measured on the other (mean over splits and both directions), because the maximum of many noisy means is
    biased upward. One-hot scores of synthesized images are taken on at most as many trials, so that noise enters both
    alike. Noise also hides the truly best image from the choosing half, so this baseline is a lower bound and gains
    are upper bounds; ``best_natural_upper``, the maximum over the means of all repeats, is biased upward and bounds it
    from above. The summary counts targets above either.

    Parameters
    ----------
    stimuli : StimulusSet
        Synthesized images with the columns ``objective`` and ``target_site``, as saved.
    reference : StimulusSet
        Natural images.
    recordings : SiteRecordings
        Responses to the natural images, and to the synthesized ones if they were shown; without any of the latter the
        report holds forecasts only.
    drivers : sequence of SiteModel or Ensemble
        Models that made the images; the sites of the first are the population of a `OneHot` that names none.
    validators : sequence of SiteModel or Ensemble
        Models that did not: fitted on other images, with another mapping or network.
    seed : int
        Seed of the splits.

    Returns
    -------
    ControlReport
        Tables and summary.

    Raises
    ------
    ValueError
        When columns, sites or stimuli are missing, or fewer than two repeats of the natural images were recorded.

    References
    ----------
    Bashivan, Kar & DiCarlo, Science 2019, for the two settings.
    """
    if not drivers:
        raise ValueError("no driver was given; name at least one model in drivers=[...]")
    objectives = _objectives(stimuli, drivers[0].site_ids)
    natural = recordings.align(reference, extra="drop")
    natural.check_usable()
    shown = set(recordings.stimulus_ids) & set(stimuli.stimulus_ids)  # some but not all is an error, not a forecast
    achieved = recordings.align(stimuli, extra="drop") if shown else None
    scale = _recorded_scale(natural)
    forecasts = {
        "driver": [_forecast(model, stimuli, objectives) for model in drivers],
        "validator": [_forecast(model, stimuli, objectives) for model in validators],
    }
    images = stimuli.table[["stimulus_id", "objective", "target_site"]].copy()
    images["family"] = [objective.family for objective in objectives]
    for role, values in forecasts.items():
        images[f"forecast_{role}"] = np.mean(values, axis=0) if values else np.nan
    baseline, best = _best_natural(natural, list(dict.fromkeys(objectives)), scale, seed)
    images["best_natural"] = [baseline[objective] for objective in objectives]
    upper = {objective: float(np.nanmax(_score(objective, natural.mean(), scale))) for objective in baseline}
    images["best_natural_upper"] = [upper[objective] for objective in objectives]
    counts = natural.n_repeats[natural.n_repeats > 0]
    trials = max(int(np.median(counts)) // 2, 1)  # as many as a half of the natural ones holds
    images["achieved"] = np.nan if achieved is None else _achieved(achieved, objectives, scale, trials, seed)
    targets = _per_target(images)
    summary = _summarize(targets, len(reference), seed)
    best_ids = {text: best[key] for text, key in zip(images["objective"], objectives, strict=True)}
    return ControlReport(images, targets, summary, stimuli, reference, best_ids)


def _objectives(stimuli: StimulusSet, everything: tuple[str, ...]) -> list[Objective]:
    table = stimuli.table
    for column in ("objective", "target_site"):
        if column not in table:
            raise ValueError(f"the stimulus set has no column {column!r}; give a set made by synthesize")
    parsed = [parse_objective(text) for text in table["objective"]]
    known = [objective for objective in parsed if isinstance(objective, (Stretch, OneHot))]
    if len(known) != len(parsed):
        raise ValueError("control is defined for Stretch and OneHot; select those images with stimuli.select(...)")
    # One-hot control is scored as a probability whatever form was climbed, and over the same sites in every model and
    # in the recordings, which may hold more.
    return [
        OneHot(objective.site, objective.population or everything, objective.temperature, form="softmax")
        if isinstance(objective, OneHot)
        else objective
        for objective in known
    ]


def _recorded_scale(natural: SiteRecordings) -> SiteScale:
    mean = natural.mean()
    return SiteScale(
        tuple(natural.site_ids), torch.from_numpy(np.nanmean(mean, axis=0)), torch.from_numpy(np.nanstd(mean, axis=0))
    )


def _score(objective: Objective, responses: NDArray[np.floating], scale: SiteScale) -> NDArray[np.float64]:
    return objective.score(torch.from_numpy(np.asarray(responses, dtype=np.float64)), scale).numpy()


def _forecast(model: Model, stimuli: StimulusSet, objectives: list[Objective]) -> NDArray[np.float64]:
    responses, scale = model.predict(stimuli), SiteScale.of(model)
    return np.array(
        [_score(objective, responses[k : k + 1], scale)[0] for k, objective in enumerate(objectives)], dtype=float
    )


def _best_natural(
    natural: SiteRecordings, objectives: list[Objective], scale: SiteScale, seed: int
) -> tuple[dict[Objective, float], dict[Objective, str]]:
    values: dict[Objective, list[float]] = {objective: [] for objective in objectives}
    chosen: dict[Objective, list[int]] = {objective: [] for objective in objectives}
    for split in range(_SPLITS):
        halves = natural.halves(seed + split)
        for choose, measure in (halves, halves[::-1]):
            for objective in objectives:
                scores, held = _score(objective, choose, scale), _score(objective, measure, scale)
                usable = np.isfinite(scores) & np.isfinite(held)
                if not usable.any():
                    raise ValueError(
                        f"no natural image has two repeats at every site of {objective!r}, or one of these sites never "
                        "varies; the best natural image must be chosen on one half of the repeats and measured on the "
                        "other: record more repeats, or name a smaller population"
                    )
                best = int(np.where(usable, scores, -np.inf).argmax())
                values[objective].append(float(held[best]))
                chosen[objective].append(best)
    names = natural.stimulus_ids
    return (
        {objective: float(np.mean(values[objective])) for objective in objectives},
        {objective: names[int(np.bincount(chosen[objective]).argmax())] for objective in objectives},
    )


def _achieved(
    recorded: SiteRecordings, objectives: list[Objective], scale: SiteScale, trials: int, seed: int
) -> NDArray[np.float64]:
    means = [_mean_of_trials(recorded.responses, trials, seed + split) for split in range(2 * _SPLITS)]
    values = []
    for k, objective in enumerate(objectives):
        shown = [recorded.mean()] if isinstance(objective, Stretch) else means
        values.append(float(np.mean([_score(objective, part[k : k + 1], scale)[0] for part in shown])))
    return np.array(values)


def _mean_of_trials(responses: NDArray[np.float32], trials: int, seed: int) -> NDArray[np.float32]:
    """Return means (image, site) over that many random trials, fewer where fewer were recorded.

    The order of trials is shared by the sites; a site that lacks some takes its next ones.
    """
    keys = np.random.default_rng(seed).random(responses.shape[:2])[:, :, None]
    chosen = np.argsort(np.where(np.isnan(responses), np.inf, keys), axis=1)[:, :trials]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an image that a site was never shown stays NaN
        return np.nanmean(np.take_along_axis(responses, chosen, axis=1), axis=1)


def _per_target(images: pd.DataFrame) -> pd.DataFrame:
    keys, values = ["family", "target_site", "objective"], ["best_natural", "best_natural_upper", "achieved"]
    forecasts = ["forecast_driver", "forecast_validator"]
    rows = images.copy()
    if rows["achieved"].notna().any():  # forecasts are averaged over the images that were measured
        rows.loc[rows["achieved"].isna(), forecasts] = np.nan
    grouped = rows.groupby(keys, sort=False)
    targets = grouped[forecasts + values].mean().reset_index()
    targets["images"] = grouped.size().to_numpy()
    positive = targets["best_natural"].where(targets["best_natural"] > 0)
    measured = targets["achieved"].notna()
    targets["gain"] = targets["achieved"] / positive - 1
    targets["beyond"] = (targets["achieved"] > targets["best_natural"]).where(measured)
    targets["beyond_upper"] = (targets["achieved"] > targets["best_natural_upper"]).where(measured)
    return targets


def _summarize(targets: pd.DataFrame, natural_images: int, seed: int) -> dict[str, Any]:
    names = {
        "stretch": ("fraction_beyond_best_natural", "median_gain"),
        "ohp": ("fraction_improved", "median_improvement"),
    }
    summary: dict[str, Any] = {}
    for family, (fraction, gain) in names.items():
        rows = targets[targets["family"] == family]
        # A target driven to zero or below was forecast infinitely too high; dropping it would flatter the forecast.
        achieved = rows["achieved"].where(rows["achieved"].isna() | (rows["achieved"] > 0), 0.0)
        gains = rows["gain"].dropna().to_numpy()
        summary[family] = {
            "targets": len(rows),
            "targets_measured": int(rows["achieved"].notna().sum()),
            "images": int(rows["images"].sum()),
            "natural_images": natural_images,
            fraction: rounded(rows["beyond"].dropna().astype(float).mean()),
            f"{fraction}_upper": rounded(rows["beyond_upper"].dropna().astype(float).mean()),
            gain: rounded(np.median(gains) if len(gains) else np.nan),
            f"{gain}_interval": [rounded(end) for end in bootstrap_interval(gains, seed)] if len(gains) > 1 else None,
            "forecast_over_achieved_driver": rounded((rows["forecast_driver"] / achieved).median()),
            "forecast_over_achieved_validator": rounded((rows["forecast_validator"] / achieved).median()),
        }
    return summary


def rounded(value: float) -> float | None:
    """Return a number as summaries hold it.

    Parameters
    ----------
    value : float
        Any number.

    Returns
    -------
    float or None
        Four decimals; None, JSON's null, where it is not finite.

    Examples
    --------
    >>> rounded(0.123456), rounded(float("nan"))
    (0.1235, None)
    """
    return None if not np.isfinite(value) else round(float(value), 4)
