"""What enters a view: images checked and brought to the network, and the network left as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.image_size import require_image_size, same_size_deg
from neural_fits.inspection.targets import is_of_sites, takes_any_range
from neural_fits.site_model import SiteInfo
from stimuli import StimulusSet

#: images that go through a network at once
BATCH = 16
#: how far images may lie outside [0, 1]: resizing overshoots a little
_SLACK = 0.01


def images_for(network: object, images: object) -> Tensor:
    """Return images as numbers of the network's own type, where the network is.

    Parameters
    ----------
    network : SiteModel, Ensemble, FeatureExtractor, Backbone, nn.Module or str
        What is looked into. A plain module may take values beyond [0, 1], as spectrograms have; other networks may not.
    images : object
        What the user gave: a tensor, an array, or a `StimulusSet`, which a model of sites takes only in its own size in
        pixels and degrees.

    Returns
    -------
    Tensor, (image, channel, height, width)
        Finite floating numbers without gradient.

    Raises
    ------
    TypeError
        When the images are no floating numbers.
    ValueError
        When they have other axes or another size, none is there, or values are not finite or out of range.
    """
    if isinstance(images, StimulusSet):
        if (info := _info(network)) is not None:
            require_image_size(images, info.size_px, info.size_deg)
        images = images.images()
    if isinstance(images, np.ndarray) and images.dtype.kind == "f":
        images = torch.from_numpy(np.ascontiguousarray(images))
    if not isinstance(images, Tensor) or not images.is_floating_point():
        came = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(
            f"images are {came}; expected a StimulusSet, or floating numbers (image, channel, height, width), such as "
            "8-bit images / 255"
        )
    if images.ndim != 4 or not images.numel():
        raise ValueError(
            f"images have shape {tuple(images.shape)}; expected (image, channel, height, width), at least one image"
        )
    if images.shape[1] not in (1, 3) and images.shape[3] in (1, 3) and not _is_plain(network):
        raise ValueError(
            f"images have shape {tuple(images.shape)}: channels last? permute to (image, channel, height, width)"
        )
    bad = (~images.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"image {bad[0]} has values that are not finite; leave it out, or fill them in")
    low, high = float(images.min()), float(images.max())
    if not -_SLACK <= low <= high <= 1 + _SLACK and not _is_plain(network):
        raise ValueError(f"images have values from {low:.4g} to {high:.4g}; expected 0 to 1, so rescale them")
    held = network.network if isinstance(network, Backbone) else network
    weights = chain(held.parameters(), held.buffers()) if isinstance(held, nn.Module) else ()
    like = next((each for each in weights if each.is_floating_point()), None)
    if like is not None:
        return images.detach().to(like.device, like.dtype)
    return images.detach().to(torch.float32) if isinstance(network, str) else images.detach()


def width_deg(network: object, images: object, size_deg: float | None) -> float:
    """Return the width of the images in degrees, from whoever knows it; they must agree.

    Parameters
    ----------
    network : SiteModel, Ensemble, FeatureExtractor, Backbone, nn.Module or str
        What is looked into; a model of sites knows the width.
    images : object
        What the user gave; a `StimulusSet` knows the width.
    size_deg : float or None
        What the user said.

    Returns
    -------
    float
        Width in degrees of visual angle.

    Raises
    ------
    ValueError
        When nobody knows it, or the two who know it differ.
    """
    known = [] if size_deg is None else [float(size_deg)]
    if (info := _info(network)) is not None:
        known.append(info.size_deg)
    elif isinstance(images, StimulusSet):
        known.append(images.size_deg)
    if not known or not known[0] > 0:
        raise ValueError(
            f"size_deg is {size_deg}, and the width of the images in degrees is needed; give size_deg, or the images "
            "as a StimulusSet"
        )
    if not same_size_deg(known[0], known[-1]):
        raise ValueError(
            f"size_deg is {known[0]:g}, but the model or the images say {known[-1]:g} deg; leave size_deg out"
        )
    return known[-1]


@contextmanager
def left_as_found(network: object) -> Iterator[None]:
    """Give a module back its mode and gradients: `load_backbone` freezes what it is given, for good.

    Parameters
    ----------
    network : SiteModel, Ensemble, FeatureExtractor, Backbone, nn.Module or str
        What is looked into.
    """
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    modes = [(each, each.training) for each in modules]
    weights = [(each, each.data, each.requires_grad) for module in modules for each in module.parameters(recurse=False)]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for weight, data, wanted in weights:
            weight.data = data  # in its own order of axes: channels-last copies are for the view alone
            weight.requires_grad_(wanted)


def _info(network: object) -> SiteInfo | None:
    """Return what a model of sites knows of its images; nothing for other networks."""
    found = getattr(network, "info", None) if is_of_sites(network) else None
    return found if isinstance(found, SiteInfo) else None


def _is_plain(network: object) -> bool:
    """Say whether nothing is known of the range of values that a network takes."""
    backbone = network.backbone if isinstance(network, FeatureExtractor) else network
    if isinstance(backbone, Backbone):
        return backbone.name.startswith("module:") and takes_any_range(backbone)
    return isinstance(backbone, nn.Module) and not is_of_sites(backbone)
