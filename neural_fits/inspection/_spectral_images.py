"""Images for spectral tuning: as a tensor where the network is, and their width in degrees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet


def width_deg(network: object, images: Tensor | StimulusSet, size_deg: float | None) -> float:
    """Return the width of the images in degrees, from whoever knows it."""
    if size_deg is None and isinstance(images, StimulusSet):
        size_deg = images.size_deg
    if size_deg is None and isinstance(network, SiteModel | Ensemble):
        size_deg = network.info.size_deg
    if size_deg is None or not size_deg > 0:
        raise ValueError(
            f"size_deg is {size_deg}: cycles per degree need the width of the images in degrees; give size_deg, or the "
            "images as a StimulusSet"
        )
    return float(size_deg)


def checked_images(images: Tensor | StimulusSet, network: object) -> Tensor:
    """Return images (image, channel, height, width) as floats, where the network is."""
    given = torch.from_numpy(np.ascontiguousarray(images.images())) if isinstance(images, StimulusSet) else images
    if not isinstance(given, Tensor) or given.ndim != 4 or len(given) < 3 or min(given.shape[-2:]) < 4:
        came = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise ValueError(
            f"images are {came}; expected at least three (image, channel, height, width) of 4 x 4 px or more "
            "(signals have perturb_signals)"
        )
    if isinstance(network, nn.Module):
        place = next((each.device for each in [*network.parameters(), *network.buffers()]), given.device)
        given = given.to(place)
    return given.detach() if given.is_floating_point() else given.detach().float()
