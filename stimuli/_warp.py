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

    Splines of the order given, exact where nothing moves. `outside` is "mirror" (the image goes on mirrored) or "empty"
    (zeros). Where the image shrinks, what the pixels of the canvas cannot hold is taken out first: by a low-pass filter
    with "mirror", by a blur with "empty", which is for cut-outs: a filter would ring round sharp outlines.
    """
    from scipy import ndimage

    mode = {"mirror": "reflect", "empty": "grid-constant"}[outside]
    if scale < 1.0:
        image = _low_passed(image, 0.5 * scale) if outside == "mirror" else _blurred(image, scale)
    height, width = size_px
    angle = math.radians(rotation_deg)
    # rows count downwards: a turn counterclockwise on the screen, from places on the canvas back to the image
    back = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / scale
    middle = np.array([(height - 1) / 2 - up_px, (width - 1) / 2 + right_px])
    offset = (np.array(image.shape[1:]) - 1) / 2 - back @ middle
    out = np.empty((len(image), height, width))
    for channel, plane in enumerate(image):
        ndimage.affine_transform(plane, back, offset, output_shape=size_px, order=order, mode=mode, output=out[channel])
    return out


def _low_passed(image: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Take out frequencies from `limit` (cycles per pixel) on, falling from 3/4 of it; the image goes on mirrored."""
    from scipy import fft

    rows, columns = (np.arange(side) / (2.0 * side) for side in image.shape[1:])  # of the cosine transform
    over = np.clip((np.hypot(rows[:, None], columns) / limit - 0.75) / 0.25, 0.0, 1.0)
    kept = 0.5 + 0.5 * np.cos(math.pi * over)
    return np.asarray(fft.idctn(fft.dctn(image, axes=(1, 2)) * kept, axes=(1, 2)))


def _blurred(image: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Blur what is to shrink, with room for it to spread; the variance is what a pixel of the canvas has beyond one."""
    from scipy import ndimage

    variance = 0.25 * (1.0 / scale**2 - 1.0)
    room = math.ceil(3.0 * math.sqrt(variance))
    blurred = np.pad(image, ((0, 0), (room, room), (room, room)))
    if variance > 0.5:
        return np.asarray(ndimage.gaussian_filter(blurred, math.sqrt(variance), mode="constant", axes=(1, 2)))
    for axis in (1, 2):  # a narrower Gaussian, taken at whole pixels, has less variance than it should
        taps = [0.5 * variance, 1.0 - variance, 0.5 * variance]
        blurred = ndimage.correlate1d(blurred, taps, axis=axis, mode="constant")
    return np.asarray(blurred)
