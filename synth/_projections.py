"""Numbers by which images are scaled so that they satisfy constraints exactly, each image on its own.

In: images, bounds of every pixel, targets. Out: gain and offset, or the share of a change. Used by `constraints`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_ITERATIONS = 24
_BUDGET_ITERATIONS = 16
_TOLERANCE = 3e-6
_COARSE_TOLERANCE = 1e-4
_LARGEST_GAIN = 1e4  # a uniform image has no contrast to amplify
_COARSE_PIXELS = 2048  # the gain of a large image is first sought on so many of its pixels


def _sum(values: Tensor) -> Tensor:
    """Sum over each image, (image, 1, 1, 1): by rows, whose order of summation does not depend on the batch."""
    return values.sum(-1, keepdim=True).sum((1, 2), keepdim=True)


def _all(flags: Tensor) -> bool:
    """Whether work on a CPU may stop; a GPU is not waited for."""
    return flags.device.type == "cpu" and bool(flags.all())


def largest_share(change: Tensor, lower: Tensor, upper: Tensor, largest_rms: float) -> Tensor:
    """Return s in [0, 1], (image, 1, 1, 1), the largest for which ``clip(s * change)`` has no larger RMS.

    The squared norm is concave in s^2 and linear between the points at which pixels reach their bounds: Newton's method
    from the left never overshoots and ends exactly.
    """
    allowed = largest_rms**2 * change[0].numel()
    square = (allowed / _sum(change**2).clamp(min=1e-30)).clamp(max=1)
    done = square >= 1
    for _ in range(_BUDGET_ITERATIONS):
        if _all(done):
            break
        wanted = square.sqrt() * change
        now = wanted.clamp(lower, upper)
        inside = (now == wanted).to(now.dtype)
        held = _sum(now**2 * (1 - inside))
        free = _sum(change**2 * inside)
        new = torch.where(free > 0, (allowed - held) / free.clamp(min=1e-30), 1).clamp(max=1)
        new = torch.where(done, square, torch.maximum(new, square))
        done = done | (new <= square * (1 + 1e-7)) | (new >= 1)
        square = new
    return square.sqrt()


@dataclass(frozen=True)
class Targets:
    """Images, bounds and weights of every value, and the mean and contrast they are to have."""

    images: Tensor
    lower: Any
    upper: Any
    weights: Tensor | None
    mean: float | None
    rms: float | None

    def thinned(self, stride: int) -> Targets:
        """Keep a grid of the pixels."""
        every = slice(stride // 2, None, stride)
        lower, upper, weights = (
            part[..., every, every].contiguous() if isinstance(part, Tensor) else part
            for part in (self.lower, self.upper, self.weights)
        )
        return Targets(self.images[..., every, every].contiguous(), lower, upper, weights, self.mean, self.rms)

    def average(self, values: Tensor) -> Tensor:
        """Return the weighted mean over each image, (image, 1, 1, 1)."""
        if self.weights is None:
            return _sum(values) / values[0].numel()
        return _sum(values * self.weights) / (_sum(self.weights) * values.shape[1]).clamp(min=1e-6)

    def standardized(self) -> Tensor:
        """Return the gain and offset, (2, image, 1, 1, 1), that are right when nothing is clipped."""
        center = self.average(self.images)
        contrast = self.average((self.images - center) ** 2).sqrt()
        gain = torch.ones_like(center) if self.rms is None else self.rms / contrast.clamp(min=self.rms / _LARGEST_GAIN)
        return torch.stack([gain, (center if self.mean is None else self.mean) - gain * center])


def gain_and_offset(targets: Targets) -> Tensor:
    """Return the gain and offset, (2, image, 1, 1, 1), that give clipped images their mean and RMS contrast.

    An image that has them is left as it is. A large one is first solved on a grid of its pixels, as one evaluation of
    all pixels costs as much as all iterations on the grid.
    """
    height, width = targets.images.shape[-2:]
    stride = math.isqrt(height * width // _COARSE_PIXELS)
    if stride > 1:
        coarse = targets.thinned(stride)
        first = _newton(coarse, coarse.standardized(), None, _COARSE_TOLERANCE)
    else:
        first = targets.standardized()
    same = torch.stack([torch.ones_like(first[0]), torch.zeros_like(first[0])])
    return _newton(targets, same, first, _TOLERANCE)


def _newton(targets: Targets, start: Tensor, second: Tensor | None, tolerance: float) -> Tensor:
    """Solve for gain and offset, (2, image, 1, 1, 1), from `start`; images that need a change go on from `second`.

    Newton steps, because rescaling alone converges slowly where much is clipped; but a Newton step that does not bring
    an image nearer is taken back and replaced by rescaling, because Newton's method alone may diverge there. An image
    that is near enough is not touched again, so that it does not depend on how long its neighbors take.
    """
    images, mean, rms, average = targets.images, targets.mean, targets.rms, targets.average
    kept = rescaled = now_at = start
    smallest = best = torch.full_like(start[0], torch.inf)
    done = torch.zeros_like(smallest, dtype=torch.bool)
    zero = torch.zeros_like(smallest)
    for iteration in range(_ITERATIONS):
        gain, offset = now_at
        wanted = torch.addcmul(offset, gain, images)
        now = wanted.clamp(targets.lower, targets.upper)
        center = average(now)
        around = now - center
        contrast = average(around**2).sqrt()
        too_dark = zero if mean is None else mean - center
        too_flat = zero if rms is None else rms - contrast

        error = too_dark.abs() + too_flat.abs()
        nearer = error < smallest
        kept = torch.where(error < best, now_at, kept)
        best = error.minimum(best)
        done = done | (error < tolerance) | ((contrast < 1e-6) & (too_dark.abs() < tolerance))
        if _all(done):
            break
        smallest = torch.where(nearer, error, torch.inf)  # whatever replaces a step taken back is accepted
        if iteration == 0 and second is not None:
            now_at, rescaled, smallest = torch.where(done, now_at, second), second, zero + torch.inf
            continue

        contrast = contrast.clamp(min=1e-6)
        factor = ((contrast + too_flat) / contrast).minimum(_LARGEST_GAIN / gain)
        fallback = _stretched(now_at, factor, center, too_dark)

        inside = (now == wanted).to(images.dtype)  # the pixels that move
        share, first_moment = average(inside), average(inside.mul_(around))
        second_moment = average(inside.mul_(around)) / contrast
        if mean is None:
            change, shift, regular = too_flat / second_moment, zero, second_moment > 1e-8
        elif rms is None:
            change, shift, regular = zero, too_dark / share, share > 1e-8
        else:
            determinant = second_moment * share - first_moment**2 / contrast
            change = (too_flat * share - too_dark * first_moment / contrast) / determinant
            shift = (too_dark * second_moment - too_flat * first_moment) / determinant
            regular = determinant > 1e-8
        shorter = (0.75 / change.abs()).clamp(max=1)  # far from the solution, a shorter step
        newton = torch.where(regular, _stretched(now_at, 1 + change * shorter, center, shift * shorter), fallback)

        now_at = torch.where(done, now_at, torch.where(nearer, newton, rescaled))
        rescaled = torch.where(nearer, fallback, rescaled)
    return kept


def _stretched(gain_offset: Tensor, factor: Tensor, center: Tensor, shift: Tensor) -> Tensor:
    gain, offset = gain_offset
    return torch.stack([gain * factor, center + (offset - center) * factor + shift])
