"""The output of a layer as a map (image, channel, height, width), and back to the layer's own order of axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neural_fits._feature_maps import as_map


def map_view(output: object, layer: str, size: tuple[int, int]) -> tuple[Tensor, Callable[[Tensor], Tensor]] | None:
    """Return the output of a layer as a map of more than one position, and the way back.

    Parameters
    ----------
    output : object
        What the layer yielded.
    layer : str
        Its name.
    size : tuple of int
        Height and width of the images that entered the network.

    Returns
    -------
    tuple of (Tensor, callable), or None
        Map (image, channel, height, width) and a function that brings such a map to the axes of the output; None where
        the output is no map, or one of a single position.
    """
    if not isinstance(output, Tensor) or output.ndim not in (3, 4) or not output.is_floating_point():
        return None
    try:
        found = as_map(output, layer, size)
    except ValueError:
        return None
    found = output if found is None else found  # all three axes alike: channels first, as nearly all networks have them
    positions = found.shape[2] * found.shape[3]
    if positions < 2:
        return None
    if output.ndim == 3:
        extra = output[:, : output.shape[1] - positions]
        return found, lambda maps: torch.cat([extra, maps.flatten(2).transpose(1, 2)], 1)
    if found is output:
        return found, lambda maps: maps
    return found, lambda maps: maps.permute(0, 2, 3, 1)
