"""Random views of an image, one random stream per image, so that no image depends on its neighbors in a batch.

In: images (image, channel, height, width) and one `torch.Generator` per image. Out: transformed images of equal shape,
differentiable. Applied by `engine` before the network at every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Transform(Protocol):
    """A random, differentiable change of images."""

    def __call__(self, images: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Return the transformed images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images in [0, 1].
        generators : list of torch.Generator
            One for each image, on the CPU.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Transformed images.
        """


def _uniform(generators: list[torch.Generator], count: int) -> Tensor:
    """Return (image, count) numbers in [-1, 1)."""
    return torch.stack([torch.rand(count, generator=generator) for generator in generators]) * 2 - 1


@dataclass(frozen=True)
class Jitter:
    """Shift each image by whole pixels, wrapping around.

    Parameters
    ----------
    low, high : int
        Smallest and largest shift in pixels, both included.

    Examples
    --------
    >>> Jitter(1, 1)(torch.tensor([[[[1.0, 2.0]]]]), [torch.Generator()])
    tensor([[[[2., 1.]]]])
    """

    low: int
    high: int

    def __call__(self, images: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Return the shifted images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images.
        generators : list of torch.Generator
            One for each image.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Shifted images.
        """
        shifts = [torch.randint(self.low, self.high + 1, (2,), generator=g).tolist() for g in generators]
        return torch.stack([image.roll(shift, (1, 2)) for image, shift in zip(images, shifts, strict=True)])


@dataclass(frozen=True)
class Affine:
    """Rotate, rescale and shift each image a little, with reflected borders.

    Parameters
    ----------
    rotate_deg : float
        Largest rotation in degrees, either way.
    rescale : float
        Largest relative change of size, either way.
    shift_px : float
        Largest shift in pixels, either way and on both axes.

    Examples
    --------
    >>> images = torch.rand(1, 3, 8, 8)
    >>> torch.allclose(Affine(0, 0, 0)(images, [torch.Generator()]), images, atol=1e-5)
    True
    """

    rotate_deg: float
    rescale: float
    shift_px: float

    def __call__(self, images: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Return the warped images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images.
        generators : list of torch.Generator
            One for each image.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Warped images, bilinear interpolation.
        """
        height, width = images.shape[-2:]
        draws = _uniform(generators, 4).to(images.device)
        angle = draws[:, 0] * math.radians(self.rotate_deg)
        zoom = 1 + draws[:, 1] * self.rescale
        cosine, sine = angle.cos() / zoom, angle.sin() / zoom
        aspect = height / width  # the grid is normalized by each side, a rotation is not
        shift_x, shift_y = draws[:, 2] * 2 * self.shift_px / width, draws[:, 3] * 2 * self.shift_px / height
        theta = torch.stack([cosine, -sine * aspect, shift_x, sine / aspect, cosine, shift_y], 1).view(-1, 2, 3)
        grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


@dataclass(frozen=True)
class PixelNoise:
    """Add fresh Gaussian noise to every pixel.

    Parameters
    ----------
    sd : float
        Standard deviation in units of [0, 1].

    Examples
    --------
    >>> PixelNoise(0.1)(torch.zeros(1, 3, 8, 8), [torch.Generator().manual_seed(0)]).std().item() > 0.05
    True
    """

    sd: float

    def __call__(self, images: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Return the noisy images; values may leave [0, 1].

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images.
        generators : list of torch.Generator
            One for each image.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Noisy images.
        """
        noise = torch.stack([torch.randn(images.shape[1:], generator=generator) for generator in generators])
        return images + self.sd * noise.to(images.device)
