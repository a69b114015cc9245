"""What every image must satisfy exactly: range, mean luminance and RMS contrast, as a projection.

In: images (image, channel, height, width). Out: the constrained images. Applied by `engine` whenever a latent is
rendered, so that what is optimized, measured and saved is always the constrained image. Also gradient smoothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_ITERATIONS = 40


def fix_luminance_contrast(images: Tensor, mean: float | None, rms: float | None) -> Tensor:
    """Return images in [0, 1] with exactly the mean luminance and RMS contrast asked for.

    Finds gain a and offset b such that ``clip(a * image + b, 0, 1)`` has the mean and the standard deviation asked
    for, both over all pixels and channels of an image, by fixed-point iteration; clipping is part of the solution.
    Gradients pass through the gain, the offset taken as constant.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Images, any range.
    mean : float, optional
        Mean luminance in [0, 1]; None leaves it free.
    rms : float, optional
        Standard deviation of the pixels in units of [0, 1]; None leaves it free.

    Returns
    -------
    Tensor, (image, channel, height, width)
        Constrained images in [0, 1].

    Examples
    --------
    >>> images = fix_luminance_contrast(torch.rand(1, 3, 16, 16), 0.5, 0.2)
    >>> round(images.mean().item(), 3), round(images.std(unbiased=False).item(), 3)
    (0.5, 0.2)
    """
    if mean is None and rms is None:
        return images.clamp(0, 1)
    dims = (1, 2, 3)
    with torch.no_grad():
        gain = torch.ones(len(images), 1, 1, 1, device=images.device)
        offset = torch.zeros_like(gain)
        for _ in range(_ITERATIONS):
            now = (gain * images + offset).clamp(0, 1)
            if rms is not None:
                factor = rms / now.std(dims, keepdim=True, unbiased=False).clamp(min=1e-6)
                center = now.mean(dims, keepdim=True)
                gain, offset = gain * factor, center + (offset - center) * factor
                now = (gain * images + offset).clamp(0, 1)
            if mean is not None:
                offset = offset + mean - now.mean(dims, keepdim=True)
    return (gain * images + offset).clamp(0, 1)


def gaussian_blur(images: Tensor, sigma_px: float) -> Tensor:
    """Return images blurred by a Gaussian, with reflected borders.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Images or gradients.
    sigma_px : float
        Standard deviation in pixels; 0 returns the input.

    Returns
    -------
    Tensor, (image, channel, height, width)
        Blurred images.
    """
    if sigma_px <= 0:
        return images
    radius = min(math.ceil(3 * sigma_px), min(images.shape[-2:]) - 1)
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma_px**2))
    kernel = (kernel / kernel.sum()).to(images.dtype)
    channels = images.shape[1]
    padded = functional.pad(images, (radius, radius, radius, radius), mode="reflect")
    rows = functional.conv2d(padded, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return functional.conv2d(rows, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def total_variation(images: Tensor) -> Tensor:
    """Return the quadratic total variation of each image.

    ``TV = sum (x[i+1, j] - x[i, j])^2 / (2 N_y) + sum (x[i, j+1] - x[i, j])^2 / (2 N_x)`` with N the number of terms.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Images.

    Returns
    -------
    Tensor, (image,)
        Total variation, in squared units of the images.
    """
    vertical = (images[:, :, 1:] - images[:, :, :-1]) ** 2
    horizontal = (images[..., 1:] - images[..., :-1]) ** 2
    return vertical.mean((1, 2, 3)) / 2 + horizontal.mean((1, 2, 3)) / 2
