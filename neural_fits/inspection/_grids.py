"""Bring maps to one grid without changing their sum."""

from __future__ import annotations

import torch
from torch import Tensor


def on_grid(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps on another grid over the same image, every cell's amount spread evenly over its own area.

    Parameters
    ----------
    maps : Tensor, (..., height, width)
        Amounts a cell.
    size : tuple of int
        Height and width of the new grid.

    Returns
    -------
    Tensor, (..., height, width)
        Amounts a cell; their sum is that of the maps.
    """
    if tuple(maps.shape[-2:]) == size:
        return maps
    down, across = (_shares(old, new).to(maps) for old, new in zip(maps.shape[-2:], size, strict=True))
    return down @ maps @ across.T


def _shares(old: int, new: int) -> Tensor:
    """Return which share of each old cell (columns) lies in each new one (rows)."""
    edges_old = torch.arange(old + 1, dtype=torch.float64) / old
    edges_new = torch.arange(new + 1, dtype=torch.float64) / new
    upper = torch.minimum(edges_new[1:, None], edges_old[None, 1:])
    lower = torch.maximum(edges_new[:-1, None], edges_old[None, :-1])
    return (upper - lower).clamp(min=0) * old
