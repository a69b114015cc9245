"""Random numbers per image, on the device, without state: a hash of image key, step, draw and element.

An image's numbers do not depend on its neighbors, its place in the batch or what was drawn before, so a run can be cut
anywhere and resumed. Made by `engine` for every step, used by `transforms`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # as signed 64-bit numbers; products wrap around
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def _scramble_(state: Tensor) -> Tensor:
    """Scramble 64-bit states in place: the output function of SplitMix64."""
    for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
        state ^= (state >> shift) & ((1 << (64 - shift)) - 1)  # the sign must not move in
        state *= factor
    state ^= (state >> 31) & ((1 << 33) - 1)
    return state


class Streams:
    """One stream of random numbers per image, at one step of its optimization.

    Element e of draw d of an image with key k at step t is output e of SplitMix64, started at a hash of (k, t, d).
    Every call is the next draw.

    Parameters
    ----------
    keys : Tensor, (image,)
        64-bit key of each image, int64.
    steps : Tensor, (image,)
        Step of each image, int64, on the same device.

    References
    ----------
    Steele, Lea & Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.

    Examples
    --------
    >>> streams = Streams(torch.tensor([1, 2, 1]), torch.tensor([0, 0, 0]))
    >>> first = streams.uniform(4)
    >>> first.shape, torch.equal(first[0], first[2]), torch.equal(first[0], first[1])
    (torch.Size([3, 4]), True, False)
    """

    def __init__(self, keys: Tensor, steps: Tensor) -> None:
        self._base = _scramble_(keys ^ _scramble_(steps * _MIX_2 + _MIX_1))
        self._draw = 0

    def repeat(self, views: int) -> Streams:
        """Return streams of several views of each image, each view with its own.

        Parameters
        ----------
        views : int
            Views of each image.

        Returns
        -------
        Streams
            Image 0 view 0, image 0 view 1, and so on.
        """
        each = torch.arange(views, device=self._base.device).repeat(len(self._base))
        return Streams(self._base.repeat_interleave(views), each)

    def _bits(self, count: int) -> Tensor:
        """Return (image, count) 64-bit numbers."""
        self._draw += 1
        start = _scramble_(self._base ^ (self._draw << 32))
        elements = torch.arange(1, count + 1, device=start.device) * _GOLDEN
        return _scramble_(start[:, None] + elements)

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers evenly distributed over [0, 1).

        Parameters
        ----------
        *shape : int
            Shape of the numbers of one image.

        Returns
        -------
        Tensor, (image, *shape)
            Multiples of 2^-24, float32.
        """
        bits = self._bits(math.prod(shape)) & 0xFFFFFF
        return (bits.to(torch.float32) * 2.0**-24).view(-1, *shape)

    def normal(self, *shape: int) -> Tensor:
        """Return normally distributed numbers, mean 0 and standard deviation 1.

        Two 24-bit uniform numbers give two normal ones by the transform of Box and Muller; none exceeds 5.9.

        Parameters
        ----------
        *shape : int
            Shape of the numbers of one image.

        Returns
        -------
        Tensor, (image, *shape)
            Float32.
        """
        count = math.prod(shape)
        bits = self._bits((count + 1) // 2)
        radius = ((bits & 0xFFFFFF) + 1).to(torch.float32).mul_(2.0**-24).log_().mul_(-2).sqrt_()
        angle = ((bits >> 24) & 0xFFFFFF).to(torch.float32).mul_(2 * math.pi * 2.0**-24)
        pairs = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
        return pairs[:, :count].reshape(-1, *shape)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Return whole numbers evenly distributed over low, ..., high.

        Parameters
        ----------
        low, high : int
            Smallest and largest number, both included; fewer than 2^16 in all, so that the bias is below 2^-32.
        *shape : int
            Shape of the numbers of one image.

        Returns
        -------
        Tensor, (image, *shape)
            Int64.
        """
        bits = (self._bits(math.prod(shape)) >> 16) & ((1 << 48) - 1)
        return (low + bits % (high - low + 1)).view(-1, *shape)
