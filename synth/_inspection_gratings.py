"""What a model predicts for gratings, beside the tuning that small changes of natural images show.

In: a model. Out: responses by spatial frequency and orientation. Called by `site_inspection`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neural_fits.inspection import grating_tuning
from neural_fits.site_model import Ensemble, SiteModel


def octaves(model: SiteModel | Ensemble) -> NDArray[np.float64]:
    """Return edges from the Nyquist frequency down to one cycle an image, in cycles per degree."""
    return grating_tuning.band_edges(model.info.size_px, model.info.size_deg)


def grating_responses(model: SiteModel | Ensemble, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return responses to gratings minus that to gray (frequency, orientation, site), mean over phases."""
    height, width = model.info.size_px
    if height != width:
        raise ValueError(f"gratings are drawn square, the model takes images of {height} x {width} px")
    place, info = next(model.buffers()).device, model.info
    return grating_tuning.grating_responses(
        lambda images: model(images.to(place)), edges, size_px=width, size_deg=info.size_deg, channels=info.channels
    )
