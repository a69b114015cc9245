"""Where an image may differ from its surround: a disk with a soft edge. Used by `constraints`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from stimuli import apertures


@dataclass(frozen=True)
class Aperture:
    """A disk with a raised-cosine edge, placed like a receptive field; lengths are fractions of the image width.

    Parameters
    ----------
    x, y : float
        Place of the middle, to the right of and above the middle of the image.
    radius : float
        Where the disk ends.
    edge : float
        Width of the edge inside the radius, over which the disk falls from 1 to 0; 0 is a sharp edge.

    Raises
    ------
    ValueError
        When a number is not finite, the radius not positive, or the edge wider than the radius.

    Examples
    --------
    >>> Aperture(radius=0.5, edge=0.25).mask(4, 4)[0, 0, 0].double().round(decimals=3).tolist()
    [0.0, 0.374, 0.374, 0.0]
    """

    x: float = 0.0
    y: float = 0.0
    radius: float = 0.5
    edge: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            if not math.isfinite(getattr(self, field.name)):
                raise ValueError(
                    f"{field.name} of the aperture is {getattr(self, field.name)}; expected a finite number"
                )
        if not self.radius > 0 or not 0 <= self.edge <= self.radius:
            raise ValueError(
                f"the aperture has radius {self.radius} and edge {self.edge}; expected a positive radius and an edge "
                "between 0 and the radius, in fractions of the image width"
            )

    @classmethod
    def from_receptive_field(
        cls, x_deg: float, y_deg: float, sd_deg: float, size_deg: float, extent: float = 3.0
    ) -> Aperture:
        """Return an aperture round a receptive field.

        Parameters
        ----------
        x_deg, y_deg : float
            Place of the receptive field in degrees, to the right of and above the middle of the image.
        sd_deg : float
            Its standard deviation in degrees.
        size_deg : float
            Width of the image in degrees.
        extent : float
            Radius in standard deviations, at least 1; the last of them is the edge.

        Returns
        -------
        Aperture
            The aperture.

        Raises
        ------
        ValueError
            When a length is not positive.

        Examples
        --------
        >>> Aperture.from_receptive_field(1.0, -0.5, 0.5, size_deg=8.0)
        Aperture(x=0.125, y=-0.0625, radius=0.1875, edge=0.0625)
        """
        if not (sd_deg > 0 and size_deg > 0 and extent >= 1):
            raise ValueError(
                f"sd_deg is {sd_deg}, size_deg {size_deg}, extent {extent}; expected positive degrees and an extent of "
                "at least 1"
            )
        return cls(x_deg / size_deg, y_deg / size_deg, extent * sd_deg / size_deg, sd_deg / size_deg)

    def mask(self, height: int, width: int) -> Tensor:
        """Return how far the aperture is open at every pixel.

        Parameters
        ----------
        height, width : int
            Size of the image in pixels.

        Returns
        -------
        Tensor, (1, 1, height, width)
            1 inside, 0 outside, a raised cosine in between.

        Raises
        ------
        ValueError
            When the aperture is closed at every pixel.
        """
        window = apertures.Aperture(self.radius, self.edge, self.x, self.y)  # degrees of an image 1 deg wide
        try:
            return torch.from_numpy(window.mask((height, width), size_deg=1.0)).float()[None, None]
        except ValueError:
            raise ValueError(
                f"{self} is closed at every pixel of an image of {height} x {width}; move or enlarge it"
            ) from None
