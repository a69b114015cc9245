"""The picture of layer grids: one axis in pixels holds all images, so that hundreds of channels draw quickly."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from stimuli import StimulusSet
    from synth.layer_grid import LayerGrid

_WIDE_INCH, _DPI = 9.0, 150
_GAP, _TEXT = 0.06, 0.14  # of a tile's side; between tiles, and for a line of text


def draw_grids(grids: Sequence[LayerGrid], title: str, columns: int) -> bytes:
    """Return the PNG of layers below each other."""
    from matplotlib.figure import Figure

    columns = min(columns, max(len(grid.units) for grid in grids))
    side = 1.0 / (columns * (1 + _GAP) + _GAP)  # of the figure's width, which is 1
    text = max(_TEXT * side, 0.0165)
    heights = [_height(grid, columns, side, text) for grid in grids]
    head = 0.052 if title else 0.01
    notes = "under each: activation of the map" + (" (x times that of the best natural image)" if _any(grids) else "")
    total = head + sum(heights) + 0.035
    figure = Figure(figsize=(_WIDE_INCH, _WIDE_INCH * total))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 1), ylim=(total, 0))
    axis.set_axis_off()
    if title:
        axis.text(0.5, head * 0.55, title, ha="center", va="center", fontsize=12)
    top = head
    for grid, height in zip(grids, heights, strict=True):
        _draw_layer(axis, grid, top, columns, side, text)
        top += height
    axis.text(0.5, top + 0.012, notes, ha="center", va="center", fontsize=8, color="#57606a")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def _any(grids: Sequence[LayerGrid]) -> bool:
    return any(grid.nearest.shape[1] for grid in grids)


def _thumb(grid: LayerGrid, side: float) -> float:
    """Return the height of the strip of natural images: they share the width of the tile."""
    return side / grid.nearest.shape[1] + _GAP * side / 2 if grid.nearest.shape[1] else 0.0


def _height(grid: LayerGrid, columns: int, side: float, text: float) -> float:
    rows = -(-len(grid.units) // columns)
    return 1.5 * text + rows * (2 * text + side + _thumb(grid, side) + _GAP * side) + text / 2


def _draw_layer(axis: Any, grid: LayerGrid, top: float, columns: int, side: float, text: float) -> None:
    rows, across = grid.map_size
    natural = f"; below, the natural images that drive it best (of {len(grid.natural)})" if grid.natural else ""
    heading = f"{grid.layer}, map of {rows} x {across}: image made for each channel{natural}"
    axis.text(_GAP * side, top + 0.7 * text, heading, fontsize=9, va="center", weight="bold")
    step = 2 * text + side + _thumb(grid, side) + _GAP * side
    for k, unit in enumerate(grid.units):
        left = _GAP * side + (k % columns) * side * (1 + _GAP)
        high = top + 1.5 * text + (k // columns) * step
        center = left + side / 2
        place = f"channel {unit.channel}" + (f" at {unit.position[0]}, {unit.position[1]}" if unit.position else "")
        axis.text(center, high + text / 2, place, ha="center", va="center", fontsize=_size(side))
        _show(axis, _tile(grid.synthesis.stimuli, k, side), left, high + text, side)
        if unit.position:
            _point(axis, left, high + text, side, unit.position, grid.map_size)
        reached = grid.activations[k]
        said = f"{reached:.3g}"
        if grid.nearest.shape[1] and grid.nearest_activations[k, 0] > 0 and reached > 0:
            said += f"  (x {reached / grid.nearest_activations[k, 0]:.1f})"
        below = high + text + side
        axis.text(center, below + text / 2, said, ha="center", va="center", fontsize=_size(side), color="#57606a")
        for rank, found in enumerate(grid.nearest[k]):
            small = side / grid.nearest.shape[1]
            if grid.natural is not None:
                picture = _tile(grid.natural, int(found), small)
                _show(axis, picture, left + rank * small, below + text, small * (0.96 if small < side else 1.0))


def _size(side: float) -> float:
    return min(8.0, max(4.5, 60 * side))


def _tile(stimuli: StimulusSet, place: int, side: float) -> NDArray[np.uint8]:
    """Return an image in RGB, reduced to the dots that the picture has for it."""
    codes = stimuli.codes([place])[0]
    image = Image.fromarray(np.repeat(codes, 3 // len(codes), 0).transpose(1, 2, 0).copy())
    dots = max(1, round(side * _WIDE_INCH * _DPI))
    image.thumbnail((dots, dots), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _show(axis: Any, image: NDArray[np.uint8], left: float, top: float, side: float) -> None:
    axis.imshow(image, extent=(left, left + side, top + side, top), aspect="auto", interpolation="nearest", zorder=2)


def _point(
    axis: Any, left: float, top: float, side: float, position: tuple[int, int], map_size: tuple[int, int]
) -> None:
    """Mark the position at the upper and the left edge, inside the image."""
    down, across = ((at + 0.5) / size * side for at, size in zip(position, map_size, strict=True))
    inside = 0.03 * side
    mark = {"color": "#ffb000", "markeredgecolor": "#22272e", "markeredgewidth": 0.6, "zorder": 3, "markersize": 6}
    axis.plot(left + across, top + inside, marker="v", **mark)
    axis.plot(left + inside, top + down, marker=">", **mark)
