"""What models predicted beside what was recorded, as one table.

In: images that were shown, their recordings, drivers and validators. Out: rows for `calibration.fit_calibration`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from neural_fits.recordings import SiteRecordings
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet
from synth._objective_sites import require_sites, targeted_columns
from synth._predictions import held_out_r
from synth.judges import mean_prediction
from synth.objectives import Objective, SiteScale


def calibration_table(
    stimuli: StimulusSet,
    objectives: Sequence[Objective | None],
    recordings: SiteRecordings,
    drivers: Sequence[SiteModel | Ensemble],
    validators: Sequence[SiteModel | Ensemble],
    scale: SiteScale,
    *,
    device: str | torch.device | None = None,
) -> pd.DataFrame:
    """Set what models predicted beside what was recorded, for `fit_calibration`.

    No model may have been fitted on these images.

    Parameters
    ----------
    stimuli : StimulusSet
        Images that were shown: synthesized, or natural ones that no model has seen.
    objectives : sequence of Objective or None
        What each image was made for; None for a natural image.
    recordings : SiteRecordings
        Responses to them.
    drivers, validators : sequence of SiteModel or Ensemble
        Models that made the images, and models that did not.
    scale : SiteScale
        Sites to use, mean and standard deviation of their recorded natural responses.
    device : str or torch.device, optional
        Where predictions are made; the best there is by default.

    Returns
    -------
    DataFrame
        Columns ``site, image, target, driver_z, validator_z, achieved_z, r, group``; the group of an image is the
        names of its targets, and of a natural image its photograph.

    Raises
    ------
    ValueError
        When the number of objectives is not that of the images, or images or sites are missing.
    """
    if len(objectives) != len(stimuli):
        raise ValueError(
            f"{len(objectives)} objectives for {len(stimuli)} images; give one each, None for a natural image"
        )
    require_sites([objective for objective in dict.fromkeys(objectives) if objective is not None])
    sites, n = list(scale.site_ids), len(scale.site_ids)
    achieved = recordings.align(stimuli, extra="drop").select_sites(sites).mean()
    mean, std = (part.double().cpu().numpy() for part in (scale.mean, scale.std))
    targets = [[] if objective is None else targeted_columns(objective, scale) for objective in objectives]
    photographs = stimuli.table.get("photograph", pd.Series(stimuli.stimulus_ids))
    groups = [
        "+".join(sites[column] for column in columns) if columns else f"photograph {photograph}"
        for columns, photograph in zip(targets, photographs, strict=True)
    ]
    r = held_out_r(drivers).reindex(sites).to_numpy(dtype=float)
    table = {
        "site": np.tile(sites, len(stimuli)),
        "image": np.repeat(stimuli.stimulus_ids, n),
        "target": np.concatenate([np.isin(np.arange(n), columns) for columns in targets]),
        "driver_z": ((mean_prediction(drivers, stimuli, sites, device) - mean) / std).ravel(),
        "validator_z": ((mean_prediction(validators, stimuli, sites, device) - mean) / std).ravel(),
        "achieved_z": ((achieved - mean) / std).ravel(),
        "r": np.tile(r, len(stimuli)),
        "group": np.repeat(groups, n),
    }
    return pd.DataFrame(table)
