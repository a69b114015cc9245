"""The gain and the offset that give a windowed image a mean and a contrast, solved in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stimuli.appearance import beyond_range

Image = NDArray[np.float64]


def rms_contrast(image: NDArray[np.uint8] | Image) -> float:
    """Give the contrast of a whole image: standard deviation over pixels and channels, in units of [0, 1]."""
    return float(np.std(image) / (255.0 if image.dtype == np.uint8 else 1.0))


@dataclass(frozen=True)
class Window:
    """
    What of an image counts, and what surrounds it: ``I' = (1 - m) S + m (a I + b)``.

    Mean and contrast are weighted by m, over pixels and channels.

    Parameters
    ----------
    mask : array, shape (h, w)
        The opening m, 1 inside and 0 outside.
    surround : float or None
        The value S outside; None keeps the image as it was.
    """

    mask: Image
    surround: float | None

    def moments(self, image: Image) -> tuple[float, float]:
        """Return the mean and the standard deviation inside the window."""
        mean = self.mean(image)
        return mean, math.sqrt(max(0.0, self.mean((image - mean) ** 2)))

    def blend(self, original: Image, image: Image) -> Image:
        """Show an image in the window, in its surround."""
        outside = original if self.surround is None else self.surround
        return np.asarray((1.0 - self.mask) * outside + self.mask * image)

    def clipped(self, image: Image) -> float:
        """Return the fraction of the values inside the window that 8 bits cannot hold."""
        return float(np.mean(beyond_range(image)[:, self.mask > 0]))

    def solve(self, original: Image, image: Image, mean: float | None, rms: float | None) -> Image | None:
        """
        Return the windowed image that has the mean and the contrast, before rounding and clipping, or None.

        None stands for a contrast that no gain reaches: the image is uniform, or the edge of the window against the
        surround alone has more. Where mean is None the mean stays; where rms is None the gain is 1.
        """
        fixed = self.blend(original, np.zeros_like(image))
        inside = self.mask * image
        a0, a1, a2 = self.mean(fixed), self.mean(inside), self.mean(np.broadcast_to(self.mask, image.shape))
        goal = a0 + a1 if mean is None else mean
        gain = 1.0 if rms is None else _gain(self, fixed - goal + self.mask * ((goal - a0) / a2), inside, a1 / a2, rms)
        # From the blend and not from the sum of its parts, so that a gray surround stays exactly 0.5, the code 128.
        return None if gain is None else self.blend(original, gain * image + (goal - a0 - gain * a1) / a2)

    def mean(self, values: Image) -> float:
        """Return the mean of values inside the window."""
        return float((values * self.mask).sum() / (self.mask.sum() * len(values)))


def _gain(window: Window, rest: Image, inside: Image, center: float, rms: float) -> float | None:
    """Return the gain a > 0 for which ``rest + a * swing`` has the contrast, by its quadratic equation, or None."""
    swing = inside - window.mask * center
    power, cross, base = window.mean(swing**2), window.mean(rest * swing), window.mean(rest**2)
    inner = cross**2 - power * (base - rms**2)
    if power <= 0.0 or inner < 0.0:
        return None
    gain = (math.sqrt(inner) - cross) / power
    return gain if gain > 0.0 else None


def largest_shared(
    solve: Callable[[int, float], Image | None], window: Window, members: Sequence[int], rms: float, limit: float
) -> tuple[float | None, int | None]:
    """
    Return the largest contrast, up to `rms`, at which no member is clipped in more than `limit` of its values.

    Beside it comes the position of the member that set it, None where it was not lowered; no contrast is None where
    none suits that member. A lower contrast clips fewer values, so the search halves. What a member cannot have at all,
    since the edge of the window alone has more, is too low for it and no reason to go lower.
    """

    def clips(position: int, contrast: float) -> bool | None:
        image = solve(position, contrast)
        return None if image is None else window.clipped(image) > limit

    shared, lowest = rms, None
    for position in members:
        if not clips(position, shared):
            continue
        low, high, found = 0.0, shared, None
        while high - low > 1e-4 * high and high > 1e-4:
            middle = 0.5 * (low + high)
            too_high = clips(position, middle)
            low, high = (low, middle) if too_high else (middle, high)
            found = middle if too_high is False else found
        if found is None:
            return None, position
        shared, lowest = found, position
    return shared, lowest
