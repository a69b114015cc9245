"""The screen on which stimuli are shown: geometry, background and luminance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from stimuli._screen_light import ScreenLight
from stimuli.hints import did_you_mean

Number = TypeVar("Number", float, np.ndarray)


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"Display.{name} is {value!r}: give a positive number.")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"Display.{name} is {value!r}: give a positive, finite number.")


@dataclass(frozen=True)
class Display(ScreenLight):
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
    gamma_offset : float
        The constant b of ``L = a + (b + k V)^g``, in (cd/m2)^(1/g); 0 is the simple form ``L = a + k V^g``. See
        `stimuli.luminance.GammaCurve`.
    luminance_table : tuple of pairs, optional
        Photometer readings (code from 0 to 1, cd/m2); `encode` and `decode` prefer them to gamma.
    pixel_values : str
        How a code becomes light: "display", unchanged through the curve of the screen (gamma or table); "linear", the
        rig corrects the curve, so that light is proportional to the code; "srgb", the rig takes codes as sRGB.

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
    gamma_offset: float = 0.0
    luminance_table: tuple[tuple[float, float], ...] | None = None
    pixel_values: str = "display"

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
        self._check_luminance()

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

    @property
    def ppd_formula(self) -> str:
        """The formula behind `ppd` as text, for the files that go with a stimulus set."""
        return "ppd = 2 * distance_cm * tan(0.5 deg) * resolution_px[0] / width_cm (central degree, flat screen)"

    @property
    def height_cm(self) -> float:
        """Height of the visible screen in cm, for square pixels."""
        return self.width_cm * self.resolution_px[1] / self.resolution_px[0]

    def deg_to_px(self, deg: Number, *, exact: bool = False) -> Number:
        """
        Convert degrees of visual angle to pixels, ``px = deg * ppd``.

        Parameters
        ----------
        deg : float or array
            Visual angle in degrees.
        exact : bool
            Take deg as an eccentricity on a flat screen and give the distance from the fixation point,
            ``px = distance_cm * tan(deg) * resolution_px[0] / width_cm``; 2.7 % farther out than ``deg * ppd`` at
            16 deg.

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
        if not exact:
            return deg * self.ppd
        if not np.all(np.abs(deg) < 90.0):
            raise ValueError(f"The eccentricity is {np.max(np.abs(deg)):g} deg: a flat screen ends before 90 deg.")
        tangent: Number = np.tan(np.deg2rad(deg)) * (self.distance_cm * self.resolution_px[0] / self.width_cm)
        return tangent

    def px_to_deg(self, px: Number, *, exact: bool = False) -> Number:
        """
        Convert pixels to degrees of visual angle, ``deg = px / ppd``.

        Parameters
        ----------
        px : float or array
            Length in pixels.
        exact : bool
            Take px as the distance from the fixation point on a flat screen and give the eccentricity.

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
        if not exact:
            return px / self.ppd
        angle: Number = np.rad2deg(np.arctan(px * self.width_cm / (self.resolution_px[0] * self.distance_cm)))
        return angle

    def resampling(self, size_px: int | tuple[int, int], size_deg: float) -> str | None:
        """
        Say whether a rig with this screen would resample images, and how to avoid it.

        Parameters
        ----------
        size_px : int or tuple of int
            Width of the images in pixels, or their height and width.
        size_deg : float
            Width of the images on the screen in degrees.

        Returns
        -------
        str or None
            The warning with both ways out; None where the images are shown pixel by pixel.

        Examples
        --------
        >>> screen = Display(width_cm=60.0)
        >>> screen.resampling(255, 8.0) is None
        True
        >>> screen.resampling(256, 8.0)[-50:]
        'show them at 8.0413 deg, or make them with 255 px.'
        """
        width = size_px[1] if isinstance(size_px, (tuple, list)) else size_px
        fits = max(1, round(size_deg * self.ppd))
        if width == fits:
            return None
        return (
            f"Images of {width} px shown at {size_deg:g} deg cover {fits} px on this screen ({self.ppd:.2f} px/deg), "
            f"so the rig would resample them: show them at {width / self.ppd:.5g} deg, or make them with {fits} px."
        )

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
        return {name: _listed(value) for name, value in dataclasses.asdict(self).items()}

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
                hint = did_you_mean(str(name), known) or f"known fields are {', '.join(known)}."
                raise ValueError(f"Display has no field {name!r}: {hint.strip()}")
        return cls(**{name: _tupled(value) for name, value in values.items()})


def _listed(value: Any) -> Any:
    return [_listed(part) for part in value] if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(part) for part in value) if isinstance(value, list) else value
