"""Gratings in polar coordinates (concentric, radial, spiral, log-polar) and hyperbolic gratings.

Used in area V4 by Gallant, Braun & Van Essen (1993, Science 259, 100) and Gallant, Connor, Rakshit, Lewis & Van Essen
(1996, Journal of Neurophysiology 76, 2718); the ranges here are ours, not theirs.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from stimuli.gratings import FREQUENCY, PHASE, rotated
from stimuli.pattern import PLACE, Pattern, Plane, within
from stimuli.ranges import Choice, Range

_TURN = 2.0 * math.pi


@dataclass(frozen=True, kw_only=True)
class PolarPattern(Pattern):
    """
    The cosine of a phase that depends on distance r and angle a, blank where it would be finer than the pixels.

    Parameters
    ----------
    contrast : float
        Michelson contrast; a negative one inverts the picture.
    x_deg, y_deg : float
        Middle of the pattern.
    seed : int, optional
        Seed of the sampler, for the table.
    inner_radius_deg : float, optional
        Radius of the blank disk in the middle; None takes the radius at which the pattern reaches the finest that the
        pixels hold.
    """

    supersample: ClassVar[int] = 4

    inner_radius_deg: float | None = None

    def __post_init__(self) -> None:
        """Check every parameter and store plain numbers."""
        super().__post_init__()
        if self.inner_radius_deg is not None:
            inner = Range("uniform", 0.0, 0.0, legal=(0.0, 1000.0))
            label = f"inner_radius_deg of a {self.family} pattern"
            object.__setattr__(self, "inner_radius_deg", inner.check(label, self.inner_radius_deg))

    @abstractmethod
    def _angle(self, r: Plane, a: Plane) -> Plane:
        """Give the phase in radians at a distance in degrees (positive) and an angle in radians."""

    @abstractmethod
    def _finest_deg(self, limit_cpd: float) -> float:
        """Give the radius at which the local frequency reaches a limit; it is lower outside."""

    def fitted(self, size_px: int, size_deg: float) -> Self:
        """
        Return the pattern with the blank disk that an image of this resolution needs.

        Parameters
        ----------
        size_px : int
            Width of the image in pixels.
        size_deg : float
            Width of the image in degrees.

        Returns
        -------
        PolarPattern
            This pattern with its inner radius.

        Raises
        ------
        ValueError
            If the pattern is finer than the pixels everywhere, or outside the inner radius that was asked for.
        """
        super().fitted(size_px, size_deg)
        nyquist = 0.5 * size_px / size_deg
        needed = self._finest_deg(nyquist)
        if needed > 0.5 * size_deg or (self.inner_radius_deg is not None and self.inner_radius_deg < needed):
            asked = "" if self.inner_radius_deg is None else f" and inner_radius_deg is {self.inner_radius_deg:g}"
            raise ValueError(
                f"A {self.family} pattern with these parameters is finer than the pixels hold ({nyquist:g} cycles/deg) "
                f"within {needed:.3g} deg of its middle{asked}: give fewer cycles or more pixels, or leave "
                "inner_radius_deg out."
            )
        return replace(self, inner_radius_deg=needed) if self.inner_radius_deg is None else self

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
            Between -1 and 1, 0 in the blank disk.
        """
        across, up = self._centered(x, y)
        r = np.hypot(across, up)
        tiny = np.finfo(np.float64).tiny  # the logarithm of a log-polar pattern has none at 0
        inside = r < (self.inner_radius_deg or 0.0)
        return np.where(inside, 0.0, np.cos(self._angle(np.maximum(r, tiny), np.arctan2(up, across))))

    def _look(self) -> Hashable:
        """Give the pattern with its phase in one turn."""
        return self._positive()


@dataclass(frozen=True, kw_only=True)
class Concentric(PolarPattern):
    """
    Rings, ``s = cos(2 pi f r + p)``.

    Parameters
    ----------
    contrast : float
        Michelson contrast; a negative one inverts the picture.
    x_deg, y_deg : float
        Middle of the rings.
    seed : int, optional
        Seed of the sampler, for the table.
    inner_radius_deg : float, optional
        Radius of a blank disk in the middle; none by default.
    frequency_cpd : float
        Spatial frequency f along the radius in cycles per degree.
    phase_deg : float
        Phase p in degrees; at 0 the middle is bright.

    Examples
    --------
    >>> Concentric(frequency_cpd=1.0).signal(np.array([0.0, 0.3]), np.array([0.5, 0.4])).round(6).tolist()
    [-1.0, -1.0]
    """

    family: ClassVar[str] = "concentric"
    ranges: ClassVar[Mapping[str, Range | Choice]] = {"frequency_cpd": FREQUENCY, "phase_deg": PHASE, **PLACE}

    frequency_cpd: float = 1.0
    phase_deg: float = 0.0

    def _angle(self, r: Plane, a: Plane) -> Plane:
        """Give the phase in radians at a distance in degrees (positive) and an angle in radians."""
        return _TURN * self.frequency_cpd * r + math.radians(self.phase_deg) + 0.0 * a

    def _finest_deg(self, limit_cpd: float) -> float:
        """Give the radius at which the local frequency reaches a limit; it is lower outside."""
        return 0.0 * limit_cpd


@dataclass(frozen=True, kw_only=True)
class Radial(PolarPattern):
    """
    A star, ``s = cos(n a + p)``, with the local frequency ``n / (2 pi r)``.

    Parameters
    ----------
    contrast : float
        Michelson contrast; a negative one inverts the picture.
    x_deg, y_deg : float
        Middle of the star.
    seed : int, optional
        Seed of the sampler, for the table.
    inner_radius_deg : float, optional
        Radius of the blank disk in the middle; None takes ``n / (2 pi Nyquist)``.
    angular_cycles : int
        Cycles n per turn, 1 or more.
    phase_deg : float
        Phase p in degrees; at 0 a bright ray points along the x axis.

    Examples
    --------
    >>> Radial(angular_cycles=2).signal(np.array([1.0, 0.0]), np.array([0.0, 1.0])).round(6).tolist()
    [1.0, -1.0]
    """

    family: ClassVar[str] = "radial"
    ranges: ClassVar[Mapping[str, Range | Choice]] = {
        "angular_cycles": Range("whole", 2, 12, legal=(1, 200)),
        "phase_deg": PHASE,
        **PLACE,
    }

    angular_cycles: int = 4
    phase_deg: float = 0.0

    def _angle(self, r: Plane, a: Plane) -> Plane:
        """Give the phase in radians at a distance in degrees (positive) and an angle in radians."""
        return self.angular_cycles * a + math.radians(self.phase_deg) + 0.0 * r

    def _finest_deg(self, limit_cpd: float) -> float:
        """Give the radius at which the local frequency reaches a limit; it is lower outside."""
        return self.angular_cycles / (_TURN * limit_cpd)


@dataclass(frozen=True, kw_only=True)
class Spiral(PolarPattern):
    """
    A spiral, ``s = cos(2 pi f r + n a + p)``, with the local frequency ``sqrt(f^2 + (n / (2 pi r))^2)``.

    Parameters
    ----------
    contrast : float
        Michelson contrast; a negative one inverts the picture.
    x_deg, y_deg : float
        Middle of the spiral.
    seed : int, optional
        Seed of the sampler, for the table.
    inner_radius_deg : float, optional
        Radius of the blank disk in the middle; None takes that at which the local frequency is the Nyquist frequency.
    frequency_cpd : float
        Spatial frequency f along the radius in cycles per degree.
    angular_cycles : int
        Number of arms n, not 0; with a positive number the arms turn clockwise on their way outward.
    phase_deg : float
        Phase p in degrees.

    Examples
    --------
    >>> one_arm = Spiral(frequency_cpd=1.0, angular_cycles=1)
    >>> one_arm.signal(np.array([1.0, 0.0]), np.array([0.0, -0.25])).round(6).tolist()
    [1.0, 1.0]
    """

    family: ClassVar[str] = "spiral"
    ranges: ClassVar[Mapping[str, Range | Choice]] = {
        "frequency_cpd": FREQUENCY,
        "angular_cycles": Range("whole", -8, 8, legal=(-200, 200), excluded=(0,)),
        "phase_deg": PHASE,
        **PLACE,
    }

    frequency_cpd: float = 1.0
    angular_cycles: int = 2
    phase_deg: float = 0.0

    def _angle(self, r: Plane, a: Plane) -> Plane:
        """Give the phase in radians at a distance in degrees (positive) and an angle in radians."""
        return _TURN * self.frequency_cpd * r + self.angular_cycles * a + math.radians(self.phase_deg)

    def _finest_deg(self, limit_cpd: float) -> float:
        """Give the radius at which the local frequency reaches a limit; it is lower outside."""
        return abs(self.angular_cycles) / (_TURN * math.sqrt(limit_cpd**2 - self.frequency_cpd**2))


@dataclass(frozen=True, kw_only=True)
class LogPolar(PolarPattern):
    """
    A grating that looks the same at every scale, ``s = cos(w ln r + n a + p)``.

    The local frequency falls with the distance, ``sqrt(w^2 + n^2) / (2 pi r)`` cycles per degree (Broderick, Simoncelli
    & Winawer 2022, Journal of Vision 22(4), 3).

    Parameters
    ----------
    contrast : float
        Michelson contrast; a negative one inverts the picture.
    x_deg, y_deg : float
        Middle of the pattern.
    seed : int, optional
        Seed of the sampler, for the table.
    inner_radius_deg : float, optional
        Radius of the blank disk in the middle; None takes that at which the local frequency is the Nyquist frequency.
    radial_frequency : float
        w in radians per factor e of the distance (r in degrees); 0 gives a star.
    angular_cycles : int
        Cycles n per turn; 0 gives rings.
    phase_deg : float
        Phase p in degrees, at 1 deg from the middle to the right.

    Examples
    --------
    >>> rings = LogPolar(radial_frequency=2 * math.pi / math.log(2.0), angular_cycles=0)
    >>> rings.signal(np.array([1.0, 2.0, 4.0]), np.zeros(3)).round(6).tolist()
    [1.0, 1.0, 1.0]
    """

    family: ClassVar[str] = "log_polar"
    ranges: ClassVar[Mapping[str, Range | Choice]] = {
        "radial_frequency": Range("uniform", 0.0, 12.0, legal=(-200.0, 200.0)),
        "angular_cycles": Range("whole", -12, 12, legal=(-200, 200)),
        "phase_deg": PHASE,
        **PLACE,
    }

    radial_frequency: float = 6.0
    angular_cycles: int = 6
    phase_deg: float = 0.0

    def _angle(self, r: Plane, a: Plane) -> Plane:
        """Give the phase in radians at a distance in degrees (positive) and an angle in radians."""
        return self.radial_frequency * np.log(r) + self.angular_cycles * a + math.radians(self.phase_deg)

    def _finest_deg(self, limit_cpd: float) -> float:
        """Give the radius at which the local frequency reaches a limit; it is lower outside."""
        return math.hypot(self.radial_frequency, self.angular_cycles) / (_TURN * limit_cpd)

    def _look(self) -> Hashable:
        """Give the pattern, of the two with all signs turned round the one with the larger frequency."""
        w, n = self.radial_frequency, self.angular_cycles
        back = replace(self, radial_frequency=0.0 - w, angular_cycles=-n, phase_deg=-self.phase_deg)
        return (back if (w, n) < (0.0, 0) else self)._positive()


@dataclass(frozen=True, kw_only=True)
class Hyperbolic(Pattern):
    """
    A hyperbolic grating, ``s = cos(2 pi f sqrt(|u^2 - v^2|) + p)``.

    u and v are the coordinates turned by the orientation. Along both axes the frequency is f; toward the asymptotes at
    45 deg to them it grows without bound, ``f r / sqrt(|u^2 - v^2|)``, and the picture fades to the local mean there.

    Parameters
    ----------
    contrast : float
        Michelson contrast; a negative one inverts the picture.
    x_deg, y_deg : float
        Middle of the pattern.
    seed : int, optional
        Seed of the sampler, for the table.
    frequency_cpd : float
        Spatial frequency f along the two axes in cycles per degree.
    orientation_deg : float
        Direction of the u axis in degrees, counterclockwise from the x axis; a turn by 90 gives the same picture.
    phase_deg : float
        Phase p in degrees, the phase on the asymptotes.

    Examples
    --------
    >>> Hyperbolic(frequency_cpd=1.0).signal(np.array([1.0, 0.5, 2.0]), np.array([0.0, 0.0, 2.0])).round(6).tolist()
    [1.0, -1.0, 1.0]
    """

    family: ClassVar[str] = "hyperbolic"
    ranges: ClassVar[Mapping[str, Range | Choice]] = {
        "frequency_cpd": FREQUENCY,
        "orientation_deg": Range("uniform", 0.0, 90.0),
        "phase_deg": PHASE,
        **PLACE,
    }
    supersample: ClassVar[int] = 8

    frequency_cpd: float = 1.0
    orientation_deg: float = 0.0
    phase_deg: float = 0.0

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
            Between -1 and 1.
        """
        u, v = rotated(*self._centered(x, y), self.orientation_deg)
        distance = np.sqrt(np.abs(u**2 - v**2))
        return np.cos(_TURN * self.frequency_cpd * distance + math.radians(self.phase_deg))

    def _look(self) -> Hashable:
        """Give the pattern at the first of the four orientations of one picture."""
        return replace(self, orientation_deg=within(self.orientation_deg, 90.0))._positive()
