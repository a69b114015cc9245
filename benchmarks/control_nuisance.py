"""What a rig does to an image, and what is left of its control: read by ``control.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from neural_fits import SimulatedBrain
from stimuli import StimulusSet
from synth.preconditioning import gaussian_blur

NUISANCES = {
    "blur_1px": lambda images: gaussian_blur(images, torch.ones(len(images)), 1.0),
    "shift_1px": lambda images: torch.roll(images, (1, 1), (2, 3)),
    "contrast_80": lambda images: 0.5 + 0.8 * (images - 0.5),
    "gamma_1.2": lambda images: images**1.2,
}


def sensitivity(brain: SimulatedBrain, shown: StimulusSet) -> dict[str, Any]:
    """Return the median over stretch images of the response of their target after a nuisance, over that before."""
    rows = np.flatnonzero(shown.table["family"] == "stretch")
    images = torch.from_numpy(shown.images(rows))
    targets = [brain.site_ids.index(site) for site in shown.table["target_site"].iloc[rows]]

    def of_targets(images: Tensor) -> np.ndarray:
        return brain(images)[range(len(rows)), targets].numpy()

    plain = of_targets(images)
    kept = {name: float(np.median(of_targets(change(images)) / plain)) for name, change in NUISANCES.items()}
    return {"kept_after": {name: round(value, 3) for name, value in kept.items()}}
