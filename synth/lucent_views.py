"""The standard transforms of lucent, drawn for each image on its own: pad, and choose a rotation or a size from a list.

In: images (image, channel, height, width) and their `Streams`. Out: views, as those of `transforms`. `Affine` does the
work of all of them in one resampling, over continuous ranges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from synth._resample import check_border, rotation, warp
from synth.random_streams import Streams
from synth.transforms import Jitter, Transform


@dataclass(frozen=True)
class Rotate:
    """Rotate each image by one of several angles; a list with repetitions makes some of them more likely.

    Parameters
    ----------
    angles_deg : tuple of float
        Angles in degrees, counterclockwise.
    border : str
        What lies beyond the image: ``"reflect"`` or ``"gray"``.

    Raises
    ------
    ValueError
        Without angles, or for an unknown border.

    Examples
    --------
    >>> image = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    >>> Rotate((90.0,))(image, Streams(torch.tensor([0]), torch.tensor([0]))).round(decimals=3)
    tensor([[[[1., 3.],
              [0., 2.]]]])
    """

    angles_deg: tuple[float, ...]
    border: str = "reflect"

    def __post_init__(self) -> None:
        if not self.angles_deg:
            raise ValueError("Rotate got no angles; give at least one")
        check_border(self.border)

    def __call__(self, images: Tensor, streams: Streams) -> Tensor:
        """Return the rotated images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images.
        streams : Streams
            Random numbers.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Rotated images.
        """
        angle = _one_of(tuple(math.radians(angle) for angle in self.angles_deg), streams)
        return warp(images, rotation(angle, torch.ones_like(angle)), angle.new_zeros(len(angle), 2), self.border)


@dataclass(frozen=True)
class Rescale:
    """Enlarge or shrink each image round its middle by one of several factors; the frame keeps its size.

    Parameters
    ----------
    factors : tuple of float
        Factors, above 1 for larger.
    border : str
        What lies beyond the image: ``"reflect"`` or ``"gray"``.

    Raises
    ------
    ValueError
        Without factors, for one that is not positive, or an unknown border.

    Examples
    --------
    >>> image = torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]])
    >>> Rescale((2.0,))(image, Streams(torch.tensor([0]), torch.tensor([0])))
    tensor([[[[0.0000, 0.2500, 0.7500, 1.0000]]]])
    """

    factors: tuple[float, ...]
    border: str = "reflect"

    def __post_init__(self) -> None:
        if not self.factors or not min(self.factors) > 0:
            raise ValueError(f"Rescale got factors {self.factors}; give at least one, all positive")
        check_border(self.border)

    def __call__(self, images: Tensor, streams: Streams) -> Tensor:
        """Return the rescaled images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images.
        streams : Streams
            Random numbers.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Rescaled images.
        """
        zoom = _one_of(self.factors, streams)
        return warp(images, rotation(torch.zeros_like(zoom), zoom), zoom.new_zeros(len(zoom), 2), self.border)


@dataclass(frozen=True)
class Pad:
    """Put a gray border round each image, which grows.

    Parameters
    ----------
    width_px : int
        Width of the border in pixels, on every side.

    Raises
    ------
    ValueError
        When the width is negative.

    Examples
    --------
    >>> Pad(1)(torch.zeros(1, 1, 1, 1), Streams(torch.tensor([0]), torch.tensor([0])))[0, 0, 1]
    tensor([0.5000, 0.0000, 0.5000])
    """

    width_px: int

    def __post_init__(self) -> None:
        if self.width_px < 0:
            raise ValueError(f"Pad got a width of {self.width_px} pixels; it must not be negative")

    def __call__(self, images: Tensor, streams: Streams) -> Tensor:
        """Return the padded images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images.
        streams : Streams
            Not used.

        Returns
        -------
        Tensor, (image, channel, height + 2 width_px, width + 2 width_px)
            Larger images.
        """
        del streams
        return functional.pad(images, [self.width_px] * 4, value=0.5)


@lru_cache(maxsize=64)
def _table(values: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, device=device)


def _one_of(values: tuple[float, ...], streams: Streams) -> Tensor:
    """Return one of the values for each image, (image,)."""
    chosen = streams.integers(0, len(values) - 1)
    return _table(values, chosen.device)[chosen]


#: the standard transforms of lucent (Apache-2.0), each image on its own, and with gray where they let zeros in
LUCENT_STANDARD: tuple[Transform, ...] = (
    Pad(12),
    Jitter(0, 7),
    Rescale(tuple(1 + (k - 5) / 50 for k in range(11)), border="gray"),
    Rotate((*(float(angle) for angle in range(-10, 11)), *(0.0,) * 5), border="gray"),
    Jitter(0, 3),
)
