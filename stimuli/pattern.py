"""What every parametric family has: a signal in degrees, parameters with ranges, and a check against the raster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from stimuli.ranges import Choice, Range

Plane = NDArray[np.float64]
#: Sampled only where a range is given: full contrast in the middle of the image.
PLACE: Mapping[str, Range | Choice] = MappingProxyType(
    {
        "contrast": Range("uniform", 1.0, 1.0, legal=(-1.0, 1.0)),
        "x_deg": Range("uniform", 0.0, 0.0),
        "y_deg": Range("uniform", 0.0, 0.0),
    }
)


def within(angle_deg: float, period_deg: float) -> float:
    """
    Bring an angle into one period, the same for angles that differ by rounding only.

    Parameters
    ----------
    angle_deg : float
        The angle in degrees.
    period_deg : float
        After how many degrees it begins again.

    Returns
    -------
    float
        From 0 to the period, which is not included.

    Examples
    --------
    >>> within(-90.0, 360.0), within(359.9999999999, 360.0)
    (270.0, 0.0)
    """
    return round(angle_deg % period_deg, 9) % period_deg


@dataclass(frozen=True, kw_only=True)
class Pattern(ABC):
    """
    A picture given by a formula in degrees of visual angle: ``image = 0.5 + 0.5 * contrast * signal(x, y)``.

    x runs to the right and y upward from the middle of the image; orientations run counterclockwise from the x axis.
    A family is a frozen dataclass with a name, the ranges of its parameters and a method `signal`.

    Parameters
    ----------
    contrast : float
        Michelson contrast for a signal that reaches -1 and 1; a negative one inverts the picture.
    x_deg, y_deg : float
        Origin of the pattern, to the right of and above the middle of the image.
    seed : int, optional
        Seed of the sampler that chose the parameters; kept for the table, without effect on the picture.
    """

    family: ClassVar[str]
    ranges: ClassVar[Mapping[str, Range | Choice]]
    supersample: ClassVar[int] = 1
    bounded: ClassVar[bool] = False  # whether it should have faded into the gray before the edge of the image

    contrast: float = 1.0
    x_deg: float = 0.0
    y_deg: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check every parameter and store plain numbers."""
        for name, allowed in self.ranges.items():
            object.__setattr__(self, name, allowed.check(f"{name} of a {self.family} pattern", getattr(self, name)))

    @abstractmethod
    def signal(self, x: Plane, y: Plane) -> Plane:
        """
        Give the modulation about the background.

        Parameters
        ----------
        x, y : array of float64
            Degrees to the right of and above the middle of the image; shapes that broadcast.

        Returns
        -------
        array of float64
            Between -1 and 1, 0 on the background.
        """

    def fitted(self, size_px: int, size_deg: float) -> Self:
        """
        Return the pattern as an image of this resolution can hold it.

        Parameters
        ----------
        size_px : int
            Width and height of the image in pixels.
        size_deg : float
            Width and height of the image in degrees.

        Returns
        -------
        Pattern
            This pattern, with what depends on the resolution filled in.

        Raises
        ------
        ValueError
            If the pattern is finer than the pixels or does not fit into the image.
        """
        frequency, nyquist_cpd = getattr(self, "frequency_cpd", 0.0), 0.5 * size_px / size_deg
        if frequency >= nyquist_cpd:
            raise ValueError(
                f"frequency_cpd of a {self.family} pattern is {frequency:g} and the pixels hold less than "
                f"{nyquist_cpd:g} cycles/deg: lower the frequency, or give more pixels (size_px) or fewer degrees "
                "(size_deg)."
            )
        return self

    def refuse_beyond(self, reach_deg: float, size_px: int, size_deg: float) -> None:
        """
        Raise if a figure would be cut by the edge of the image.

        Parameters
        ----------
        reach_deg : float
            How far it reaches from the middle of the image, across or up.
        size_px : int
            Width and height of the image in pixels.
        size_deg : float
            Width and height of the image in degrees.

        Raises
        ------
        ValueError
            If it reaches beyond the image.
        """
        if reach_deg > 0.5 * size_deg:
            raise ValueError(
                f"A {self.family} pattern reaches {reach_deg:.3g} deg from the middle of an image ({size_px} px) that "
                f"ends at {0.5 * size_deg:g} deg: make it smaller (radius_deg), move it, or give more size_deg."
            )

    def columns(self) -> dict[str, Any]:
        """
        Give the row of the stimulus table.

        Returns
        -------
        dict
            The family, its own parameters and those of all families, as far as they are set.
        """
        common = [field.name for field in fields(Pattern)]
        names = [field.name for field in fields(self) if field.name not in common] + common
        values = {name: getattr(self, name) for name in names}
        return {"family": self.family} | {name: value for name, value in values.items() if value is not None}

    def key(self) -> Hashable:
        """
        Give a value that is equal for patterns that look the same.

        Returns
        -------
        hashable
            The family and its look; without contrast all patterns of a family look the same.
        """
        return (self.family, self._look() if self.contrast else None)

    def _look(self) -> Hashable:
        """Give a value that is equal for patterns of this family that look the same and can be seen."""
        return replace(self, seed=None)

    def _positive(self) -> Self:
        """Return the pattern with a positive contrast and a phase to match; for patterns that are waves."""
        turn = 180.0 if self.contrast < 0 else 0.0
        phase = within(getattr(self, "phase_deg", 0.0) + turn, 360.0)
        wave: dict[str, Any] = {"contrast": abs(self.contrast), "phase_deg": phase, "seed": None}
        return replace(self, **wave)

    def _centered(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        return x - self.x_deg, y - self.y_deg
