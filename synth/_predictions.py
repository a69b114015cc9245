"""What fitted models say of images, and how well they did before.

Called by `judges`, `calibration_table` and `_control_forecasts`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from neural_fits.fit import best_device
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet

Model = SiteModel | Ensemble


def predict_on(model: Model, stimuli: StimulusSet, device: str | torch.device | None) -> NDArray[np.float32]:
    """Predict on a device and leave the model where it was."""
    home = next(model.buffers()).device
    try:
        return model.to(best_device(device)).predict(stimuli)
    finally:
        model.to(home)


def held_out_r(models: Sequence[Model]) -> pd.Series:
    """Return the mean correlation with held-out images by site, over the models that were scored."""
    known = [model.held_out_scores()["r"] for model in models if model.scores is not None]
    return pd.concat(known).groupby(level=0).mean() if known else pd.Series(dtype=float)
