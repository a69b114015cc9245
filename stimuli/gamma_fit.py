"""A gamma curve from the readings of a photometer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stimuli.luminance import GammaCurve, within


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
    >>> {name: np.round(value, 3).tolist() for name, value in fit.display_fields().items()}
    {'luminance_cd_m2': [1.0, 101.0], 'gamma': 2.0, 'gamma_offset': 0.0}
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
            luminance_cd_m2, gamma and gamma_offset, for ``dataclasses.replace(display, **fields)``.

        Examples
        --------
        >>> sorted(fit_gamma([0, 0.5, 1], [0.0, 25.0, 100.0]).display_fields())
        ['gamma', 'gamma_offset', 'luminance_cd_m2']
        """
        curve = self.curve
        return {"luminance_cd_m2": (curve.black, curve.white), "gamma": curve.gamma, "gamma_offset": curve.offset}


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

    # Fitted in units of the range, from black to white, so that every parameter is of order one.
    unit = high - low

    def curve(p: NDArray[np.float64]) -> GammaCurve:
        black, gamma = p[0], p[2]
        offset = min(p[3], black ** (1.0 / gamma)) if full else 0.0
        return GammaCurve(float(black), float(black + p[1]), float(gamma), float(offset))

    start = np.array([max(low / unit, 1e-6), 1.0, 2.2] + [0.0] * full)
    bounds = ([0.0, 0.1, 0.2] + [-0.9] * full, [np.inf, np.inf, 10.0] + [1.0] * full)
    found = least_squares(
        lambda p: curve(p).luminance(shown) - read / unit, start, bounds=bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12
    )
    best = curve(found.x)
    scale = unit ** (1.0 / best.gamma)
    fitted = GammaCurve(best.black * unit, best.white * unit, best.gamma, best.offset * scale)
    residuals = fitted.luminance(shown) - read
    return GammaFit(fitted, float(np.sqrt(np.mean(residuals**2))), float(np.abs(residuals).max()))
