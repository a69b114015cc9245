"""Where in the image a response comes from: by gradients over images, and the pixels that can matter at all.

Three answers to one question. `neural_fits.site_maps.receptive_fields` shows where the *readout* puts its weight on the
feature map, without any image; a position of the map sees a surround, so the field in the image is wider.
`gradient_fields` here shows which *pixels* change the response, by how much on average over given images; this is what
an experimenter would map with small changes of those images. `layer_support` shows which pixels *can* change a unit of
a layer at all, the theoretical field; most of it matters little.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from neural_fits.features import FeatureExtractor
from neural_fits.inspection._images import images_for, left_as_found, width_deg
from neural_fits.inspection.saliency import target_gradients
from neural_fits.inspection.targets import (
    Network,
    Target,
    is_of_sites,
    names_of,
    site_indices,
    target_function,
    target_name,
)
from neural_fits.site_maps import field_table
from stimuli import StimulusSet


@dataclass(frozen=True, eq=False)
class GradientFields:
    """Receptive fields in the image.

    Parameters
    ----------
    names : tuple of str
        What was asked, for example sites.
    maps : ndarray, (target, height, width)
        Share of each pixel in the gradient energy; each map sums to 1, or is 0 where no gradient arrived.
    size_deg : float
        Width of the images in degrees of visual angle.
    height_deg : float, optional
        Their height; by default pixels are square.
    n_images : int, optional
        How many images the maps are a mean of.

    Examples
    --------
    >>> maps = np.zeros((1, 4, 8))
    >>> maps[0, 0, 7] = 1
    >>> GradientFields(("a",), maps, size_deg=8.0, n_images=30).table()
       rf_x_deg  rf_y_deg  rf_sd_deg  n_images
    a       3.5       1.5        0.0        30
    """

    names: tuple[str, ...]
    maps: NDArray[np.float64]
    size_deg: float
    height_deg: float | None = None
    n_images: int | None = None

    def table(self) -> pd.DataFrame:
        """Return center and width of every field.

        Returns
        -------
        DataFrame
            ``rf_x_deg``, ``rf_y_deg`` and ``rf_sd_deg`` as `neural_fits.site_maps.field_table` defines them, blurred by
            1/12 of a side, which widens a field by up to half; NaN where no gradient arrived. ``n_images`` where it is
            known: fields from a few images are uncertain.
        """
        height, width = self.maps.shape[1:]
        high = self.height_deg or self.size_deg * height / width
        fields = field_table(self.maps, self.size_deg, high, blur=1 / 12)  # gradients are speckled from pixel to pixel
        fields = fields.set_axis(list(self.names))
        return fields if self.n_images is None else fields.assign(n_images=self.n_images)


def gradient_fields(
    network: Network,
    targets: Target | Sequence[Target] | None,
    images: Tensor | StimulusSet,
    size_deg: float | None = None,
) -> GradientFields:
    """Return which pixels change a response: the energy of its gradient, averaged over images.

    ``m(x, y) ~ mean_i sum_c (dS / dI_c(x, y))^2`` at image i, scaled to sum 1. Natural images, ten or more, show what
    matters among such images; the field of a nonlinear network is another one for other images.

    Parameters
    ----------
    network : network
        As for `target_function`.
    targets : target or sequence of targets, optional
        One or several sites of a model, None for all of them; or what else `target_function` takes, where a sequence is
        one of targets: ``[(0, 1, 6)]`` is one unit.
    images : Tensor or StimulusSet, (image, channel, height, width)
        Values in [0, 1].
    size_deg : float, optional
        Width of the images in degrees of visual angle; a model of sites and a `StimulusSet` know it.

    Returns
    -------
    GradientFields
        One map a target, of the images' own size.

    Raises
    ------
    ValueError
        When no target is given or one is unknown, the images are none (see `saliency`), or their width in degrees is
        missing or not the model's.
    TypeError
        When the images are no floating numbers.

    Examples
    --------
    >>> unit = FeatureExtractor("efficientnet-lite0", "blocks.2")
    >>> fields = gradient_fields(unit, [(0, 1, 6)], torch.rand(4, 3, 64, 64), size_deg=8.0)
    >>> fields.maps.shape, f"{fields.maps.sum():.6f}"
    ((1, 64, 64), '1.000000')
    """
    asked = _targets(network, targets)
    maps = []
    with left_as_found(network):
        given = images_for(network, images)
        wide = width_deg(network, images, size_deg)
        for target in asked:
            energy = target_gradients(target_function(network, target), given).double().square().sum(1).mean(0)
            maps.append((energy / energy.sum().clamp(min=torch.finfo(energy.dtype).tiny)).cpu().numpy())
        names = tuple(target_name(network, target) for target in asked)
    return GradientFields(names, np.stack(maps), wide, n_images=len(given))


def _targets(network: Network, targets: Target | Sequence[Target] | None) -> list[Target]:
    if is_of_sites(network):
        return [names_of(network)[k] for k in site_indices(network, targets)]  # type: ignore[arg-type]
    asked = [targets] if isinstance(targets, str) or not isinstance(targets, Iterable) else list(targets)
    if not asked or asked == [None]:
        raise ValueError("no target was given; name at least one class, channel or unit")
    return asked  # type: ignore[return-value]


@dataclass(frozen=True)
class LayerSupport:
    """The pixels that can change a unit of a layer.

    Parameters
    ----------
    position : tuple of int
        Row and column of the unit in the layer's map.
    map_size : tuple of int
        Rows and columns of the map.
    box : tuple of int
        First row, first column, and the row and column after the last ones, in pixels of the image.

    Examples
    --------
    >>> LayerSupport((2, 2), (8, 8), (5, 5, 20, 26)).size_px
    (15, 21)
    """

    position: tuple[int, int]
    map_size: tuple[int, int]
    box: tuple[int, int, int, int]

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the field in pixels; cut where it leaves the image."""
        top, left, bottom, right = self.box
        return bottom - top, right - left


def layer_support(
    extractor: FeatureExtractor,
    size_px: tuple[int, int],
    position: tuple[int, int] | None = None,
    samples: int = 8,
    seed: int = 0,
) -> LayerSupport:
    """Return the theoretical receptive field of a layer: the pixels that can change one of its positions.

    The box of all pixels whose gradient is not exactly zero for a random mixture of the position's channels, over
    images of noise. It is found without knowing the architecture: attention and squeeze-and-excitation reach the whole
    image. Rectified and pooled units hide paths in single images, so the box is a lower bound that more `samples` fill.

    Parameters
    ----------
    extractor : FeatureExtractor
        The layer.
    size_px : tuple of int
        Height and width of the images.
    position : tuple of int, optional
        Row and column in the map; by default its middle.
    samples : int
        Images of noise.
    seed : int
        Seed of noise and mixture.

    Returns
    -------
    LayerSupport
        The box.

    Raises
    ------
    ValueError
        When the map has no such position, or nothing reaches it.

    Examples
    --------
    >>> from torch import nn
    >>> two = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 5, padding=2))
    >>> layer_support(FeatureExtractor(two, "1"), (64, 64)).size_px
    (11, 11)
    """
    random = torch.Generator().manual_seed(seed)
    images = torch.rand((samples, 3, *size_px), generator=random).to(extractor.mean.device)
    with torch.no_grad():
        channels, rows, columns = extractor(images[:1]).shape[1:]
    place = (rows // 2, columns // 2) if position is None else tuple(position)
    if len(place) != 2 or not (0 <= place[0] < rows and 0 <= place[1] < columns):
        raise ValueError(
            f"position is {place}, the map has {rows} rows and {columns} columns; give (row, column), from 0"
        )
    row, column = place
    mixture = torch.randn(channels, generator=random).to(images.device)
    gradients = target_gradients(lambda part: extractor(part)[:, :, row, column] @ mixture, images)
    reached = (gradients != 0).any(1).any(0).cpu().numpy()
    if not reached.any():
        raise ValueError(f"no pixel changes position {(row, column)}; the layer is constant or its units are silent")
    down, across = np.flatnonzero(reached.any(1)), np.flatnonzero(reached.any(0))
    box = int(down[0]), int(across[0]), int(down[-1]) + 1, int(across[-1]) + 1
    return LayerSupport((row, column), (rows, columns), box)
