"""What every image must satisfy exactly: range, luminance, contrast, distance from a base image, aperture.

In: images (image, channel, height, width). Out: the constrained images. Applied by `engine` whenever a latent is
rendered, so that what is optimized, measured and saved is always the constrained image. Each image is projected on its
own, and nothing waits for a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from synth._projections import Targets, gain_and_offset, largest_share
from synth.aperture import Aperture

_FREE = 1e-4


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


@dataclass(frozen=True)
class Constraints:
    """Projection of images on those in [0, 1] that satisfy all that is asked, at once.

    Mean and contrast are met by the gain a and offset b for which ``clip(a * image + b)`` has them; budgets by the
    nearest image within them. A projected image stays as it is when projected again. Gradients pass where a pixel is
    free; gain and offset are taken as constant. Rounding to 8 bits, which comes after it, moves a pixel by 1/510 at
    most.

    Parameters
    ----------
    mean_luminance : float, optional
        Mean over pixels and channels in [0, 1]; within the aperture, weighted by it, where there is one.
    rms_contrast : float, optional
        Standard deviation over pixels and channels in units of [0, 1]; within the aperture, weighted by it, where
        there is one. Met to 1e-5 where an image of that shape can have it; a uniform image stays uniform.
    aperture : Aperture, optional
        Outside it images are gray, or the base image where there is one. On its edge a pixel may leave the surround by
        the share of the range that the aperture gives it: a product with the window would shrink the edge further at
        every projection.
    max_rms_change : float, optional
        Largest root mean square of ``image - base`` over all pixels and channels, in units of [0, 1].
    max_change : float, optional
        Largest ``|image - base|`` of a pixel, in units of [0, 1].

    Raises
    ------
    ValueError
        For a number out of range, or a budget together with a fixed luminance or contrast.

    Examples
    --------
    >>> images = Constraints(mean_luminance=0.5, rms_contrast=0.2)(torch.rand(1, 3, 16, 16))
    >>> round(images.mean().item(), 3), round(images.std(correction=0).item(), 3)
    (0.5, 0.2)
    >>> base = torch.full((3, 16, 16), 0.5)
    >>> (Constraints(max_change=0.1)(images, base) - base).abs().max() < 0.1 + 1e-6
    tensor(True)
    """

    mean_luminance: float | None = None
    rms_contrast: float | None = None
    aperture: Aperture | None = None
    max_rms_change: float | None = None
    max_change: float | None = None

    def __post_init__(self) -> None:
        check_luminance_contrast(self.mean_luminance, self.rms_contrast)
        for name in ("max_rms_change", "max_change"):
            budget = getattr(self, name)
            if budget is not None and not 0 < budget <= 1:
                raise ValueError(f"{name} is {budget}; expected a number above 0 and at most 1, in units of [0, 1]")
        if self.aperture is not None and self.mean_luminance is None and self.rms_contrast is not None:
            raise ValueError("rms_contrast within an aperture needs mean_luminance too, as the surround is not free")
        if self.has_budget and not (self.mean_luminance is None and self.rms_contrast is None):
            raise ValueError(
                "a budget round a base image (max_rms_change, max_change) and a fixed mean_luminance or rms_contrast "
                "cannot both be met exactly; give one or the other"
            )

    @property
    def has_budget(self) -> bool:
        """Whether images must stay near a base image."""
        return self.max_rms_change is not None or self.max_change is not None

    def __call__(self, images: Tensor, base: Tensor | None = None) -> Tensor:
        """Project images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images, any range.
        base : Tensor, (channel, height, width) or (image, channel, height, width), optional
            Base image in [0, 1], of all images or of each.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Constrained images in [0, 1].

        Raises
        ------
        ValueError
            When a budget has no base image, the base image another shape, or an aperture is closed everywhere.
        """
        if base is not None and tuple(base.shape) not in (tuple(images.shape), tuple(images.shape[1:])):
            raise ValueError(
                f"the base image has shape {tuple(base.shape)}; expected that of the images, {tuple(images.shape)}, or "
                "of one of them"
            )
        if base is None and self.has_budget:
            raise ValueError("max_rms_change and max_change limit the change of a base image; give one")
        lower, upper = self._bounds(images, base)
        if self.max_rms_change is not None and base is not None:
            change = images - base
            images = base + largest_share(change.detach(), lower - base, upper - base, self.max_rms_change) * change
        elif self.mean_luminance is not None or self.rms_contrast is not None:
            weights = None
            if self.aperture is not None:
                weights = _mask(self.aperture, images)
                if base is None:
                    self._check_reachable(images)
            targets = Targets(images.detach(), lower, upper, weights, self.mean_luminance, self.rms_contrast)
            gain, offset = gain_and_offset(targets)
            images = gain * images + offset
        return _Clip.apply(images, lower, upper)

    def _check_reachable(self, images: Tensor) -> None:
        """Refuse what no image in this aperture has: pixels reach ``0.5 +- mask / 2``."""
        middle = 0.5 if self.mean_luminance is None else self.mean_luminance
        open_share, open_square = _moments(self.aperture, images.shape[-2], images.shape[-1])
        largest = math.sqrt(max(open_square / 4 - (middle - 0.5) ** 2, 0))
        if abs(middle - 0.5) > open_share / 2 or (self.rms_contrast is not None and self.rms_contrast > largest):
            raise ValueError(
                f"mean luminance {self.mean_luminance} and RMS contrast {self.rms_contrast} cannot be met within "
                f"{self.aperture}, whose edge is near gray; the contrast is at most {largest:.3f}: lower it, sharpen "
                "the edge or bring the mean nearer to 0.5"
            )

    def _bounds(self, images: Tensor, base: Tensor | None) -> tuple[Any, Any]:
        """Return the smallest and largest value of every pixel, numbers or tensors."""
        lower: float | Tensor = 0.0
        upper: float | Tensor = 1.0
        if self.aperture is not None:
            mask = _mask(self.aperture, images)
            surround = 0.5 if base is None else base
            lower, upper = surround * (1 - mask), (surround + mask * (1 - surround))
        if self.max_change is not None and base is not None:
            lower = (base - self.max_change).clamp(min=lower)
            upper = (base + self.max_change).clamp(max=upper)
        elif self.max_rms_change is not None and base is not None and self.aperture is None:
            lower, upper = torch.zeros_like(base), torch.ones_like(base)
        return lower, upper


def fix_luminance_contrast(images: Tensor, mean: float | None, rms: float | None) -> Tensor:
    """Return images in [0, 1] with exactly the mean luminance and RMS contrast asked for; see `Constraints`.

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
    >>> round(fix_luminance_contrast(torch.rand(1, 3, 16, 16), 0.5, None).mean().item(), 3)
    0.5
    """
    return Constraints(mean, rms)(images)


class _Clip(torch.autograd.Function):
    """Clip; the gradient passes at the very ends too, or a pixel that arrives there could never leave."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, lower: Any, upper: Any) -> Tensor:
        clipped = images.clamp(lower, upper)
        if ctx.needs_input_grad[0]:
            free = (images - clipped).abs_() < _FREE
            if isinstance(lower, Tensor):
                free &= lower < upper  # outside an aperture nothing moves
            ctx.save_for_backward(free)
        return clipped

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (free,) = ctx.saved_tensors
        return gradient * free, None, None


@lru_cache(maxsize=64)
def _cached_mask(aperture: Aperture, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return aperture.mask(height, width).to(device, dtype)


@lru_cache(maxsize=64)
def _moments(aperture: Aperture, height: int, width: int) -> tuple[float, float]:
    """Return mean and mean square of the mask, weighted by the mask."""
    mask = aperture.mask(height, width).double()
    return float((mask**2).sum() / mask.sum()), float((mask**3).sum() / mask.sum())


def _mask(aperture: Aperture, images: Tensor) -> Tensor:
    return _cached_mask(aperture, images.shape[-2], images.shape[-1], images.device, images.dtype)
