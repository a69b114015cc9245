"""Images whose pixel values are exactly those of a target, in the order of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]
Read = Callable[[int], Image]
MIN_PIXELS = 64
_STEPS = 255 * 2**20  # of the range: every code falls on one of them


def average_values(read: Read, members: Sequence[int], opened: NDArray[np.bool_]) -> Image:
    """Give the mean of the sorted values of the members inside the aperture: the average of their quantiles."""
    total = np.zeros(int(opened.sum()), np.int64)
    for i in members:  # as whole numbers: sums of fractions would depend on the order of the members
        total += np.rint(np.sort(read(i)[0][opened]) * _STEPS).astype(np.int64)
    return np.asarray(total / (_STEPS * len(members)))


def match_histogram(
    read: Read, opened: NDArray[np.bool_], target: Image, rng: Callable[[int], np.random.Generator]
) -> Read:
    """
    Give images, shape (1, h, w), the values of a target in the order of their own.

    The k-th darkest of the open pixels gets the k-th darkest value of the target (quantiles, where their numbers
    differ). Equal pixels are ordered by the mean of their 3 x 3 and then 5 x 5 neighbors, then at random, so that flat
    parts become fine grain and no ramps. All other pixels get what pixels of their value got in the mean.
    """
    from scipy.ndimage import uniform_filter

    count = int(opened.sum())
    values = np.sort(np.asarray(target, np.float64).ravel())
    if len(values) != count:
        values = np.quantile(values, (np.arange(count) + 0.5) / count)

    def matched(position: int) -> Image:
        image = read(position)[0]
        own = image[opened]
        near = [uniform_filter(image, size, mode="nearest")[opened].round(9) for size in (3, 5)]
        chance = rng(position).random(count)
        order = np.lexsort((chance, near[1], near[0], own))
        given = np.empty(count)
        given[order] = values
        levels, which = np.unique(own, return_inverse=True)
        means = np.bincount(which, given) / np.bincount(which)
        new = np.interp(image, levels, means)
        new[opened] = given
        return new[np.newaxis]

    return matched
