"""Where and how well each site is read: receptive-field maps, a table per site, and a picture of both.

In: a fitted model. Out: arrays, a table, a PNG. Used by ``npc fit``. matplotlib is imported when drawing.
"""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from neural_fits.site_model import Ensemble, SiteModel

#: positions of a map on each axis
GRID = 24
#: sites whose maps are drawn
MOST_MAPS = 40
_INK, _PALE = "#22272e", "#b9c0c9"


def receptive_fields(model: SiteModel | Ensemble) -> NDArray[np.float64]:
    """Return where in the image each site's readout puts its weight.

    ``m(x, y) = sqrt(sum_c W_c(x, y)^2)``, scaled to sum 1, mean over members. The readout's own map: each position of a
    layer sees a surround of its own, so the field in the image is somewhat wider.

    Parameters
    ----------
    model : SiteModel or Ensemble
        The model.

    Returns
    -------
    ndarray, (site, row, column)
        Maps of `GRID` x `GRID` cells that tile the image.
    """
    total = np.zeros((len(model.site_ids), GRID, GRID))
    for member in model._members():
        energy = member.readout.weight.detach().cpu().double().square().sum(1).sqrt()
        even = functional.interpolate(energy[:, None], (GRID, GRID), mode="bilinear", align_corners=False)[:, 0]
        total += (even / even.sum((1, 2), keepdim=True).clamp(min=torch.finfo(even.dtype).tiny)).numpy()
    return total / len(model._members())


def site_table(model: SiteModel | Ensemble) -> pd.DataFrame:
    """Return the scores of each site with center and width of its receptive field.

    Parameters
    ----------
    model : SiteModel or Ensemble
        A fitted model.

    Returns
    -------
    DataFrame
        `held_out_scores` with the columns of `field_table`: ``rf_x_deg``, ``rf_y_deg`` and ``rf_sd_deg``.

    Raises
    ------
    ValueError
        When the model was never scored.
    """
    height_px, width_px = model.info.size_px
    wide = model.info.size_deg
    scores = model.held_out_scores()
    fields = field_table(receptive_fields(model), wide, wide * height_px / width_px)
    return scores.join(fields.set_axis(scores.index))


def field_table(maps: NDArray[np.float64], size_deg: float, height_deg: float, blur: float = 1 / 48) -> pd.DataFrame:
    """Return center and width of maps, by the part of each that lies above half of its maximum.

    Weights far from the field are faint but many: over the whole map they pull the center to the middle of the image
    and widen the field. So the mean is taken where the map, blurred, exceeds half of its maximum,
    and ``sd = sqrt(v / (1 - ln 2))`` with v the variance along an axis there: the standard deviation of a Gaussian.

    Parameters
    ----------
    maps : ndarray, (field, row, column)
        Maps without negative values that tile the image.
    size_deg : float
        Width of the image in degrees of visual angle.
    height_deg : float
        Its height.
    blur : float
        Standard deviation of the blur in sides of the map; speckled maps need more of it.

    Returns
    -------
    DataFrame
        ``rf_x_deg`` (to the right) and ``rf_y_deg`` (upward) from the center of the image, and ``rf_sd_deg``; NaN where
        a map is empty or the same everywhere. Of a field at the border only the part inside the image counts.

    Examples
    --------
    >>> maps = np.full((1, 4, 8), 0.01)
    >>> maps[0, 0, 7] = 1
    >>> field_table(maps, size_deg=8.0, height_deg=4.0)
       rf_x_deg  rf_y_deg  rf_sd_deg
    0       3.5       1.5        0.0
    """
    height, width = maps.shape[1:]
    blurred = gaussian_filter(maps, (0, height * blur, width * blur))
    high = blurred.max((1, 2), keepdims=True)
    part = np.where(blurred >= high / 2, maps, 0)
    part /= part.sum((1, 2), keepdims=True).clip(min=np.finfo(float).tiny)
    x = ((np.arange(width) + 0.5) / width - 0.5) * size_deg
    y = (0.5 - (np.arange(height) + 0.5) / height) * height_deg
    across, down = part.sum(1), part.sum(2)
    center = np.stack([across @ x, down @ y])
    variance = (across @ x**2 + down @ y**2 - (center**2).sum(0)) / 2
    uneven = np.ptp(maps, (1, 2)) > 1e-6 * maps.max((1, 2))
    found = np.where(uneven, [*center, np.sqrt(variance.clip(0) / (1 - np.log(2)))], np.nan)
    return pd.DataFrame(found.T, columns=["rf_x_deg", "rf_y_deg", "rf_sd_deg"])


def sites_png(model: SiteModel | Ensemble) -> bytes:
    """Draw explained variance with its interval, reliability, and the receptive fields of the best sites.

    Parameters
    ----------
    model : SiteModel or Ensemble
        A fitted model.

    Returns
    -------
    bytes
        A PNG.

    Raises
    ------
    ValueError
        When the model was never scored.
    """
    from matplotlib.figure import Figure

    table = site_table(model).sort_values("explained_variance", ascending=False)
    maps = receptive_fields(model)[[model.site_ids.index(site) for site in table.index]]
    columns = 10
    shown = min(len(table), MOST_MAPS)
    rows = -(-shown // columns)
    figure = Figure(figsize=(10, 3.4 + 1.12 * rows), layout="constrained")
    top, bottom = np.ravel(figure.subfigures(2, 1, height_ratios=[3.2, 1.12 * rows], squeeze=False))
    axes = top.subplots()
    at = np.arange(len(table))
    value = table["explained_variance"]
    axes.vlines(at, table["explained_variance_low"], table["explained_variance_high"], color=_PALE, lw=3)
    axes.plot(at, value, "o", color="#0b62a8", ms=4, label="explained variance, held out (bar: 95 % over stimuli)")
    axes.plot(at, table["reliability"], "_", color="#c2670a", ms=7, mew=1.5, label="reliability of the recording")
    axes.axhline(0, color=_INK, lw=0.6)
    axes.set_ylim(min(-0.05, np.nanmin([0, *value])), max(1.05, np.nanmax([0, *value]) * 1.05))
    axes.set_xlim(-0.8, len(table) - 0.2)
    axes.set_ylabel("share of (explainable) variance")
    named = [str(site) for site in table.index] if len(table) <= MOST_MAPS else []
    axes.set_xticks(range(len(named)), named, rotation=90, fontsize=7)
    axes.set_xlabel(f"{len(table)} sites, best first")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8, borderpad=0)
    axes.spines[["top", "right"]].set_visible(False)
    side = f"{model.info.size_deg:g} deg"
    bottom.suptitle(f"Where the readout looks (each map is the image, {side} wide)", fontsize=8)
    for k, panel in enumerate(bottom.subplots(rows, columns, squeeze=False).flat):
        panel.set_axis_off()
        if k < shown:
            panel.imshow(maps[k], cmap="magma", vmin=0, interpolation="nearest")
            panel.set_title(str(table.index[k]), fontsize=7, pad=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
