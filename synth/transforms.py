"""Random views of an image, one random stream per image, so that no image depends on its neighbors in a batch.

In: images (image, channel, height, width) and their `Streams`. Out: transformed images, differentiable; they
keep their size. Applied by `engine` before the network at every step; nothing waits for the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from synth._resample import check_border, roll, rotation, warp
from synth.preconditioning import gaussian_blur
from synth.random_streams import Streams


class Transform(Protocol):
    """A random, differentiable change of images."""

    def __call__(self, images: Tensor, streams: Streams) -> Tensor:
        """Return the transformed images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images in [0, 1].
        streams : Streams
            Random numbers, one stream for each image.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Transformed images.
        """


@dataclass(frozen=True)
class Jitter:
    """Shift each image by whole pixels, wrapping around.

    Parameters
    ----------
    low, high : int
        Smallest and largest shift in pixels, both included; down and right are drawn separately.

    Raises
    ------
    ValueError
        When low is above high.

    Examples
    --------
    >>> Jitter(1, 1)(torch.tensor([[[[1.0, 2.0]]]]), Streams(torch.tensor([0]), torch.tensor([0])))
    tensor([[[[2., 1.]]]])
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"Jitter got low {self.low} and high {self.high}; the first must not be the larger")

    def __call__(self, images: Tensor, streams: Streams) -> Tensor:
        """Return the shifted images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images.
        streams : Streams
            Random numbers.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Shifted images.
        """
        shifts = streams.integers(self.low, self.high, 2)
        return roll(images, shifts[:, 0], shifts[:, 1], max(abs(self.low), abs(self.high)))


@dataclass(frozen=True)
class Affine:
    """Rotate, rescale and shift each image a little, evenly over the ranges, in one bilinear resampling.

    Parameters
    ----------
    rotate_deg : float
        Largest rotation in degrees, either way.
    rescale : float
        Largest relative change of size, either way; below 1.
    shift_px : float
        Largest shift in pixels, either way and on both axes.
    border : str
        What lies beyond the image: ``"reflect"``, its mirror image, or ``"gray"``.

    Raises
    ------
    ValueError
        For a range that is negative or too large, or an unknown border.

    Examples
    --------
    >>> images = torch.rand(1, 3, 8, 8)
    >>> views = Affine(0, 0, 0)(images, Streams(torch.tensor([0]), torch.tensor([0])))
    >>> torch.allclose(views, images, atol=1e-5)
    True
    """

    rotate_deg: float
    rescale: float
    shift_px: float
    border: str = "reflect"

    def __post_init__(self) -> None:
        if self.rotate_deg < 0 or self.shift_px < 0 or not 0 <= self.rescale < 1:
            raise ValueError(
                f"{self}: rotate_deg and shift_px are the largest change either way and not negative, rescale is "
                "between 0 and 1"
            )
        check_border(self.border)

    def __call__(self, images: Tensor, streams: Streams) -> Tensor:
        """Return the warped images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images.
        streams : Streams
            Random numbers.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Warped images.
        """
        draws = streams.uniform(4) * 2 - 1
        angle = draws[:, 0] * math.radians(self.rotate_deg)
        matrix = rotation(angle, 1 + draws[:, 1] * self.rescale)
        return warp(images, matrix, draws[:, 2:] * self.shift_px, self.border)


@dataclass(frozen=True)
class Blur:
    """Blur each image by a Gaussian of random width, with reflected borders.

    Parameters
    ----------
    low_px, high_px : float
        Smallest and largest standard deviation in pixels.

    Raises
    ------
    ValueError
        When the widths are negative or the first is the larger.

    Examples
    --------
    >>> images = torch.rand(1, 3, 8, 8)
    >>> views = Blur(0.5, 1.0)(images, Streams(torch.tensor([0]), torch.tensor([0])))
    >>> bool(views.std() < images.std())
    True
    """

    low_px: float
    high_px: float

    def __post_init__(self) -> None:
        if not 0 <= self.low_px <= self.high_px:
            raise ValueError(f"Blur got widths from {self.low_px} to {self.high_px} pixels; expected 0 <= low <= high")

    def __call__(self, images: Tensor, streams: Streams) -> Tensor:
        """Return the blurred images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images.
        streams : Streams
            Random numbers.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Blurred images.
        """
        sigma_px = self.low_px + (self.high_px - self.low_px) * streams.uniform()
        return gaussian_blur(images, sigma_px, self.high_px)


@dataclass(frozen=True)
class PixelNoise:
    """Add fresh Gaussian noise to every pixel.

    Parameters
    ----------
    sd : float
        Standard deviation in units of [0, 1].

    Raises
    ------
    ValueError
        When it is negative.

    Examples
    --------
    >>> PixelNoise(0.1)(torch.zeros(1, 3, 8, 8), Streams(torch.tensor([0]), torch.tensor([0]))).std().item() > 0.05
    True
    """

    sd: float

    def __post_init__(self) -> None:
        if not self.sd >= 0:
            raise ValueError(f"PixelNoise got sd {self.sd}; it must not be negative")

    def __call__(self, images: Tensor, streams: Streams) -> Tensor:
        """Return the noisy images; values may leave [0, 1].

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images.
        streams : Streams
            Random numbers.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Noisy images.
        """
        return torch.add(images, streams.normal(*images.shape[1:]), alpha=self.sd)
