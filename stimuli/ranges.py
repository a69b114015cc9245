"""From where a parameter of a pattern may be drawn: an interval with a law, or a list of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

Law = Literal["uniform", "log", "whole"]
MOST = 1e6  # no parameter of a picture is larger
LENGTH = (0.001, 1000.0)  # what a length in degrees may be: above the first


@dataclass(frozen=True)
class Range:
    """
    An interval from which a number is drawn, and the interval in which it is legal.

    Parameters
    ----------
    law : {"uniform", "log", "whole"}
        Uniform, uniform in the logarithm (frequencies and sizes), or whole numbers with equal probability.
    low, high : float
        Ends of the interval; both can be drawn where the law is "whole".
    legal : tuple of float
        Smallest and largest value that a pattern accepts; with the law "log" the smallest is never accepted.
    excluded : tuple of float
        Values inside that are not accepted.

    Examples
    --------
    >>> Range("log", 0.5, 8.0, legal=(0.0, math.inf)).at(0.5)
    2.0
    >>> [Range("whole", -1, 1, excluded=(0,)).at(u) for u in (0.0, 0.9)]
    [-1, 1]
    """

    law: Law
    low: float
    high: float
    legal: tuple[float, float] = (-MOST, MOST)
    excluded: tuple[float, ...] = ()

    def at(self, u: float) -> float | int:
        """
        Give the value at a quantile.

        Parameters
        ----------
        u : float
            From 0 to 1, 1 not included.

        Returns
        -------
        float or int
            The value; its distribution follows the law when u is uniform.

        Examples
        --------
        >>> Range("uniform", 0.0, 180.0).at(0.25)
        45.0
        """
        if self.law == "whole":
            values = [k for k in range(int(self.low), int(self.high) + 1) if k not in self.excluded]
            return values[int(u * len(values))]
        if self.law == "log":
            return math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        return self.low + u * (self.high - self.low)

    def check(self, label: str, value: Any) -> float | int:
        """
        Return a legal value as a plain number.

        Parameters
        ----------
        label : str
            Name of the parameter for the error message.
        value : object
            What came.

        Returns
        -------
        float or int
            The value, an int where the law is "whole".

        Raises
        ------
        TypeError
            If the value is not a number.
        ValueError
            If it is not finite, not legal, or not whole where it should be.

        Examples
        --------
        >>> Range("uniform", 0.0, 1.0).check("contrast", np.float32(0.5))
        0.5
        """
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise TypeError(f"{label} is {_short(value)}: give {self._wanted()}.")
        value = value.item() if isinstance(value, np.generic) else value
        low, high = self.legal
        outside = value <= low if self.law == "log" else value < low
        if not _finite(value) or outside or value > high or value in self.excluded or not self._whole_enough(value):
            raise ValueError(f"{label} is {_short(value)}: give {self._wanted()}.")
        return int(value) if self.law == "whole" else float(value)

    def between(self, label: str, low: Any, high: Any) -> Range:
        """
        Return the same law on another interval.

        Parameters
        ----------
        label : str
            Name of the parameter for the error message.
        low, high : float
            The new ends.

        Returns
        -------
        Range
            The new range.

        Raises
        ------
        TypeError
            If an end is not a number.
        ValueError
            If an end is not legal or the ends are in the wrong order.

        Examples
        --------
        >>> Range("log", 0.5, 8.0, legal=(0.0, math.inf)).between("frequency_cpd", 1, 4).low
        1.0
        """
        ends = [replace(self, excluded=()).check(label, end) for end in (low, high)]
        if ends[0] > ends[1]:
            raise ValueError(f"{label} has the range {low!r} to {high!r}: give the lower end first.")
        found = replace(self, low=ends[0], high=ends[1])
        if self.law == "whole" and all(k in self.excluded for k in range(int(ends[0]), int(ends[1]) + 1)):
            raise ValueError(f"{label} has the range {low!r} to {high!r}: give {self._wanted()}.")
        return found

    def _whole_enough(self, value: float) -> bool:
        return self.law != "whole" or value == int(value)

    def _wanted(self) -> str:
        low, high = self.legal
        what = "a whole number" if self.law == "whole" else "a finite number"
        if math.isfinite(low):
            what += f" above {low:g}" if self.law == "log" else f" of {low:g} or more"
        if math.isfinite(high):
            what += f" and at most {high:g}" if math.isfinite(low) else f" of at most {high:g}"
        return what + (f", not {self.excluded[0]:g}" if self.excluded else "")

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:g}"
        return f"{self.low:g} to {self.high:g} ({'log-uniform' if self.law == 'log' else self.law})"


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int too large for a float
        return False


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or _finite(value) else "too large a number"
    return text if len(text) <= 60 else text[:60] + "…"


@dataclass(frozen=True)
class Choice:
    """
    Values of which one is drawn with equal probability.

    Parameters
    ----------
    values : tuple
        What can be drawn.
    legal : tuple, optional
        All values that a pattern accepts; None leaves the check to the pattern.

    Examples
    --------
    >>> Choice((0.0, 45.0, 90.0)).at(0.5)
    45.0
    """

    values: tuple[Any, ...]
    legal: tuple[Any, ...] | None = None

    def at(self, u: float) -> Any:
        """
        Give the value at a quantile.

        Parameters
        ----------
        u : float
            From 0 to 1, 1 not included.

        Returns
        -------
        object
            The value.

        Examples
        --------
        >>> Choice((False, True)).at(0.9)
        True
        """
        return self.values[int(u * len(self.values))]

    def check(self, label: str, value: Any) -> Any:
        """
        Return a legal value.

        Parameters
        ----------
        label : str
            Name of the parameter for the error message.
        value : object
            What came.

        Returns
        -------
        object
            The value.

        Raises
        ------
        ValueError
            If the value is not one of the legal ones.

        Examples
        --------
        >>> Choice((False,), legal=(False, True)).check("zero_mean", True)
        True
        """
        for known in self.legal or ():
            if type(known) is type(value) and known == value:
                return known
        if self.legal is None:
            return value
        raise ValueError(f"{label} is {_short(value)}: give {' or '.join(map(repr, self.legal))}.")

    def between(self, label: str, low: Any, high: Any) -> Choice:
        """
        Refuse an interval: a choice has none.

        Parameters
        ----------
        label : str
            Name of the parameter for the error message.
        low, high : object
            The ends asked for.

        Returns
        -------
        Choice
            Never.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError(f"{label} has no range from {low!r} to {high!r}: give one value or a list of values.")

    def __str__(self) -> str:
        if len(self.values) == 1:
            return str(self.values[0])
        shown = ", ".join(map(str, self.values))
        named = all(isinstance(value, str) for value in self.values)
        return f"one of {shown}" if named or len(shown) <= 60 else f"one of {len(self.values)}"


def wanted_values(values: Sequence[Any] | Any) -> tuple[Any, ...]:
    """
    Return the values of a list, or one value, as a tuple.

    Parameters
    ----------
    values : sequence or object
        A list or array of values, or one value.

    Returns
    -------
    tuple
        The values.

    Examples
    --------
    >>> wanted_values([1, 2]), wanted_values(3.0)
    ((1, 2), (3.0,))
    """
    return tuple(values) if isinstance(values, (list, np.ndarray, range)) else (values,)


def checked_seed(seed: object) -> int:
    """
    Return a seed as a plain number.

    Parameters
    ----------
    seed : object
        What came.

    Returns
    -------
    int
        The seed.

    Raises
    ------
    ValueError
        If it is not a whole number from 0 to 2**32 - 1. NumPy splits larger ones into words of 32 bits, and image k of
        one seed would be image k' of another.

    Examples
    --------
    >>> checked_seed(np.int64(3))
    3
    """
    whole("seed", seed, 0)
    number = int(seed)  # type: ignore[call-overload]
    if number >= 2**32:
        raise ValueError(f"seed is {_short(number)}: give a whole number below 2**32, such as 0.")
    return number


def whole(label: str, value: object, least: int) -> None:
    """
    Refuse what is not a whole number.

    Parameters
    ----------
    label : str
        Name for the error message.
    value : object
        What came.
    least : int
        The smallest number allowed.

    Raises
    ------
    ValueError
        If it is not a whole number or too small.

    Examples
    --------
    >>> whole("n", 3, 1)
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{label} is {value!r}: give a whole number of {least} or more.")
