"""What drivers, validators and the calibration forecast for every image, and whether they agree.

In: stimuli, models, objectives. Out: columns of the table of images. Called by `evaluate_control`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet
from synth._predictions import held_out_r, predict_on
from synth._recorded_scores import own_scores, part_of
from synth.objectives import Objective, SiteScale

if TYPE_CHECKING:
    from synth.calibration import Calibration

Model = SiteModel | Ensemble


def add_forecasts(
    images: pd.DataFrame,
    stimuli: StimulusSet,
    objectives: list[Objective],
    drivers: Sequence[Model],
    validators: Sequence[Model],
    calibration: Calibration | None,
    scale: SiteScale,
    device: torch.device,
) -> None:
    """Add what every role forecasts, each on its models' own scale, the calibrated forecast, and flags."""
    from synth.judges import disagreement_flags  # it needs synthesis, which this does not

    scale = part_of(scale, drivers[0].site_ids)
    means = {}
    for role, models in (("driver", drivers), ("validator", validators)):
        responses = [predict_on(model, stimuli, device) for model in models]
        values = [
            own_scores(objectives, predicted, SiteScale.of(model))
            for model, predicted in zip(models, responses, strict=True)
        ]
        images[f"forecast_{role}"] = np.mean(values, axis=0) if values else np.nan
        if values:
            columns = [_columns(predicted, model, scale) for model, predicted in zip(models, responses, strict=True)]
            means[role] = np.mean(columns, axis=0)
    driver = means["driver"]
    validator = means.get("validator", np.full_like(driver, np.nan))
    names = ["forecast", "forecast_low", "forecast_high"]
    images[names] = np.nan
    if calibration is not None:
        accuracy = {str(site): float(r) for site, r in held_out_r(drivers).dropna().items()}  # not of earlier drivers
        calibration = calibration.for_sites({**calibration.accuracy, **accuracy})
        images[names] = calibration.forecast(objectives, driver, validator, scale)[names].to_numpy()
    images["flag"] = disagreement_flags(driver, validator, scale, objectives) if validators else ""


def _columns(predicted: NDArray[np.float32], model: Model, scale: SiteScale) -> NDArray[np.float64]:
    """Return predictions in the order of the scale's sites, NaN where the model has none."""
    known = {site: k for k, site in enumerate(model.site_ids)}
    values = np.full((len(predicted), len(scale.site_ids)), np.nan)
    for column, site in enumerate(scale.site_ids):
        if site in known:
            values[:, column] = predicted[:, known[site]]
    return values
