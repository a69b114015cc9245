"""The tables of a control report: rows of targets from rows of images.

In: scores, baselines and replicates of images. Out: means, baselines, gains, intervals, significance. Called by
`evaluate_control`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits.recordings import SiteRecordings
from stimuli import StimulusSet
from synth import control_statistics as statistics
from synth._recorded_scores import RATIO_FAMILIES, achieved_scores, fewest_repeats
from synth.baselines import NaturalBaseline
from synth.objectives import Objective, SiteScale


def of_bases(
    stimuli: StimulusSet,
    recordings: SiteRecordings,
    objectives: list[Objective],
    scale: SiteScale,
    trials: int,
    seed: int,
) -> NDArray[np.float64]:
    """Score the recorded responses to the images that these were made from; NaN where there are none."""
    bases = stimuli.table["base"].to_numpy(dtype=object)
    known = set(recordings.stimulus_ids)
    rows = [row for row, base in enumerate(bases) if base in known]
    values = np.full(len(bases), np.nan)
    if not rows:
        return values
    names = list(dict.fromkeys(bases[rows]))
    recorded = recordings.select_sites(scale.site_ids).select_stimuli(names)
    for objective in dict.fromkeys(objectives[row] for row in rows):
        found = achieved_scores(recorded, [objective] * len(names), scale, trials, seed)
        for row in rows:
            if objectives[row] == objective:
                values[row] = found[names.index(bases[row])]
    return values


def per_target(images: pd.DataFrame) -> pd.DataFrame:
    values = ["forecast_driver", "forecast_validator", "forecast", "forecast_low", "forecast_high"]
    rows = images.copy()
    if rows["achieved"].notna().any():  # forecasts are averaged over the images that were measured
        rows.loc[rows["achieved"].isna(), values] = np.nan
    values += ["best_natural", "best_natural_upper", "achieved"]
    if "base_achieved" in rows:
        rows["achieved_where_base"] = rows["achieved"].where(rows["base_achieved"].notna())
        values += ["base_achieved", "achieved_where_base"]
    rows["flagged"] = rows["flag"] != ""
    grouped = rows.groupby(["family", "target_site", "objective"], sort=False)
    targets = grouped[values].mean().reset_index()
    targets["images"] = grouped.size().to_numpy()
    targets["flagged"] = grouped["flagged"].sum().to_numpy()
    return targets


def ends(family: str, replicates: NDArray[np.float64], center: float) -> tuple[float, float]:
    """Return the interval of a score; a probability stays one."""
    low, high = statistics.interval(replicates, center)
    return (max(low, 0.0), min(high, 1.0)) if family == "ohp" else (low, high)


def _gain(family: str, achieved: Any, baseline: Any) -> Any:
    """Return ratio - 1 over a positive baseline, or the difference in score."""
    if family not in RATIO_FAMILIES:
        return achieved - baseline
    return achieved / np.where(np.asarray(baseline) > 0, baseline, np.nan) - 1


def add_baselines(
    targets: pd.DataFrame,
    images: pd.DataFrame,
    objectives: list[Objective],
    baselines: dict[Objective, NaturalBaseline],
) -> None:
    found = dict(zip(images["objective"], objectives, strict=True))
    mine = [baselines[found[text]] for text in targets["objective"]]
    targets["best5_natural"] = [baseline.best5 for baseline in mine]
    targets["p99_natural"] = [baseline.p99 for baseline in mine]
    measured = targets["achieved"].notna()
    pairs = list(zip(targets["family"], targets["achieved"], targets["best_natural"], strict=True))
    targets["gain"] = [float(_gain(*pair)) for pair in pairs]
    for name, against in (
        ("beyond", "best_natural"),
        ("beyond_upper", "best_natural_upper"),
        ("beyond_best5", "best5_natural"),
        ("beyond_p99", "p99_natural"),
    ):
        targets[name] = (targets["achieved"] > targets[against]).where(measured)
    if "base_achieved" in targets:
        compared = zip(targets["family"], targets.pop("achieved_where_base"), targets["base_achieved"], strict=True)
        targets["gain_over_base"] = [float(_gain(*pair)) for pair in compared]


def add_statistics(
    targets: pd.DataFrame,
    images: pd.DataFrame,
    objectives: list[Objective],
    baselines: dict[Objective, NaturalBaseline],
    replicates: NDArray[np.float64],
    achieved: SiteRecordings | None,
    scale: SiteScale,
    seed: int,
) -> None:
    """Add intervals, p-values and significance."""
    names = ["achieved_low", "achieved_high", "gain_low", "gain_high", "p_value", "p_every_image"]
    found = np.full((len(targets), len(names)), np.nan)
    repeats = None if achieved is None else fewest_repeats(achieved, objectives, scale)
    for row, (text, family, site) in enumerate(targets[["objective", "family", "target_site"]].to_numpy()):
        same = (images["objective"] == text) & (images["target_site"] == site) & images["achieved"].notna()
        mine = np.flatnonzero(same)
        freedom = 0 if repeats is None else max(int((repeats[mine] - 1).sum()), len(mine) - 1)
        if freedom < 1:
            continue
        rng = np.random.default_rng([seed, 2, row])
        values = statistics.target_replicates(replicates[mine], rng)
        baseline, mean = baselines[objectives[mine[0]]], float(targets["achieved"].iloc[row])
        pooled = statistics.pooled_variance(baseline.scores, baseline.variance)
        natural = statistics.baseline_replicates(baseline.scores, pooled, len(values), rng)
        natural += baseline.best - natural.mean()
        with np.errstate(invalid="ignore"):
            gains = _gain(family, values - values.mean() + mean, natural)
        found[row, :2] = ends(family, values, mean)
        found[row, 2:4] = statistics.interval(gains, targets["gain"].iloc[row])
        variances = np.fmax(pooled, baseline.variance)
        found[row, 4] = statistics.beyond_baseline(mean - baseline.best, values.var() + natural.var(), freedom)
        found[row, 5] = statistics.beyond_every_image(mean, values.var(), freedom, baseline.scores, variances)
    targets[names] = found
    for p, name in (("p_value", "significant"), ("p_every_image", "significant_every_image")):
        sure = statistics.discoveries(targets[p], list(targets["family"]))
        targets[name] = pd.Series(sure, index=targets.index).where(targets[p].notna())
