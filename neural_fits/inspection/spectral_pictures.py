"""Pictures of perturbation analysis: maps of channel x frequency, and of spatial frequency x orientation.

In: a `SignalPerturbation` or `SpectralTuning`. Out: drawings on matplotlib axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neural_fits.inspection.signal_perturbation import SignalPerturbation
from neural_fits.inspection.spectral_tuning import SpectralTuning
from stimuli.hints import did_you_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: red raises, blue lowers, gray is not defined
_COLORS = "RdBu_r"
_EMPTY = "#d9dde2"
_INK = "#22272e"
_VALUES = ("correlation", "gradient")


def draw_tuning(axis: Axes, tuning: SpectralTuning, value: str = "correlation", limit: float | None = None) -> Any:
    """Draw a map of spatial frequency x orientation, with a ring on the preferred band.

    Parameters
    ----------
    axis : Axes
        Where to draw.
    tuning : SpectralTuning
        What to draw.
    value : {"correlation", "gradient"}
        Which of its values.
    limit : float, optional
        Value at the ends of the color scale; the largest by default.

    Returns
    -------
    matplotlib artist
        The colored map, for a color bar.

    Raises
    ------
    ValueError
        When there is no such value.
    """
    if value not in _VALUES:
        hint = did_you_mean(str(value), _VALUES)
        raise ValueError(f"a tuning has no value {value!r}; {hint}choose of {', '.join(_VALUES)}")
    return draw_map(axis, getattr(tuning, value), tuning.edges_cpd, tuning.orientation_deg, limit)


def draw_map(
    axis: Axes,
    values: NDArray[np.float64],
    edges_cpd: NDArray[np.float64],
    orientation_deg: NDArray[np.float64],
    limit: float | None = None,
    ring: bool = True,
) -> Any:
    """Draw any map of spatial frequency x orientation, such as responses to gratings, in the manner of a tuning.

    Parameters
    ----------
    axis : Axes
        Where to draw.
    values : ndarray, (frequency, orientation)
        Values; NaN is gray.
    edges_cpd : ndarray, (frequency + 1,)
        Edges of the bands in cycles per degree.
    orientation_deg : ndarray, (orientation,)
        Middle of the bands in degrees, evenly spaced over 180.
    limit : float, optional
        Value at the ends of the color scale; the largest by default.
    ring : bool
        Mark the band of the largest value.

    Returns
    -------
    matplotlib artist
        The colored map, for a color bar.
    """
    high = float(limit or np.nanmax(np.abs(values), initial=0.0) or 1.0)
    half = 90.0 / len(orientation_deg)
    octave = np.log2(edges_cpd)
    sides = np.append(orientation_deg - half, orientation_deg[-1] + half)
    masked = np.ma.masked_invalid(values)
    axis.set_facecolor(_EMPTY)
    drawn = axis.pcolormesh(sides, octave, masked, cmap=_COLORS, vmin=-high, vmax=high, linewidth=0)
    if ring and not np.isnan(values).all():
        row, column = divmod(int(np.nanargmax(values)), values.shape[1])
        middle = (octave[row] + octave[row + 1]) / 2
        for color, width in ((_INK, 3.4), ("white", 1.4)):  # to be seen on any color
            axis.plot([orientation_deg[column]], [middle], "o", mfc="none", mec=color, mew=width, ms=8)
    axis.set_xlim(sides[0], sides[-1])
    axis.set_xticks([0, 45, 90, 135])
    whole = np.arange(np.ceil(octave[0] - 1e-6), octave[-1] + 1e-6)
    marks = whole if len(whole) > 1 else octave  # narrow bands may hold no whole octave
    axis.set_yticks(marks, [f"{2.0**each:.3g}" for each in marks])
    axis.set_xlabel("orientation (deg)")
    axis.set_ylabel("spatial frequency (cycles/deg)")
    return drawn


def draw_perturbation(axis: Axes, found: SignalPerturbation, unit: int | str = 0, limit: float | None = None) -> Any:
    """Draw the map of channel x frequency of a unit.

    Parameters
    ----------
    axis : Axes
        Where to draw.
    found : SignalPerturbation
        What to draw.
    unit : int or str
        The unit, by its place or name.
    limit : float, optional
        Value at the ends of the color scale; the largest of the unit by default.

    Returns
    -------
    matplotlib artist
        The colored map, for a color bar.

    Raises
    ------
    ValueError
        When there is no such unit.
    """
    if unit not in found.units and not (isinstance(unit, int) and 0 <= unit < len(found.units)):
        raise ValueError(f"there is no unit {unit!r}; the units are {', '.join(found.units)}")
    k = found.units.index(unit) if isinstance(unit, str) else unit
    values = found.values[:, :, k]
    high = float(limit or np.nanmax(np.abs(values), initial=0.0) or 1.0)
    step = found.frequency_hz[1]
    sides = np.append(found.frequency_hz - step / 2, found.frequency_hz[-1] + step / 2)
    axis.set_facecolor(_EMPTY)
    masked = np.ma.masked_invalid(values)
    drawn = axis.pcolormesh(sides, np.arange(len(values) + 1), masked, cmap=_COLORS, vmin=-high, vmax=high)
    axis.set_ylim(len(values), 0)
    axis.set_yticks(np.arange(len(values)) + 0.5, found.channels)
    axis.set_xlabel("frequency (Hz)")
    return drawn
