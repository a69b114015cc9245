"""Images for spectral tuning: as a tensor where the network is, and their width in degrees."""

from __future__ import annotations

import torch
from torch import Tensor

from neural_fits.image_size import require_image_size, same_size_deg
from neural_fits.inspection._images import images_for
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet


def width_deg(network: object, images: Tensor | StimulusSet, size_deg: float | None) -> float:
    """Return the width of the images in degrees, from whoever knows it; they must agree."""
    known = [] if size_deg is None else [float(size_deg)]
    if isinstance(network, SiteModel | Ensemble):
        info = network.info
        if isinstance(images, StimulusSet):
            require_image_size(images, info.size_px, info.size_deg)
        known.append(info.size_deg)
    elif isinstance(images, StimulusSet):
        known.append(images.size_deg)
    if not known or not known[0] > 0:
        raise ValueError(
            f"size_deg is {size_deg}: cycles per degree need the width of the images in degrees; give size_deg, or the "
            "images as a StimulusSet"
        )
    if not same_size_deg(known[0], known[-1]):
        raise ValueError(
            f"size_deg is {known[0]:g}, but the model or the images say {known[-1]:g} deg; leave size_deg out"
        )
    return known[-1]


def checked_images(images: Tensor | StimulusSet, network: object) -> Tensor:
    """Return images (image, channel, height, width) as floats, where the network is."""
    given = torch.from_numpy(images.images()) if isinstance(images, StimulusSet) else images
    given = images_for(network, given)
    if len(given) < 3 or min(given.shape[-2:]) < 4:
        raise ValueError(
            f"images have shape {tuple(given.shape)}; expected at least three (image, channel, height, width) of 4 x 4 "
            "px or more (signals have perturb_signals)"
        )
    return given
