"""Where in an image a site's response comes from: the exact counterpart of class activation maps.

In: a fitted model and images. Out: maps whose sum and the site's offset are the predicted response.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neural_fits.image_size import require_size_px
from neural_fits.inspection._grids import on_grid
from neural_fits.inspection._images import BATCH, images_for
from neural_fits.inspection.targets import site_indices
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet


def site_activation_maps(
    model: SiteModel | Ensemble, images: Tensor | StimulusSet, sites: str | Sequence[str] | None = None
) -> Tensor:
    """Return what each position of the image adds to each site's response: ``M_s(x, y) = sum_c W_sc(x, y) f_c(x, y)``.

    Exact for every readout, because all of them are linear in the feature map: ``M.sum((2, 3)) + site_offsets(model)``
    is the predicted response. Positive where the image drives the site, negative where it suppresses it.

    A model of several layers reads them on one grid, the coarsest (see `FeatureExtractor`); its map adds up what all of
    them give at a position. An ensemble's map is the mean over its members, brought to the finest grid among them by
    spreading every cell evenly over its own area, which keeps the sum.

    Parameters
    ----------
    model : SiteModel or Ensemble
        The model.
    images : Tensor or StimulusSet, (image, channel, height, width)
        Values in [0, 1], of the size the model was fitted on.
    sites : str or sequence of str, optional
        Ids of the sites wanted; all by default.

    Returns
    -------
    Tensor, (image, site, height, width)
        Contributions in the recording's unit. Positions are those of `feature_positions`.

    Raises
    ------
    ValueError
        For an unknown site, a layer without space (height = width = 1), or images of another size, not finite or out
        of [0, 1].
    TypeError
        When the model is none, or the images are no floating numbers.

    Examples
    --------
    >>> from neural_fits.features import FeatureExtractor
    >>> from neural_fits.readout import LinearReadout
    >>> from neural_fits.site_model import SiteInfo
    >>> readout = LinearReadout(torch.rand(1, 40, 8, 8), torch.ones(1))
    >>> info = SiteInfo(("a",), (1.0,), (1.0,), (64, 64), 8.0, "spikes")
    >>> model = SiteModel(FeatureExtractor("efficientnet-lite0", "blocks.2"), readout, info)
    >>> image = torch.rand(1, 3, 64, 64)
    >>> maps = site_activation_maps(model, image)
    >>> maps.shape
    torch.Size([1, 1, 8, 8])
    >>> torch.allclose(maps.sum((2, 3)) + site_offsets(model), model(image), rtol=1e-4)
    True
    """
    members, index = _members(model), site_indices(model, sites)
    given = images_for(model, images)
    require_size_px((given.shape[-2], given.shape[-1]), model.info.size_px)
    with torch.no_grad():
        found = [torch.cat([_maps(member, part, index) for part in given.split(BATCH)]) for member in members]
        size = max(each.shape[2] for each in found), max(each.shape[3] for each in found)
        return torch.stack([on_grid(each, size) for each in found]).mean(0)


def site_offsets(model: SiteModel | Ensemble, sites: str | Sequence[str] | None = None) -> Tensor:
    """Return the part of each site's response that no position of the image gives.

    Parameters
    ----------
    model : SiteModel or Ensemble
        The model.
    sites : str or sequence of str, optional
        Ids of the sites wanted; all by default.

    Returns
    -------
    Tensor, (site,)
        Offsets of the readout in the recording's unit, mean over members.

    Raises
    ------
    ValueError
        For an unknown site.
    """
    members, index = _members(model), site_indices(model, sites)
    return torch.stack([member.readout.bias[index] for member in members]).mean(0)


def _members(model: object) -> list[SiteModel]:
    if not isinstance(model, SiteModel | Ensemble):
        raise TypeError(f"the model is {type(model).__name__}; expected a SiteModel or Ensemble, others have grad_cam")
    return model._members()


def _maps(member: SiteModel, images: Tensor, index: list[int]) -> Tensor:
    weight = member.readout.weight[index]
    if weight.shape[2] == weight.shape[3] == 1:
        raise ValueError(
            f"layer {member.extractor.layer!r} has no space (its map is 1 x 1), so that its sites have no activation "
            "maps; use saliency, which follows the response back to the pixels"
        )
    features = member.extractor(images)
    by_place = torch.matmul(features.permute(2, 3, 0, 1), weight.permute(2, 3, 1, 0))  # (row, column, image, site)
    return by_place.permute(2, 3, 0, 1)
