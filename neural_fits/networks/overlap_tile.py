"""Segment images of any size in overlapping tiles: the result is that of one pass over the whole image.

In: a `UNet` and images. Out: scores at every pixel of the images, also near the borders, where an unpadded network sees
the image mirrored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neural_fits.networks.unet import UNet


def mirrored(images: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Continue images beyond their borders by mirroring, as often as it takes.

    Unlike the reflection of torch the margin may be larger than the image.

    Parameters
    ----------
    images : Tensor, (..., height, width)
        Images.
    top, bottom, left, right : int
        Pixels added; the border pixels themselves are not repeated.

    Returns
    -------
    Tensor, (..., top + height + bottom, left + width + right)
        The larger images.

    Examples
    --------
    >>> mirrored(torch.tensor([[1, 2, 3]]), 0, 0, 4, 1).tolist()
    [[1, 2, 3, 2, 1, 2, 3, 2]]
    """
    rows = _mirrored_places(images.shape[-2], top, bottom, images.device)
    columns = _mirrored_places(images.shape[-1], left, right, images.device)
    return images.index_select(-2, rows).index_select(-1, columns)


def untiled(network: UNet, images: Tensor) -> Tensor:
    """Return the scores at every pixel of the images by one pass.

    Parameters
    ----------
    network : UNet
        With valid padding the images are mirrored around their borders, so that no pixel is lost.
    images : Tensor, (image, channel, height, width)
        Images of any size.

    Returns
    -------
    Tensor, (image, class, height, width)
        Scores before the softmax; gradients flow.

    Examples
    --------
    >>> untiled(UNet(depth=2, width=2), torch.zeros(1, 1, 30, 17)).shape
    torch.Size([1, 2, 30, 17])
    """
    height, width = images.shape[-2:]
    margin = network.margin_px
    more_down, more_right = network.fitting_px(height) - height, network.fitting_px(width) - width
    padded = mirrored(images, margin, margin + more_down, margin, margin + more_right)
    scores: Tensor = network(padded)
    return scores[..., :height, :width]


@torch.no_grad()
def overlap_tile(network: UNet, images: Tensor, *, tile_px: int = 388) -> Tensor:
    """Return the scores at every pixel of large images, tile by tile: memory is that of one tile.

    Tiles begin at multiples of ``network.step_px``, so that poolings fall where those of one pass over the whole image
    fall, and each sees all that its pixels depend on. Scores are therefore those of `untiled`, with both paddings, up
    to the rounding of sums: at the borders an unpadded network sees the image mirrored, a padded one zeros, as it does
    in one pass.

    Parameters
    ----------
    network : UNet
        A trained network.
    images : Tensor, (image, channel, height, width)
        Images of any size.
    tile_px : int
        About the side of the output of one tile; it is brought to a possible one. 388 is that of 2015.

    Returns
    -------
    Tensor, (image, class, height, width)
        Scores before the softmax.

    Raises
    ------
    ValueError
        When the tile is smaller than one pixel, or the network normalizes by the whole image or by each batch.

    References
    ----------
    Ronneberger, Fischer & Brox, U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015.

    Examples
    --------
    >>> overlap_tile(UNet(depth=2, width=2), torch.zeros(1, 1, 50, 70), tile_px=24).shape
    torch.Size([1, 2, 50, 70])
    """
    if tile_px < 1:
        raise ValueError(f"tile_px is {tile_px}; give a side of at least 1 pixel, such as 388")
    if network.norm == "instance":
        raise ValueError("norm='instance' depends on the whole image, so tiles cannot equal one pass; use untiled")
    if network.norm == "batch" and network.training:
        raise ValueError("a U-Net with norm='batch' is in training, where tiles normalize each other; call its eval()")
    height, width = images.shape[-2:]
    step = network.step_px
    # Unpadded outputs are a few pixels beyond a multiple of the step; tiles follow each other at that multiple.
    tile = network.fitting_px(max(network.fitting_px(tile_px, up=False), step))
    stride = tile // step * step
    read = _valid_tile if network.padding == "valid" else _same_tile
    scores = images.new_empty(len(images), network.classes, height, width)
    for top in range(0, height, stride):
        for left in range(0, width, stride):
            down, right = min(top + tile, height), min(left + tile, width)
            scores[..., top:down, left:right] = read(network, images, top, down, left, right)
    return scores


def _valid_tile(network: UNet, images: Tensor, top: int, down: int, left: int, right: int) -> Tensor:
    """Return the scores of one tile, of which the surroundings are part of the image or mirrored."""
    height, width = images.shape[-2:]
    margin = network.margin_px
    low, far = top + network.fitting_px(down - top) + margin, left + network.fitting_px(right - left) + margin
    rows = _mirrored_places(height, margin - top, low - height, images.device)
    columns = _mirrored_places(width, margin - left, far - width, images.device)
    scores: Tensor = network(images.index_select(-2, rows).index_select(-1, columns))
    return scores[..., : down - top, : right - left]


def _same_tile(network: UNet, images: Tensor, top: int, down: int, left: int, right: int) -> Tensor:
    """Return the scores of one tile with so much of the image around it that no inner border is felt."""
    halo = (8 if network.config["up"] == "bilinear" else 6) * network.step_px  # a pixel depends on less to each side
    first_row, first_column = max(top - halo, 0), max(left - halo, 0)
    scores: Tensor = network(images[..., first_row : down + halo, first_column : right + halo])
    return scores[..., top - first_row : down - first_row, left - first_column : right - first_column]


def _mirrored_places(count: int, before: int, after: int, device: torch.device) -> Tensor:
    places = torch.arange(-before, count + after, device=device)
    if count == 1:
        return torch.zeros_like(places)
    period = 2 * (count - 1)
    folded = places.remainder(period)
    return torch.minimum(folded, period - folded)
