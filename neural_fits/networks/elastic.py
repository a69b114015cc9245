"""More training images out of few: elastic deformation and mirroring, of images and their objects alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def elastic(images: Tensor, objects: Tensor, size_px: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Deform images and their maps smoothly at random.

    Each image is displaced by Gaussian vectors on a grid of 3 x 3 places, interpolated by a bicubic between them. What
    lies outside is the image mirrored.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Images; interpolated linearly.
    objects : Tensor of int, (image, height, width)
        Numbers of objects; the nearest is taken.
    size_px : float
        Standard deviation of the displacements; 10 in 2015, on tiles of 572 pixels.
    generator : torch.Generator
        Draws the displacements.

    Returns
    -------
    tuple of Tensor
        Deformed images and objects.

    References
    ----------
    Ronneberger, Fischer & Brox, U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015; grid,
    size and interpolation checked against notes that quote the paper.

    Examples
    --------
    >>> images, objects = torch.rand(2, 1, 8, 8), torch.ones(2, 8, 8, dtype=torch.int64)
    >>> deformed, moved = elastic(images, objects, 0.0, torch.Generator().manual_seed(0))
    >>> torch.allclose(deformed, images, atol=1e-5), moved.equal(objects)
    (True, True)
    """
    count, (height, width) = len(images), images.shape[-2:]
    coarse = size_px * torch.randn((count, 2, 3, 3), generator=generator)
    field = functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    # places in [-1, 1] from the outer edge of the first pixel to that of the last
    x = (2 * (columns + field[:, 0]) + 1) / width - 1
    y = (2 * (rows + field[:, 1]) + 1) / height - 1
    grid = torch.stack([x, y], -1).to(images)
    deformed = functional.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)
    # numbers of objects are exact in float32 up to 16 million
    moved = functional.grid_sample(objects[:, None].to(images), grid, "nearest", "reflection", align_corners=False)
    return deformed, moved[:, 0].round().to(objects.dtype)


def flipped(images: Tensor, objects: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror half of the images left to right and half of them upside down, at random.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Images.
    objects : Tensor, (image, height, width)
        Numbers of objects.
    generator : torch.Generator
        Draws which.

    Returns
    -------
    tuple of Tensor
        Images and objects, mirrored alike.

    Examples
    --------
    >>> image, objects = torch.arange(4.0).view(1, 1, 2, 2), torch.arange(4).view(1, 2, 2)
    >>> image, objects = flipped(image, objects, torch.Generator().manual_seed(0))
    >>> image[:, 0].equal(objects.float())
    True
    """
    for axis in (-1, -2):
        turned = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(turned.view(-1, 1, 1, 1).to(images.device), images.flip(axis), images)
        objects = torch.where(turned.view(-1, 1, 1).to(objects.device), objects.flip(axis), objects)
    return images, objects
