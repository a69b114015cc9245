"""Smoothing of gradients and images: Gaussian with one width per image, 1/f in frequency, and total variation.

In: images or gradients (image, channel, height, width). Used by `engine` between gradient and step, and by the blurred
views of `transforms`. Nothing waits for the device.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional


def _mirrored(images: Tensor, radius: int, axis: int) -> Tensor:
    """Reflect both ends of an axis; unlike that of `functional.pad`, its gradient is the same at every run on a GPU."""
    size = images.shape[axis]
    before = images.narrow(axis, 1, radius).flip(axis)
    after = images.narrow(axis, size - 1 - radius, radius).flip(axis)
    return torch.cat([before, images, after], axis)


def gaussian_blur(images: Tensor, sigma_px: float | Tensor, largest_px: float | None = None) -> Tensor:
    """Return images blurred by a Gaussian, with reflected borders.

    The kernel ends at three standard deviations, or where the image does.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Images or gradients.
    sigma_px : float or Tensor, (image,)
        Standard deviation in pixels, of all images or of each; an image with 0 is returned exactly as it is.
    largest_px : float, optional
        An upper bound of `sigma_px` where that is a tensor, so that its values need not be read from the device.

    Returns
    -------
    Tensor, (image, channel, height, width)
        Blurred images.

    Raises
    ------
    ValueError
        When there is not one width per image.

    Examples
    --------
    >>> images = torch.rand(2, 3, 8, 8)
    >>> blurred = gaussian_blur(images, torch.tensor([0.0, 1.0]), largest_px=1.0)
    >>> torch.equal(blurred[0], images[0]), torch.equal(blurred[1], images[1])
    (True, False)
    """
    count, channels, height, width = images.shape
    if isinstance(sigma_px, Tensor):
        if tuple(sigma_px.shape) != (count,):
            raise ValueError(
                f"sigma_px has shape {tuple(sigma_px.shape)}; expected one width for each of {count} images"
            )
        largest = float(sigma_px.max()) if largest_px is None else largest_px
        sigma = sigma_px.to(images).view(-1, 1)
    else:
        largest, sigma = sigma_px, images.new_full((count, 1), sigma_px)
    if largest <= 0:
        return images
    offsets = torch.arange(math.ceil(3 * largest) + 1, device=images.device, dtype=images.dtype)
    half = torch.exp(-(offsets**2) / (2 * sigma.clamp(min=1e-3) ** 2)) * (offsets <= (3 * sigma).ceil())
    blurred = images
    for axis, size in ((2, height), (3, width)):
        radius = min(len(offsets), size) - 1
        kernel = torch.cat([half[:, 1 : radius + 1].flip(1), half[:, : radius + 1]], 1)
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
        shape = (-1, 1, 2 * radius + 1, 1) if axis == 2 else (-1, 1, 1, 2 * radius + 1)
        rows = _mirrored(blurred, radius, axis).flatten(0, 1)[None]  # every image and channel with its own kernel
        blurred = functional.conv2d(rows, kernel.view(shape), groups=count * channels).view(images.shape)
    if isinstance(sigma_px, Tensor):
        return torch.where(sigma.view(-1, 1, 1, 1) > 0, blurred, images)
    return blurred


def radial_frequency(height: int, width: int) -> Tensor:
    """Return the spatial frequency of every coefficient of a real Fourier transform; the mean counts as the lowest.

    Parameters
    ----------
    height, width : int
        Size of the image in pixels.

    Returns
    -------
    Tensor, (height, width // 2 + 1)
        Cycles per pixel, at least ``1 / max(height, width)``.

    Examples
    --------
    >>> radial_frequency(4, 4)[0].tolist()
    [0.25, 0.25, 0.5]
    """
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None, :]
    return (rows**2 + columns**2).sqrt().clamp(min=1 / max(height, width))


@lru_cache(maxsize=32)
def _fall_off(height: int, width: int, decay: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return (radial_frequency(height, width) ** -decay).to(device, dtype)


def fourier_smooth(gradient: Tensor, decay: float) -> Tensor:
    """Return gradients whose spectrum is divided by a power of spatial frequency, so that coarse structure moves first.

    ``g' = a * irfft2(rfft2(g) / f^decay)``, with a, one number for each image, such that g' has the norm of g.

    Parameters
    ----------
    gradient : Tensor, (image, channel, height, width)
        Gradient with respect to pixels.
    decay : float
        Power of the frequency; 0 changes nothing, 1 is the fall-off of natural images.

    Returns
    -------
    Tensor, (image, channel, height, width)
        Smoothed gradient; a zero gradient stays zero.

    Examples
    --------
    >>> gradient = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> smooth = fourier_smooth(gradient, 1.0)
    >>> torch.allclose(smooth.norm(), gradient.norm()), bool(total_variation(smooth) < total_variation(gradient))
    (True, True)
    """
    if decay == 0:
        return gradient
    height, width = gradient.shape[-2:]
    weights = _fall_off(height, width, decay, gradient.device, gradient.dtype)
    smooth = torch.fft.irfft2(torch.fft.rfft2(gradient) * weights, s=(height, width))
    before, after = (_norm(values) for values in (gradient, smooth))
    return smooth * (before / after.clamp(min=torch.finfo(after.dtype).tiny))


def _norm(values: Tensor) -> Tensor:
    """Return the norm of each image, (image, 1, 1, 1), scaled so that the smallest gradients do not vanish."""
    largest = values.abs().amax((1, 2, 3), keepdim=True)
    scaled = values / largest.clamp(min=torch.finfo(values.dtype).tiny)
    return largest * (scaled**2).sum(-1, keepdim=True).sum((1, 2), keepdim=True).sqrt()


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

    Examples
    --------
    >>> total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])).item()
    0.5
    """
    vertical = (images[:, :, 1:] - images[:, :, :-1]) ** 2
    horizontal = (images[..., 1:] - images[..., :-1]) ** 2
    return vertical.mean((1, 2, 3)) / 2 + horizontal.mean((1, 2, 3)) / 2
