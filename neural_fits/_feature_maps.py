"""Bring what a layer yields to maps (image, channel, height, width), whatever the order of its axes."""

from __future__ import annotations

from math import gcd

from torch import Tensor, nn

#: class and register tokens that may stand before those of the image
_MOST_EXTRA_TOKENS = 8
#: what yields (image, channel, height, width) by its definition
_CHANNELS_FIRST = (
    *(nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.MaxPool2d, nn.AvgPool2d),
    *(nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d),
)


def as_map(output: Tensor, layer: str, size: tuple[int, int], module: nn.Module | None = None) -> Tensor | None:
    """Return the output of a layer as maps.

    Parameters
    ----------
    output : Tensor
        (image, channel, height, width), (image, height, width, channel), (image, token, channel) or (image, channel).
    layer : str
        Its name, for errors.
    size : tuple of int
        Height and width of the images that entered the network; maps have their shape.
    module : nn.Module, optional
        The layer; convolutions, batch norms and pooling have their channels first whatever the numbers.

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
        if isinstance(module, _CHANNELS_FIRST):
            return output
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


def is_channels_last(output: Tensor, wider: Tensor) -> bool:
    """Say whether a layer's output has its channels last, from its output to images twice as wide.

    Parameters
    ----------
    output, wider : Tensor, (image, ..., ..., ...)
        Outputs to images, and to images of the same height twice as wide.

    Returns
    -------
    bool
        Whether the width is the second of the three axes and not the third.
    """
    return wider.ndim == 4 and wider.shape[2] != output.shape[2]


def _mismatch(high: int, wide: int, size: tuple[int, int]) -> float:
    """Columns by which a map of that height differs from the image's shape."""
    return abs(high / size[0] * size[1] - wide)
