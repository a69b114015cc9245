"""A gamma curve from the readings of a photometer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stimuli.luminance import GammaCurve, within

_OFFSETS = (0.0, -0.02, 0.1, -0.1, -0.3)


@dataclass(frozen=True)
class GammaFit:
    """
    A gamma curve fitted to photometer readings.

    Parameters
    ----------
    curve : GammaCurve
        The curve.
    rms_error : float
        Root mean square of the residuals in cd/m2.
    largest_error : float
        Largest residual in cd/m2.

    Examples
    --------
    >>> fit = fit_gamma([0, 0.25, 0.5, 0.75, 1], [1.0, 7.25, 26.0, 57.25, 101.0])
    >>> round(fit.curve.gamma, 3), round(fit.curve.white, 3)
    (2.0, 101.0)
    """

    curve: GammaCurve
    rms_error: float
    largest_error: float

    def display_fields(self) -> dict[str, Any]:
        """
        Give the fields of `stimuli.display.Display` that hold this curve.

        Returns
        -------
        dict
            luminance_cd_m2, gamma and gamma_offset, for ``dataclasses.replace(display, **fields)``; luminance_table is
            None, so that the curve takes the place of a table that the display may have.

        Examples
        --------
        >>> sorted(fit_gamma([0, 0.5, 1], [0.0, 25.0, 100.0]).display_fields())
        ['gamma', 'gamma_offset', 'luminance_cd_m2', 'luminance_table']
        """
        return {
            "luminance_cd_m2": (self.curve.black, self.curve.white),
            "gamma": self.curve.gamma,
            "gamma_offset": self.curve.offset,
            "luminance_table": None,
        }


def fit_gamma(codes: ArrayLike, luminance: ArrayLike, *, full: bool = False) -> GammaFit:
    """
    Fit a gamma curve to photometer readings by least squares.

    Parameters
    ----------
    codes : array of float
        Codes shown, as fractions of the full code, 0 to 1.
    luminance : array of float
        Readings in cd/m2, one per code; repeated codes are welcome.
    full : bool
        Fit the offset b of `GammaCurve` too; otherwise it is 0.

    Returns
    -------
    GammaFit
        The curve and its residuals.

    Raises
    ------
    ValueError
        If the readings are too few or not finite, codes are outside [0, 1], or the luminance does not rise.

    Examples
    --------
    >>> import dataclasses
    >>> from stimuli import Display
    >>> codes = np.linspace(0, 1, 9)
    >>> fit = fit_gamma(codes, 0.5 + 99.5 * codes**2.2)
    >>> screen = dataclasses.replace(Display(), **fit.display_fields())
    >>> round(screen.gamma, 3), np.round(screen.encode(50.0), 3).item()
    (2.2, 0.728)
    """
    from scipy.optimize import least_squares

    shown = within(codes, 0.0, 1.0, "The code of the readings").ravel()
    read = np.asarray(luminance, np.float64).ravel()
    needed = 4 if full else 3
    if len(shown) != len(read) or len(np.unique(shown)) < needed or not np.isfinite(read).all():
        raise ValueError(
            f"There are {len(shown)} codes and {len(read)} readings: give one finite reading per code, of at least "
            f"{needed} different codes."
        )
    low, high = float(read[shown == shown.min()].mean()), float(read[shown == shown.max()].mean())
    if read.min() < 0 or not high > low:
        raise ValueError(
            f"The readings go from {low:g} cd/m2 at the darkest code to {high:g} at the brightest: give readings of at "
            "least 0 that rise with the code."
        )

    # Fitted in units of the range, from black to white, so that every parameter is of order one: a, the range, gamma
    # and the offset b. Black is a + max(0, b)^gamma, so that no offset is too large for it.
    unit = high - low

    def curve(p: NDArray[np.float64], unit: float = 1.0) -> GammaCurve:
        gamma = float(p[2])
        offset = float(p[3]) * unit ** (1.0 / gamma) if len(p) == 4 else 0.0
        black = float(p[0]) * unit + max(0.0, offset) ** gamma
        return GammaCurve(black, black + float(p[1]) * unit, gamma, offset)

    def fitted_from(*offset: float) -> tuple[float, NDArray[np.float64]]:
        start = [max(low / unit - max((0.0, *offset)) ** 1.8, 1e-6), 1.0, 1.8, *offset]
        ends = ([0.0, 0.1, 0.2, -0.9], [np.inf, np.inf, 10.0, 1.0])
        found = least_squares(
            lambda p: curve(p).luminance(shown) - read / unit,
            np.array(start),
            bounds=tuple(end[: len(start)] for end in ends),
            xtol=1e-12,
            ftol=1e-12,
            gtol=1e-12,
        )
        return float(found.cost), found.x

    fits = [fitted_from()]
    if full:  # from one start alone the search may end in a valley of another offset
        fits += [fitted_from(offset) for offset in _OFFSETS]
    fitted = curve(min(fits, key=lambda fit: fit[0])[1], unit)
    residuals = fitted.luminance(shown) - read
    return GammaFit(fitted, float(np.sqrt(np.mean(residuals**2))), float(np.abs(residuals).max()))
