"""Images with the amplitude spectrum of a whole set, each with its own phases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]
Read = Callable[[int], Image]
_ABSENT = 1e-9


def match_spectrum(read: Read, members: Sequence[int], rotational: bool) -> Read:
    """
    Give images, shape (1, h, w), the mean amplitude spectrum of the members.

    ``I' = ifft2(A exp(i phase(fft2(I))))``, where A is the mean of |fft2| over the members. With `rotational`, A is the
    image's own amplitude, scaled at every radius so that its mean over orientations is the members' mean; a radius is
    a whole number of cycles per image width. The mean luminance, radius 0, is matched too. Frequencies that an image
    lacks stay absent.
    """
    shape = read(members[0]).shape[1:]
    bins = _radius(shape) if rotational else None
    total = sum(_spread(np.abs(np.fft.rfft2(read(i)[0])), bins, shape) for i in members)
    target = np.asarray(total / len(members))

    def matched(position: int) -> Image:
        spectrum = np.fft.rfft2(read(position)[0])
        own = _spread(np.abs(spectrum), bins, shape)
        present = own > _ABSENT * own[0, 0]  # what rounding leaves of an absent frequency has no phase to keep
        spectrum *= np.divide(target, own, out=np.zeros_like(own), where=present)
        return np.fft.irfft2(spectrum, s=shape)[np.newaxis]

    return matched


def _radius(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the radius in cycles per image width of every entry of rfft2, 0 for the mean alone."""
    height, width = shape
    vertical = np.fft.fftfreq(height)[:, None] * width
    horizontal = np.fft.rfftfreq(width)[None, :] * width
    radius = np.maximum(1, np.rint(np.hypot(vertical, horizontal))).astype(np.int64)
    radius[0, 0] = 0
    return radius


def _spread(amplitude: Image, bins: NDArray[np.int64] | None, shape: tuple[int, ...]) -> Image:
    """Return the amplitude, or at every entry its mean over the entries of the same radius in the whole plane."""
    if bins is None:
        return amplitude
    weight = np.full(amplitude.shape, 2.0)  # rfft2 keeps one of two conjugate entries
    weight[:, 0] = 1.0
    if shape[1] % 2 == 0:
        weight[:, -1] = 1.0
    sums = np.bincount(bins.ravel(), (amplitude * weight).ravel())
    return np.asarray((sums / np.bincount(bins.ravel(), weight.ravel()))[bins])
