"""Cartesian gratings and Gabor patches."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from stimuli.pattern import PLACE, Pattern, Plane, within
from stimuli.ranges import LENGTH, Choice, Range

FREQUENCY = Range("log", 0.5, 4.0, legal=(0.0, 1000.0))
PHASE = Range("uniform", 0.0, 360.0)


def rotated(x: Plane, y: Plane, orientation_deg: float) -> tuple[Plane, Plane]:
    """
    Turn coordinates, ``u = x cos t + y sin t`` and ``v = -x sin t + y cos t``.

    Parameters
    ----------
    x, y : array of float64
        Coordinates.
    orientation_deg : float
        Angle t of the u axis, counterclockwise from the x axis.

    Returns
    -------
    u, v : array of float64
        The turned coordinates.

    Examples
    --------
    >>> u, v = rotated(np.array(0.0), np.array(2.0), 90.0)
    >>> round(float(u), 9), round(float(v), 9)
    (2.0, 0.0)
    """
    t = math.radians(orientation_deg)
    return x * math.cos(t) + y * math.sin(t), y * math.cos(t) - x * math.sin(t)


@dataclass(frozen=True, kw_only=True)
class Grating(Pattern):
    """
    A sinusoidal grating, ``s = cos(2 pi f u + p)`` with ``u = x cos t + y sin t``.

    The orientation t is the direction of the modulation, so the bars stand perpendicular to it: 0 gives vertical bars.

    Parameters
    ----------
    contrast : float
        Michelson contrast; a negative one inverts the picture.
    x_deg, y_deg : float
        Origin, where the phase is p.
    seed : int, optional
        Seed of the sampler, for the table.
    frequency_cpd : float
        Spatial frequency f in cycles per degree.
    orientation_deg : float
        Direction of modulation t in degrees, counterclockwise from the x axis.
    phase_deg : float
        Phase p in degrees; at 0 a bright bar runs through the origin.

    Examples
    --------
    >>> grating = Grating(frequency_cpd=2.0, orientation_deg=0.0)
    >>> grating.signal(np.array([0.0, 0.25, 0.5]), np.zeros(3)).round(9).tolist()
    [1.0, -1.0, 1.0]
    """

    family: ClassVar[str] = "grating"
    ranges: ClassVar[Mapping[str, Range | Choice]] = {
        "frequency_cpd": FREQUENCY,
        "orientation_deg": Range("uniform", 0.0, 180.0),
        "phase_deg": PHASE,
        **PLACE,
    }

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
        u, _ = rotated(*self._centered(x, y), self.orientation_deg)
        return np.cos(2.0 * math.pi * self.frequency_cpd * u + math.radians(self.phase_deg))

    def _look(self) -> Hashable:
        """Give the phase in the middle of the image, at the first of the two orientations of one picture."""
        u, _ = rotated(np.array(self.x_deg), np.array(self.y_deg), self.orientation_deg)
        phase = self.phase_deg - 360.0 * self.frequency_cpd * float(u)
        return _upright(replace(self, x_deg=0.0, y_deg=0.0, phase_deg=phase))


@dataclass(frozen=True, kw_only=True)
class Gabor(Pattern):
    """
    A Gabor patch, ``s = exp(-(u^2 + (aspect v)^2) / (2 sigma^2)) (cos(2 pi f u + p) - d)``.

    u and v are the coordinates turned by the orientation, which is the direction of the modulation. d is 0, or with
    `zero_mean` the mean of the carrier under the envelope, ``exp(-(2 pi f sigma)^2 / 2) cos(p)``.

    Parameters
    ----------
    contrast : float
        Contrast of the carrier at the peak of the envelope; a negative one inverts the picture.
    x_deg, y_deg : float
        Middle of the patch.
    seed : int, optional
        Seed of the sampler, for the table.
    frequency_cpd : float
        Spatial frequency f of the carrier in cycles per degree.
    orientation_deg : float
        Direction of modulation in degrees, counterclockwise from the x axis.
    phase_deg : float
        Phase p in degrees: 0 is even (bright in the middle), -90 is odd (dark on the left, bright on the right).
    sigma_deg : float
        Standard deviation of the envelope along the modulation in degrees.
    aspect : float
        Standard deviation along the modulation divided by that along the bars; 0.5 gives long bars.
    zero_mean : bool
        Subtract d, so that the patch integrates to zero in every phase.

    Examples
    --------
    >>> float(Gabor(sigma_deg=0.5, frequency_cpd=2.0).signal(np.array(0.5), np.array(0.0)).round(4))
    0.6065
    """

    family: ClassVar[str] = "gabor"
    ranges: ClassVar[Mapping[str, Range | Choice]] = {
        "frequency_cpd": FREQUENCY,
        "orientation_deg": Range("uniform", 0.0, 180.0),
        "phase_deg": PHASE,
        "sigma_deg": Range("log", 0.3, 0.9, legal=LENGTH),
        "aspect": Range("log", 0.7, 1.0, legal=(0.01, 100.0)),
        "zero_mean": Choice((False,), legal=(False, True)),
        **PLACE,
    }
    bounded: ClassVar[bool] = True

    frequency_cpd: float = 1.0
    orientation_deg: float = 0.0
    phase_deg: float = 0.0
    sigma_deg: float = 0.75
    aspect: float = 1.0
    zero_mean: bool = False

    def fitted(self, size_px: int, size_deg: float) -> Self:
        """
        Return the patch if the pixels can hold it.

        Parameters
        ----------
        size_px : int
            Width and height of the image in pixels.
        size_deg : float
            Width and height of the image in degrees.

        Returns
        -------
        Gabor
            This patch.

        Raises
        ------
        ValueError
            If its carrier is finer than the pixels or its envelope narrower than one.
        """
        super().fitted(size_px, size_deg)
        narrow = min(self.sigma_deg, self.sigma_deg / self.aspect)
        if narrow < size_deg / size_px:
            raise ValueError(
                f"The envelope of a {self.family} pattern has a standard deviation of {narrow:g} deg (sigma_deg, or "
                f"sigma_deg / aspect) and a pixel is {size_deg / size_px:.3g} deg wide: widen it or give more pixels."
            )
        return self

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
            Between -1 and 1, 0 far from the middle.
        """
        u, v = rotated(*self._centered(x, y), self.orientation_deg)
        phase, rate = math.radians(self.phase_deg), 2.0 * math.pi * self.frequency_cpd
        mean = self._mean() if self.zero_mean else 0.0
        envelope = np.exp(-(u**2 + (self.aspect * v) ** 2) / (2.0 * self.sigma_deg**2))
        return envelope * (np.cos(rate * u + phase) - mean)

    def _look(self) -> Hashable:
        """Give the patch at the first of the two orientations of one picture, without a mean of 0 to subtract."""
        return _upright(replace(self, zero_mean=self.zero_mean and abs(self._mean()) > 1e-9))

    def _mean(self) -> float:
        """Give the mean of the carrier under the envelope."""
        rate = 2.0 * math.pi * self.frequency_cpd
        return math.exp(-0.5 * (rate * self.sigma_deg) ** 2) * math.cos(math.radians(self.phase_deg))


def _upright(wave: Grating | Gabor) -> Grating | Gabor:
    """Turn a wave by 180 deg, which only runs its phase backwards, if it then lies within 0 to 180 deg."""
    turned = within(wave.orientation_deg, 360.0)
    back = turned >= 180.0
    phase = -wave.phase_deg if back else wave.phase_deg
    return replace(wave, orientation_deg=turned - 180.0 if back else turned, phase_deg=phase)._positive()
