"""Light from pixel codes and back: gamma curves, measured tables and sRGB, each with its inverse."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Table = tuple[tuple[float, float], ...]
_SLACK = 1e-9  # of the range: what rounding may put outside it


@dataclass(frozen=True)
class GammaCurve:
    """
    The luminance of a screen as a power of the pixel code, ``L = a + max(0, b + k V)^g``, with V from 0 to 1.

    With ``b = 0`` this is the simple form ``L = black + (white - black) V^g``. The two other constants follow from the
    ends: ``a = black - max(0, b)^g`` and ``k = (white - a)^(1/g) - b``. The inverse is closed,
    ``V = ((L - a)^(1/g) - b) / k``.

    Parameters
    ----------
    black, white : float
        Luminance of the codes 0 and 1, in cd/m2, or 0 and 1 for relative luminance.
    gamma : float
        The exponent g.
    offset : float
        The constant b, in (cd/m2)^(1/g); negative where the darkest codes are all black.

    Raises
    ------
    ValueError
        If a number is not finite, white is not above black, gamma is not positive, or the offset alone gives more light
        than black.

    Examples
    --------
    >>> screen = GammaCurve(black=1.0, white=101.0, gamma=2.0)
    >>> float(screen.luminance(0.5)), float(screen.code(26.0))
    (26.0, 0.5)
    """

    black: float
    white: float
    gamma: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not all(math.isfinite(value) for value in (self.black, self.white, self.gamma, self.offset)):
            raise ValueError(f"{self} holds a number that is not finite: give the measured numbers.")
        if not 0.0 <= self.black < self.white or not self.gamma > 0:
            raise ValueError(f"{self} is no gamma curve: give 0 <= black < white and a positive gamma.")
        if max(0.0, self.offset) ** self.gamma > self.black * (1 + _SLACK):
            raise ValueError(
                f"The offset {self.offset:g} alone gives {self.offset**self.gamma:g} where black is {self.black:g}: "
                "give an offset of at most black^(1/gamma)."
            )

    @property
    def constants(self) -> tuple[float, float, float]:
        """The constants a, b and k of the formula."""
        a = self.black - max(0.0, self.offset) ** self.gamma
        return a, self.offset, (self.white - a) ** (1.0 / self.gamma) - self.offset

    def luminance(self, code: ArrayLike) -> NDArray[np.float64]:
        """
        Give the luminance of pixel codes.

        Parameters
        ----------
        code : array of float
            Fractions of the full code, 0 to 1.

        Returns
        -------
        array of float
            Luminance, in the units of black and white.

        Examples
        --------
        >>> float(GammaCurve(0.0, 1.0, 2.0).luminance(0.5))
        0.25
        """
        a, b, k = self.constants
        return np.asarray(a + np.maximum(0.0, b + k * np.asarray(code, np.float64)) ** self.gamma)

    def code(self, luminance: ArrayLike) -> NDArray[np.float64]:
        """
        Give the pixel codes of a luminance.

        Parameters
        ----------
        luminance : array of float
            From black to white; nothing is checked here, see `stimuli.display.Display.encode`.

        Returns
        -------
        array of float
            Fractions of the full code, 0 to 1.

        Examples
        --------
        >>> float(GammaCurve(0.0, 1.0, 2.0).code(0.25))
        0.5
        """
        a, b, k = self.constants
        return np.asarray((np.maximum(0.0, np.asarray(luminance, np.float64) - a) ** (1.0 / self.gamma) - b) / k)


@dataclass(frozen=True)
class TableCurve:
    """
    The luminance of a screen as straight lines between photometer readings.

    With 17 readings of a screen of gamma 2.2, straight lines are wrong by at most 0.15 % of white.

    Parameters
    ----------
    readings : sequence of pairs
        (code, luminance) with codes rising from 0 to 1 and luminance rising with them.

    Raises
    ------
    ValueError
        If there are fewer than two readings, a number is not finite, the codes do not rise from 0 to 1, or the
        luminance does not rise.

    Examples
    --------
    >>> screen = TableCurve(((0.0, 1.0), (0.5, 20.0), (1.0, 100.0)))
    >>> float(screen.luminance(0.75)), float(screen.code(60.0))
    (60.0, 0.75)
    """

    readings: Table

    def __post_init__(self) -> None:
        """Check the readings and store them as pairs of floats."""
        try:
            pairs = tuple((float(code), float(light)) for code, light in self.readings)
        except (TypeError, ValueError):
            raise ValueError(
                f"The luminance table is {self.readings!r}: give pairs (code from 0 to 1, luminance in cd/m2)."
            ) from None
        if len(pairs) < 2 or not np.isfinite(pairs).all():
            raise ValueError(f"The luminance table is {pairs!r}: give at least two pairs of finite numbers.")
        codes, light = np.array(pairs).T
        if codes[0] != 0.0 or codes[-1] != 1.0 or (np.diff(codes) <= 0).any():
            raise ValueError(
                f"The codes of the luminance table are {codes.tolist()}: give fractions that rise from 0 to 1."
            )
        dark = np.flatnonzero(np.diff(light) <= 0)
        if light[0] < 0 or dark.size:
            where = f"falls or stays at code {codes[dark[0] + 1]:g}" if dark.size else "begins below 0"
            raise ValueError(
                f"The luminance table {where}: average several readings of each code, or fit a curve with fit_gamma."
            )
        object.__setattr__(self, "readings", pairs)

    @property
    def black(self) -> float:
        """Luminance of the code 0."""
        return self.readings[0][1]

    @property
    def white(self) -> float:
        """Luminance of the code 1."""
        return self.readings[-1][1]

    def luminance(self, code: ArrayLike) -> NDArray[np.float64]:
        """
        Give the luminance of pixel codes.

        Parameters
        ----------
        code : array of float
            Fractions of the full code, 0 to 1.

        Returns
        -------
        array of float
            Luminance, in the units of the readings.

        Examples
        --------
        >>> float(TableCurve(((0, 0), (1, 80))).luminance(0.25))
        20.0
        """
        codes, light = np.array(self.readings).T
        return np.asarray(np.interp(np.asarray(code, np.float64), codes, light))

    def code(self, luminance: ArrayLike) -> NDArray[np.float64]:
        """
        Give the pixel codes of a luminance.

        Parameters
        ----------
        luminance : array of float
            From black to white; nothing is checked here, see `stimuli.display.Display.encode`.

        Returns
        -------
        array of float
            Fractions of the full code, 0 to 1.

        Examples
        --------
        >>> float(TableCurve(((0, 0), (1, 80))).code(20.0))
        0.25
        """
        codes, light = np.array(self.readings).T
        return np.asarray(np.interp(np.asarray(luminance, np.float64), light, codes))


@dataclass(frozen=True)
class SrgbCurve:
    """
    The luminance of sRGB codes, from black to white (IEC 61966-2-1).

    ``V / 12.92`` up to 0.04045 and ``((V + 0.055) / 1.055)^2.4`` above; the inverse is ``12.92 L`` up to 0.0031308 and
    ``1.055 L^(1/2.4) - 0.055`` above.

    Parameters
    ----------
    black, white : float
        Luminance of the codes 0 and 1.

    Examples
    --------
    >>> round(float(SrgbCurve().luminance(0.5)), 4), round(float(SrgbCurve().code(0.5)), 4)
    (0.214, 0.7354)
    """

    black: float = 0.0
    white: float = 1.0

    def luminance(self, code: ArrayLike) -> NDArray[np.float64]:
        """
        Give the luminance of pixel codes.

        Parameters
        ----------
        code : array of float
            Fractions of the full code, 0 to 1.

        Returns
        -------
        array of float
            Luminance, in the units of black and white.

        Examples
        --------
        >>> float(SrgbCurve(0.0, 80.0).luminance(1.0))
        80.0
        """
        v = np.asarray(code, np.float64)
        light = np.where(v <= 0.04045, v / 12.92, ((np.maximum(v, 0.0) + 0.055) / 1.055) ** 2.4)
        return np.asarray(self.black + (self.white - self.black) * light)

    def code(self, luminance: ArrayLike) -> NDArray[np.float64]:
        """
        Give the pixel codes of a luminance.

        Parameters
        ----------
        luminance : array of float
            From black to white; nothing is checked here, see `stimuli.display.Display.encode`.

        Returns
        -------
        array of float
            Fractions of the full code, 0 to 1.

        Examples
        --------
        >>> float(SrgbCurve(0.0, 80.0).code(0.0))
        0.0
        """
        light = (np.asarray(luminance, np.float64) - self.black) / (self.white - self.black)
        bright = 1.055 * np.maximum(light, 0.0) ** (1 / 2.4) - 0.055
        return np.asarray(np.where(light <= 0.0031308, 12.92 * light, bright))


Curve = GammaCurve | TableCurve | SrgbCurve


def within(values: ArrayLike, low: float, high: float, what: str) -> NDArray[np.float64]:
    """
    Return values that lie in a range, up to rounding, or raise.

    Parameters
    ----------
    values : array of float
        What came.
    low, high : float
        The range.
    what : str
        Begin of the sentence, such as "The luminance (cd/m2)".

    Returns
    -------
    array of float
        The values, what rounding put outside clipped to the range.

    Raises
    ------
    ValueError
        If a value is not finite or outside.

    Examples
    --------
    >>> within([0.0, 0.5], 0.0, 1.0, "The code").tolist()
    [0.0, 0.5]
    """
    array = np.asarray(values, np.float64)
    slack = _SLACK * (high - low)
    if array.size and not (np.isfinite(array).all() and array.min() >= low - slack and array.max() <= high + slack):
        raise ValueError(
            f"{what} goes from {array.min():g} to {array.max():g} where {low:g} to {high:g} can be shown: scale it "
            "into that range."
        )
    return np.clip(array, low, high)
