"""Where and how well each site is read: receptive-field maps, a table per site, and a picture of both.

In: a fitted model. Out: arrays, a table, a PNG. Used by ``npc fit``. matplotlib is imported when drawing.
"""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
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
        `held_out_scores` with ``rf_x_deg`` (to the right) and ``rf_y_deg`` (upward) from the center of the image, and
        ``rf_sd_deg``, the standard deviation of the map along an axis.

    Raises
    ------
    ValueError
        When the model was never scored.
    """
    maps = receptive_fields(model)
    height_px, width_px = model.info.size_px
    wide = model.info.size_deg
    high = wide * height_px / width_px
    cells = (np.arange(GRID) + 0.5) / GRID - 0.5
    x, y = cells * wide, -cells * high
    across, down = maps.sum(1), maps.sum(2)
    mean_x, mean_y = across @ x, down @ y
    spread = (across @ x**2 - mean_x**2 + down @ y**2 - mean_y**2) / 2
    return model.held_out_scores().assign(rf_x_deg=mean_x, rf_y_deg=mean_y, rf_sd_deg=np.sqrt(spread))


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
