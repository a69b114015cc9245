"""Images shifted, turned and scaled, antialiased: x to the right, y up, angles counterclockwise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def warp(
    image: NDArray[np.float64],
    size_px: tuple[int, int],
    *,
    right_px: float = 0.0,
    up_px: float = 0.0,
    rotation_deg: float = 0.0,
    scale: float = 1.0,
    outside: str = "mirror",
    order: int = 3,
) -> NDArray[np.float64]:
    """
    Put the middle of an image (c, h, w) on a canvas of size (h, w), displaced from its middle, turned and scaled.

    Splines of the order given, exact where nothing moves; blurred first where it shrinks, by the half of what a pixel
    then covers beyond itself. `outside` is "mirror" (the image goes on mirrored) or "empty" (zeros).
    """
    from scipy import ndimage

    mode = {"mirror": "reflect", "empty": "grid-constant"}[outside]
    height, width = size_px
    angle = math.radians(rotation_deg)
    # rows count downwards: a turn counterclockwise on the screen, from places on the canvas back to the image
    back = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / scale
    middle = np.array([(height - 1) / 2 - up_px, (width - 1) / 2 + right_px])
    offset = (np.array(image.shape[1:]) - 1) / 2 - back @ middle
    sigma = max(0.0, (1.0 / scale - 1.0) / 2.0)
    out = np.empty((len(image), height, width))
    for channel, plane in enumerate(image):
        source = ndimage.gaussian_filter(plane, sigma, mode=mode) if sigma > 0 else plane
        ndimage.affine_transform(
            source, back, offset, output_shape=size_px, order=order, mode=mode, output=out[channel]
        )
    return out
