"""Maps over pictures: up-sampled to pixels, laid over the image in color, and boxed.

In: maps on a feature grid. Out: maps in pixels, uint8 pictures, boxes in pixels. matplotlib's colors are imported when
they are needed.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

#: most opaque the colors get
_OPACITY = 0.8


def upsampled(maps: Tensor, size_px: tuple[int, int]) -> Tensor:
    """Return maps in pixels by bilinear interpolation between the centers of their cells.

    The center of cell (i, j) keeps its value and stands at pixel ``((j + 1/2) width / columns, (i + 1/2) height /
    rows)`` from the upper left corner, as `feature_positions` has it; beyond the outermost centers values stay.

    Parameters
    ----------
    maps : Tensor, (..., height, width)
        Maps on a feature grid.
    size_px : tuple of int
        Height and width of the pictures.

    Returns
    -------
    Tensor, (..., height, width)
        Maps in pixels, same unit; the sum changes with the number of cells.

    Examples
    --------
    >>> upsampled(torch.tensor([[0.0, 1.0]]), (1, 4))
    tensor([[0.0000, 0.2500, 0.7500, 1.0000]])
    """
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    bigger = functional.interpolate(flat, size_px, mode="bilinear", align_corners=False)
    return bigger.reshape(*maps.shape[:-2], *size_px)


def overlay(
    image: ArrayLike, values: ArrayLike, limit: float | None = None, signed: bool | None = None
) -> NDArray[np.uint8]:
    """Return a gray version of an image with a map over it in color.

    Maps without negative values are drawn from clear to yellow over dark red (inferno's upper part); maps of both signs
    in red where positive, blue where negative, clear at 0. Color gets denser with the value.

    Parameters
    ----------
    image : array_like, (channel, height, width)
        Values in [0, 1], 1 or 3 channels.
    values : array_like, (height, width)
        The map, on any grid; it is up-sampled to the image.
    limit : float, optional
        Value of the full color, to compare pictures; the largest absolute value of the map by default.
    signed : bool, optional
        Draw in red and blue; by default where a value is negative. Pictures beside each other need one answer.

    Returns
    -------
    ndarray, (height, width, 3)
        RGB, uint8.

    Raises
    ------
    ValueError
        When image or map have other axes, the map is not finite, or the image is not in [0, 1].

    Examples
    --------
    >>> overlay(np.full((3, 8, 8), 0.5), [[0.0, 1.0], [0.0, 0.0]]).shape
    (8, 8, 3)
    """
    import matplotlib

    picture, raw = np.asarray(image, dtype=np.float32), np.asarray(values, dtype=np.float32)
    if picture.ndim != 3 or picture.shape[0] not in (1, 3) or raw.ndim != 2:
        raise ValueError(
            f"image has shape {picture.shape} and map {raw.shape}; expected one image (1 or 3, height, width) and one "
            "map (height, width)"
        )
    if not np.isfinite(raw).all():
        raise ValueError("the map has values that are not finite; leave them out before drawing")
    if not (picture >= -0.01).all() or not (picture <= 1.01).all():
        raise ValueError(
            f"the image has values from {picture.min():.4g} to {picture.max():.4g}; expected 0 to 1, so divide 8-bit "
            "images by 255"
        )
    full = float(np.abs(raw).max()) if limit is None else float(limit)
    if not full >= 0:
        raise ValueError(f"limit is {limit}; give a positive value, or leave it out for the largest of the map")
    shown = upsampled(torch.from_numpy(raw), (picture.shape[1], picture.shape[2])).numpy()
    part = np.clip(shown / full, -1, 1) if full else np.zeros_like(shown)
    gray = np.repeat(picture.mean(0)[..., None], 3, axis=2)
    signed = bool(raw.min() < 0) if signed is None else signed
    if signed:
        colors = matplotlib.colormaps["RdBu_r"](0.5 + 0.42 * part)[..., :3]
    else:
        colors = matplotlib.colormaps["inferno"](0.35 + 0.6 * part)[..., :3]
    opacity = (_OPACITY * np.abs(part) ** (0.7 if signed else 1))[..., None]
    mixed = (1 - opacity) * gray + opacity * colors
    return np.round(np.clip(mixed, 0, 1) * 255).astype(np.uint8)


def box(values: ArrayLike, fraction: float = 0.2) -> tuple[int, int, int, int]:
    """Return the box round the largest connected region above a fraction of the map's maximum.

    Source: Zhou et al. 2016, section 3.2: regions above 20 % of the maximum, box that covers the largest connected one.

    Parameters
    ----------
    values : array_like, (height, width)
        The map, up-sampled to pixels by `upsampled` for a box in pixels.
    fraction : float
        Part of the maximum, at least 0 and below 1.

    Returns
    -------
    tuple of int
        ``(top, left, bottom, right)``, first row and column inside and first ones beyond. Cells touch by their sides;
        of regions of one size the one with the largest sum counts.

    Raises
    ------
    ValueError
        When no value is positive, one is not finite, or the fraction is out of range.

    Examples
    --------
    >>> box([[0, 0, 0, 1], [5, 4, 0, 0], [0, 0, 0, 0]])
    (1, 0, 2, 2)
    """
    from scipy import ndimage

    found = np.asarray(values, dtype=np.float64)
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction is {fraction}; give at least 0 and less than 1")
    if not np.isfinite(found).all():
        raise ValueError("the map has values that are not finite; leave them out before boxing")
    if found.ndim != 2 or not found.size or not found.max() > 0:
        raise ValueError(f"a map of shape {found.shape} without positive values has no box; give a map that has some")
    regions, count = ndimage.label(found > fraction * found.max())
    which = np.arange(1, count + 1)
    sizes = ndimage.sum_labels(np.ones_like(found), regions, which)
    sums = ndimage.sum_labels(found, regions, which)
    largest = int(np.lexsort((sums, sizes))[-1])
    rows, columns = ndimage.find_objects(regions)[largest]
    return rows.start, columns.start, rows.stop, columns.stop
