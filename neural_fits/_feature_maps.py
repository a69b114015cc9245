"""Bring what a layer yields to maps (image, channel, height, width), whatever the order of its axes."""

from __future__ import annotations

from math import gcd

from torch import Tensor

#: class and register tokens that may stand before those of the image
_MOST_EXTRA_TOKENS = 8


def as_map(output: Tensor, layer: str, size: tuple[int, int]) -> Tensor | None:
    """Return the output of a layer as maps.

    Parameters
    ----------
    output : Tensor
        (image, channel, height, width), (image, height, width, channel), (image, token, channel) or (image, channel).
    layer : str
        Its name, for errors.
    size : tuple of int
        Height and width of the images that entered the network; maps have their shape.

    Returns
    -------
    Tensor, (image, channel, height, width), or None
        Maps; None where channels cannot be told from space because all three axes are alike.

    Raises
    ------
    ValueError
        When the output is no map.
    """
    if output.ndim == 4:
        channels, high, wide = output.shape[1:]
        if channels == high == wide and high > 1:
            return None
        first, last = _mismatch(high, wide, size), _mismatch(channels, high, size)
        # Swin and ConvNeXt have their channels last.
        return output.permute(0, 3, 1, 2) if last < min(first, 1) else output
    if output.ndim == 2:
        return output[:, :, None, None]
    if output.ndim == 3:  # tokens of a transformer, class and register tokens first
        step = gcd(*size)
        down, across = size[0] // step, size[1] // step
        times = int((output.shape[1] / (down * across)) ** 0.5)
        grid = down * times, across * times
        extra = output.shape[1] - grid[0] * grid[1]
        if not times or extra > _MOST_EXTRA_TOKENS:
            raise ValueError(
                f"layer {layer!r} yields {output.shape[1]} tokens, which form no grid over images of {size[0]} x "
                f"{size[1]} px; give square images or set input_px"
            )
        return output[:, extra:].transpose(1, 2).unflatten(2, grid)
    raise ValueError(f"layer {layer!r} yields an array of shape {tuple(output.shape)}; expected 2, 3 or 4 axes")


def _mismatch(high: int, wide: int, size: tuple[int, int]) -> float:
    """Columns by which a map of that height differs from the image's shape."""
    return abs(high / size[0] * size[1] - wide)
