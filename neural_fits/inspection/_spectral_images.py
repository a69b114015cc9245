"""Images for spectral tuning: as a tensor where the network is, enough of them for a correlation."""

from __future__ import annotations

from torch import Tensor

from neural_fits.inspection._images import images_for
from stimuli import StimulusSet


def checked_images(images: Tensor | StimulusSet, network: object) -> Tensor:
    """Return images (image, channel, height, width) as floats, where the network is."""
    given = images_for(network, images)
    if len(given) < 3 or min(given.shape[-2:]) < 4:
        raise ValueError(
            f"images have shape {tuple(given.shape)}; expected at least three (image, channel, height, width) of 4 x 4 "
            "px or more (signals have perturb_signals)"
        )
    return given
