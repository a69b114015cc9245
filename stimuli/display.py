"""The screen on which stimuli are shown: geometry, background and luminance."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Number = TypeVar("Number", float, np.ndarray)


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"Display.{name} is {value!r}: give a positive number.")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"Display.{name} is {value!r}: give a positive, finite number.")


@dataclass(frozen=True)
class Display:
    """
    A screen at a viewing distance, with its background and luminance.

    Pixels per degree at fixation are ``ppd = 2 * distance_cm * tan(0.5 deg) * resolution_px[0] / width_cm``: the mean
    over the central degree. Taking it as constant is off by about 0.2 % at 8 deg of visual angle.

    Parameters
    ----------
    resolution_px : tuple of int
        Width and height of the screen in pixels.
    width_cm : float
        Width of the visible screen in cm.
    distance_cm : float
        Distance from the eye to the screen in cm.
    background : float
        Gray of the empty screen as a fraction of the pixel code, 0 to 1; 0.5 is the 8-bit code 128.
    luminance_cd_m2 : tuple of float, optional
        Measured luminance of black and of white in cd/m2.
    gamma : float, optional
        Exponent of the measured luminance curve; None means not measured.
    refresh_hz : float, optional
        Refresh rate in Hz.

    Raises
    ------
    TypeError
        If a value is not a number or not a pair of numbers.
    ValueError
        If a value is out of its range.

    Examples
    --------
    >>> screen = Display(resolution_px=(1920, 1080), width_cm=60.0, distance_cm=57.0)
    >>> round(screen.ppd, 2)
    31.84
    >>> round(screen.deg_to_px(8.0))
    255
    """

    resolution_px: tuple[int, int] = (1920, 1080)
    width_cm: float = 53.0
    distance_cm: float = 57.0
    background: float = 0.5
    luminance_cd_m2: tuple[float, float] | None = None
    gamma: float | None = None
    refresh_hz: float | None = None

    def __post_init__(self) -> None:
        """Check every value and store plain Python numbers."""
        resolution = self._pair("resolution_px", "(width, height) in pixels")
        for value in resolution:
            _positive("resolution_px", value)
            if value != int(value):
                raise ValueError(f"Display.resolution_px is {self.resolution_px!r}: give two whole numbers of pixels.")
        object.__setattr__(self, "resolution_px", (int(resolution[0]), int(resolution[1])))
        for name in ("width_cm", "distance_cm", "gamma", "refresh_hz"):
            value = getattr(self, name)
            if value is None and name in ("gamma", "refresh_hz"):
                continue
            _positive(name, value)
            object.__setattr__(self, name, float(value))
        if isinstance(self.background, bool) or not isinstance(self.background, (int, float, np.number)):
            raise TypeError(f"Display.background is {self.background!r}: give a number from 0 (black) to 1 (white).")
        if not 0.0 <= self.background <= 1.0:
            raise ValueError(f"Display.background is {self.background!r}: give a number from 0 (black) to 1 (white).")
        object.__setattr__(self, "background", float(self.background))
        if self.luminance_cd_m2 is not None:
            black, white = self._pair("luminance_cd_m2", "(black, white) in cd/m2")
            _positive("luminance_cd_m2", white)
            if not 0.0 <= black < white:
                raise ValueError(
                    f"Display.luminance_cd_m2 is {self.luminance_cd_m2!r}: give (black, white) with 0 <= black < white."
                )
            object.__setattr__(self, "luminance_cd_m2", (float(black), float(white)))

    def _pair(self, name: str, meaning: str) -> tuple[Any, Any]:
        value = getattr(self, name)
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise TypeError(f"Display.{name} is {value!r}: give a pair {meaning}.")
        for part in value:
            if isinstance(part, bool) or not isinstance(part, (int, float, np.number)):
                raise TypeError(f"Display.{name} is {value!r}: give a pair {meaning}.")
        return value[0], value[1]

    @property
    def ppd(self) -> float:
        """Pixels per degree at fixation, ``2 * distance_cm * tan(0.5 deg) * resolution_px[0] / width_cm``."""
        return 2.0 * self.distance_cm * math.tan(math.radians(0.5)) * self.resolution_px[0] / self.width_cm

    def deg_to_px(self, deg: Number) -> Number:
        """
        Convert degrees of visual angle to pixels, ``px = deg * ppd``.

        Parameters
        ----------
        deg : float or array
            Visual angle in degrees.

        Returns
        -------
        float or array
            Length in pixels, not rounded.

        Examples
        --------
        >>> screen = Display()
        >>> screen.deg_to_px(2.0) == 2 * screen.ppd
        True
        """
        return deg * self.ppd

    def px_to_deg(self, px: Number) -> Number:
        """
        Convert pixels to degrees of visual angle, ``deg = px / ppd``.

        Parameters
        ----------
        px : float or array
            Length in pixels.

        Returns
        -------
        float or array
            Visual angle in degrees.

        Examples
        --------
        >>> screen = Display()
        >>> round(screen.px_to_deg(screen.ppd), 6)
        1.0
        """
        return px / self.ppd

    def to_dict(self) -> dict[str, Any]:
        """
        Give the fields as JSON-able values.

        Returns
        -------
        dict
            One entry per field; pairs are lists.

        Examples
        --------
        >>> Display().to_dict()["resolution_px"]
        [1920, 1080]
        """
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Display:
        """
        Build a display from the result of `to_dict`.

        Parameters
        ----------
        values : mapping
            Field names and values; a field left out takes its default.

        Returns
        -------
        Display
            The display with these values.

        Raises
        ------
        ValueError
            If a name is not a field of Display.

        Examples
        --------
        >>> Display.from_dict(Display(width_cm=60.0).to_dict()) == Display(width_cm=60.0)
        True
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                close = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known fields are {', '.join(known)}."
                raise ValueError(f"Display has no field {name!r}: {hint}")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)
