"""Pictures of perturbation analysis: maps of channel x frequency, and of spatial frequency x orientation.

In: a `SignalPerturbation` or `SpectralTuning`. Out: drawings on matplotlib axes, or a PNG. matplotlib is imported when
drawing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neural_fits.inspection.signal_perturbation import SignalPerturbation
from neural_fits.inspection.spectral_tuning import SpectralTuning

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: red raises, blue lowers, gray is not defined
_COLORS = "RdBu_r"
_EMPTY = "#d9dde2"
_INK = "#22272e"
_MEANING = {
    "additive": "correlation of contrast with response",
    "multiplicative": "correlation of contrast with response",
    "phase": "correlation of |shift| with |change|",
    "gradient": "gradient dy/dA",
}


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
    """
    return draw_map(axis, getattr(tuning, value), tuning.edges_cpd, tuning.orientation_deg, limit)


def draw_map(
    axis: Axes,
    values: NDArray[np.float64],
    edges_cpd: NDArray[np.float64],
    orientation_deg: NDArray[np.float64],
    limit: float | None = None,
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
    row, column = divmod(int(np.nan_to_num(values, nan=-np.inf).argmax()), values.shape[1])
    middle = (octave[row] + octave[row + 1]) / 2
    for color, width in ((_INK, 3.0), ("white", 1.2)):  # to be seen on any color
        axis.plot([orientation_deg[column]], [middle], "o", mfc="none", mec=color, mew=width, ms=8)
    axis.set_xlim(sides[0], sides[-1])
    axis.set_xticks([0, 45, 90, 135])
    whole = np.arange(np.ceil(octave[0] - 1e-6), octave[-1] + 1e-6)
    axis.set_yticks(whole, [f"{2.0**each:g}" for each in whole])
    axis.set_xlabel("orientation (deg)")
    axis.set_ylabel("spatial frequency (cpd)")
    return drawn


def tuning_png(tunings: SpectralTuning | Sequence[SpectralTuning], columns: int = 4) -> bytes:
    """Draw the tuning of one or several targets, each with its own color bar.

    Parameters
    ----------
    tunings : SpectralTuning or sequence of SpectralTuning
        What to draw.
    columns : int
        Maps a row.

    Returns
    -------
    bytes
        A PNG.

    Raises
    ------
    ValueError
        When there is none.
    """
    from matplotlib.figure import Figure

    several = [tunings] if isinstance(tunings, SpectralTuning) else list(tunings)
    if not several:
        raise ValueError("no tuning was given; give at least one")
    across = min(columns, len(several))
    rows = -(-len(several) // across)
    figure = Figure(figsize=(max(4.0, 2.9 * across), 2.9 * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, across, squeeze=False)
    for panel in panels.flat[len(several) :]:
        panel.set_axis_off()
    for panel, tuning in zip(panels.flat, several, strict=False):
        drawn = draw_tuning(panel, tuning)
        panel.set_title(tuning.name, fontsize=9)
        bar = figure.colorbar(drawn, ax=panel, shrink=0.85)
        bar.ax.tick_params(labelsize=7)
        panel.tick_params(labelsize=7)
    kind = several[0].kind
    figure.suptitle(f"{_MEANING[kind]} ({kind}, {several[0].n_images} images)", fontsize=9)
    return _png(figure)


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
    values = found.correlation[:, :, k]
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


def perturbation_png(found: SignalPerturbation) -> bytes:
    """Draw the maps of channel x frequency of all units.

    Parameters
    ----------
    found : SignalPerturbation
        What to draw.

    Returns
    -------
    bytes
        A PNG.
    """
    from matplotlib.figure import Figure

    high = max(1.2, 0.16 * len(found.channels))
    figure = Figure(figsize=(8.2, (high + 0.75) * len(found.units) + 0.4), layout="constrained")
    for k, panel in enumerate(figure.subplots(len(found.units), 1, squeeze=False).flat):
        drawn = draw_perturbation(panel, found, k)
        panel.set_title(found.units[k], fontsize=9)
        panel.tick_params(labelsize=7)
        figure.colorbar(drawn, ax=panel).ax.tick_params(labelsize=7)
    figure.suptitle(f"{_MEANING[found.kind]} ({found.kind}, {found.n_trials} trials)", fontsize=9)
    return _png(figure)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
