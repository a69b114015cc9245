"""What a model predicts for gratings, beside the tuning that small changes of natural images show.

In: a model. Out: responses by spatial frequency and orientation. Called by `site_inspection`.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray

from neural_fits.site_model import Ensemble, SiteModel
from stimuli import draw
from stimuli.gratings import Grating

#: directions of modulation in degrees
ORIENTATIONS = tuple(22.5 * k for k in range(8))


def octaves(model: SiteModel | Ensemble) -> NDArray[np.float64]:
    """Return edges from the Nyquist frequency down to one cycle an image, in cycles per degree."""
    nyquist = model.info.size_px[1] / 2 / model.info.size_deg
    count = max(1, int(np.log2(model.info.size_px[1] / 2)))
    edges: NDArray[np.float64] = nyquist / np.exp2(np.arange(count, -1, -1))
    return edges


def grating_responses(model: SiteModel | Ensemble, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return responses to gratings minus that to gray (frequency, orientation, site), mean over phases."""
    height, width = model.info.size_px
    if height != width:
        raise ValueError(f"gratings are drawn square, the model takes images of {height} x {width} px")
    middle, angles, phases = np.sqrt(edges[1:] * edges[:-1]), ORIENTATIONS, (0.0, 90.0, 180.0, 270.0)
    shape = {"frequency_cpd": middle.tolist(), "orientation_deg": angles, "phase_deg": phases}
    wanted = [Grating(**dict(zip(shape, each, strict=True))) for each in itertools.product(*shape.values())]
    drawn = draw(wanted, size_deg=model.info.size_deg, size_px=width, channels=model.info.channels)
    found = model.predict(drawn).reshape(len(middle), len(angles), len(phases), -1).mean(2)
    gray = torch.full((1, model.info.channels, height, width), 0.5, device=next(model.buffers()).device)
    difference: NDArray[np.float64] = found.astype(np.float64) - model(gray).cpu().numpy()[0]
    return difference
