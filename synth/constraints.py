"""What every image must satisfy exactly: range, mean luminance and RMS contrast, as a projection.

In: images (image, channel, height, width). Out: the constrained images. Applied by `engine` whenever a latent is
rendered, so that what is optimized, measured and saved is always the constrained image. Also gradient smoothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_ITERATIONS = 24
_LARGEST_GAIN = 1e4  # a uniform image has no contrast to amplify


def check_luminance_contrast(mean: float | None, rms: float | None) -> None:
    """Refuse a mean luminance and RMS contrast that no image in [0, 1] has.

    Pixels in [0, 1] with mean m have a variance of at most ``m * (1 - m)``.

    Parameters
    ----------
    mean : float, optional
        Mean luminance in [0, 1].
    rms : float, optional
        Standard deviation of the pixels in units of [0, 1].

    Raises
    ------
    ValueError
        When one is out of range, or both together are impossible.

    Examples
    --------
    >>> check_luminance_contrast(0.5, 0.2)
    """
    if mean is not None and not 0 < mean < 1:
        raise ValueError(f"mean luminance is {mean}; expected a number between 0 and 1")
    middle = 0.5 if mean is None else mean
    largest = math.sqrt(middle * (1 - middle))
    if rms is not None and not 0 < rms < largest:
        raise ValueError(
            f"RMS contrast is {rms}; images in [0, 1] with mean luminance {middle} reach values between 0 and "
            f"{largest:.3f}; lower the contrast or bring the mean nearer to 0.5"
        )


def fix_luminance_contrast(images: Tensor, mean: float | None, rms: float | None) -> Tensor:
    """Return images in [0, 1] with exactly the mean luminance and RMS contrast asked for.

    Finds gain a and offset b such that ``clip(a * image + b, 0, 1)`` has the mean and the standard deviation asked
    for, both over all pixels and channels of an image; clipping is part of the solution. Tested to 0.001 up to four
    fifths of the largest possible contrast; an image of few gray levels may have no solution and comes near, a uniform
    image stays uniform. Gradients pass through the gain; gain and offset themselves are taken as constant.

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

    Raises
    ------
    ValueError
        When no image has that mean and contrast.

    Examples
    --------
    >>> images = fix_luminance_contrast(torch.rand(1, 3, 16, 16), 0.5, 0.2)
    >>> round(images.mean().item(), 3), round(images.std(unbiased=False).item(), 3)
    (0.5, 0.2)
    """
    if mean is None and rms is None:
        return _clip(images)
    check_luminance_contrast(mean, rms)
    gain, offset = _solve(images.detach(), mean, rms)
    return _clip(gain * images + offset)


def _clip(images: Tensor) -> Tensor:
    """Clip to [0, 1]; the gradient passes at the very ends too, or a pixel that arrives there could never leave."""
    clipped = images.detach().clamp(0, 1)
    free = (images.detach() - clipped).abs() < 1e-4  # torch.clamp itself differs between versions at the ends
    return clipped + torch.where(free, images - images.detach(), 0)


def _solve(images: Tensor, mean: float | None, rms: float | None) -> tuple[Tensor, Tensor]:
    """Return the gain and offset (image, 1, 1, 1) that give clipped images their mean and RMS contrast.

    Newton steps, because rescaling alone converges slowly where much is clipped; but a Newton step that does not bring
    an image nearer is taken back and replaced by rescaling, because Newton's method alone may diverge there.
    """

    def average(values: Tensor) -> Tensor:
        return values.mean((1, 2, 3), keepdim=True)

    gain = torch.ones_like(average(images))
    offset = torch.zeros_like(gain)
    kept = rescaled = torch.stack([gain, offset])
    smallest = torch.full_like(gain, torch.inf)
    for _ in range(_ITERATIONS):
        now = (gain * images + offset).clamp(0, 1)
        center = average(now)
        around = now - center
        contrast = average(around**2).sqrt().clamp(min=1e-6)
        too_dark = torch.zeros_like(gain) if mean is None else mean - center
        too_flat = torch.zeros_like(gain) if rms is None else rms - contrast

        error = too_dark.abs() + too_flat.abs()
        nearer = error < smallest
        smallest = torch.where(nearer, error, torch.inf)  # whatever replaces a step taken back is accepted
        kept = torch.where(nearer, torch.stack([gain, offset]), kept)

        factor = ((contrast + too_flat) / contrast).minimum(_LARGEST_GAIN / gain)
        fallback = torch.stack([gain * factor, center + (offset - center) * factor + too_dark])

        inside = ((now > 0) & (now < 1)).to(images.dtype)  # the pixels that move; a free target leaves one direction
        (a, b) = (offset - center, -gain) if mean is None else (average(inside * images), average(inside))
        (c, d) = (
            (torch.ones_like(gain), torch.zeros_like(gain))
            if rms is None
            else (average(inside * around * images) / contrast, average(inside * around) / contrast)
        )
        determinant = a * d - b * c
        change = torch.stack([too_dark * d - too_flat * b, too_flat * a - too_dark * c]) / determinant
        change = change * (0.75 * gain / change[0].abs()).clamp(max=1)  # far from the solution, a shorter step
        newton = torch.where(determinant.abs() > 1e-8, torch.stack([gain, offset]) + change, fallback)

        gain, offset = torch.where(nearer, newton, rescaled)
        rescaled = torch.where(nearer, fallback, rescaled)
    gain, offset = kept
    return gain, offset


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
