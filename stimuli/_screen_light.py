"""The light of a screen: what its codes become, and the codes of a luminance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stimuli.hints import did_you_mean
from stimuli.luminance import Curve, GammaCurve, SrgbCurve, TableCurve, within

PIXEL_VALUES = ("display", "linear", "srgb")


class ScreenLight:
    """The luminance of a screen and how its codes become light; see `stimuli.display.Display`."""

    luminance_cd_m2: tuple[float, float] | None
    gamma: float | None
    gamma_offset: float
    luminance_table: tuple[tuple[float, float], ...] | None
    pixel_values: str

    def _check_luminance(self) -> None:
        if self.pixel_values not in PIXEL_VALUES:
            raise ValueError(
                f"Display.pixel_values is {self.pixel_values!r}: {did_you_mean(str(self.pixel_values), PIXEL_VALUES)}"
                f"give one of {', '.join(PIXEL_VALUES)}."
            )
        if isinstance(self.gamma_offset, bool) or not isinstance(self.gamma_offset, (int, float, np.number)):
            raise TypeError(f"Display.gamma_offset is {self.gamma_offset!r}: give a number, 0 for the simple form.")
        object.__setattr__(self, "gamma_offset", float(self.gamma_offset))
        if self.gamma is None and self.gamma_offset:
            raise ValueError(f"Display.gamma_offset is {self.gamma_offset:g} without a gamma: give both.")
        if self.luminance_table is not None:
            table = TableCurve(self.luminance_table)
            ends = (table.black, table.white)
            if self.luminance_cd_m2 not in (None, ends):
                raise ValueError(
                    f"Display.luminance_cd_m2 is {self.luminance_cd_m2!r} where the ends of luminance_table are "
                    f"{ends!r}: leave luminance_cd_m2 out, which in replace means luminance_cd_m2=None."
                )
            object.__setattr__(self, "luminance_table", table.readings)
            object.__setattr__(self, "luminance_cd_m2", ends)
        elif self.gamma is not None:
            GammaCurve(*(self.luminance_cd_m2 or (0.0, 1.0)), self.gamma, self.gamma_offset)  # refuses a wrong offset

    @property
    def curve(self) -> Curve:
        """How a code becomes light by pixel_values; relative luminance, 0 to 1, where none was measured in cd/m2."""
        ends = self.luminance_cd_m2 or (0.0, 1.0)
        if self.pixel_values == "linear":
            return GammaCurve(*ends, gamma=1.0)
        if self.pixel_values == "srgb":
            return SrgbCurve(*ends)
        if self.luminance_table is not None:
            return TableCurve(self.luminance_table)
        if self.gamma is not None:
            return GammaCurve(*ends, gamma=self.gamma, offset=self.gamma_offset)
        raise ValueError(
            "This display has neither gamma nor luminance_table, so codes and light cannot be converted: give one, or "
            'pixel_values="linear" for a rig that corrects its screen.'
        )

    def encode(self, luminance: ArrayLike, *, relative: bool = False) -> NDArray[np.float64]:
        """
        Give the pixel codes of a luminance, by the inverse of `decode`.

        Parameters
        ----------
        luminance : array of float
            In cd/m2, or with `relative` from 0 (black) to 1 (white).
        relative : bool
            Whether the luminance is relative to the range of the screen.

        Returns
        -------
        array of float
            Codes as fractions of the full code, 0 to 1, not rounded.

        Raises
        ------
        ValueError
            If the screen cannot show the luminance, or its curve or its cd/m2 are not known.

        Examples
        --------
        >>> from stimuli import Display
        >>> screen = Display(luminance_cd_m2=(0.0, 100.0), gamma=2.0)
        >>> screen.encode([25.0, 100.0]).tolist()
        [0.5, 1.0]
        """
        curve = self.curve
        if relative:
            share = within(luminance, 0.0, 1.0, "The relative luminance")
            light = curve.black + (curve.white - curve.black) * share
        else:
            self._require_cd_m2()
            light = within(luminance, curve.black, curve.white, "The luminance in cd/m2")
        return curve.code(light)

    def decode(self, code: ArrayLike, *, relative: bool = False) -> NDArray[np.float64]:
        """
        Give the luminance of pixel codes on this screen, by its `curve`.

        Parameters
        ----------
        code : array of float
            Fractions of the full code, 0 to 1; divide 8-bit codes by 255.
        relative : bool
            Give luminance from 0 (black) to 1 (white) instead of cd/m2.

        Returns
        -------
        array of float
            Luminance.

        Raises
        ------
        ValueError
            If a code is outside [0, 1], or the curve of the screen or its cd/m2 are not known.

        Examples
        --------
        >>> from stimuli import Display
        >>> screen = Display(luminance_cd_m2=(0.0, 100.0), gamma=2.0)
        >>> screen.decode([0.5, 1.0]).tolist()
        [25.0, 100.0]
        """
        curve = self.curve
        light = curve.luminance(within(code, 0.0, 1.0, "The code as a fraction of the full code"))
        if relative:
            return np.asarray((light - curve.black) / (curve.white - curve.black))
        self._require_cd_m2()
        return light

    def _require_cd_m2(self) -> None:
        if self.luminance_cd_m2 is None:
            raise ValueError(
                "This display has no luminance_cd_m2: give (black, white) in cd/m2, or ask with relative=True."
            )
