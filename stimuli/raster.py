"""The pixels of a drawn image: how many, and the mean of a pattern over each of them."""

from __future__ import annotations

import warnings

import numpy as np

from stimuli.apertures import pixel_centers
from stimuli.display import Display
from stimuli.pattern import Pattern, Plane

GRAY = 0.5
MAX_PX = 8192
_STRIP = 1 << 20  # samples of a pattern in memory at once


def raster_px(size_deg: float, size_px: int | None, display: Display | None) -> int:
    """
    Return the width in pixels of an image, and warn where a rig would resample it.

    Parameters
    ----------
    size_deg : float
        Width in degrees.
    size_px : int, optional
        Width in pixels; by default ``round(size_deg * display.ppd)``, or 128 without a display.
    display : Display, optional
        The screen.

    Returns
    -------
    int
        The width in pixels.

    Raises
    ------
    TypeError
        If the display is none.
    ValueError
        If the width is not a whole number from 2 to 8192.

    Examples
    --------
    >>> raster_px(8.0, None, Display(width_cm=60.0))
    255
    """
    if display is not None and not isinstance(display, Display):
        raise TypeError(f"display is {display!r}: give a Display or None.")
    pixels = size_px if size_px is not None else 128 if display is None else round(size_deg * display.ppd)
    if isinstance(pixels, bool) or not isinstance(pixels, (int, np.integer)) or not 2 <= pixels <= MAX_PX:
        raise ValueError(f"The images would be {pixels!r} px wide: give a whole number (size_px) from 2 to {MAX_PX}.")
    warning = None if display is None or size_px is None else display.resampling(int(pixels), size_deg)
    if warning:
        warnings.warn(warning, UserWarning, stacklevel=3)
    return int(pixels)


def rendered(pattern: Pattern, size_px: int, size_deg: float, supersample: int = 1) -> Plane:
    """
    Give the signal of a pattern times its contrast at every pixel of a square image.

    Pixel centers are as in `stimuli.apertures.pixel_centers`.

    Parameters
    ----------
    pattern : Pattern
        What to draw.
    size_px : int
        Width and height in pixels.
    size_deg : float
        Width and height in degrees.
    supersample : int
        The mean of so many times so many samples per pixel.

    Returns
    -------
    array of float64, shape (size_px, size_px)
        Between -1 and 1.

    Examples
    --------
    >>> from stimuli.gratings import Grating
    >>> rendered(Grating(frequency_cpd=0.25), 4, 4.0).round(3)[0].tolist()
    [-0.707, 0.707, 0.707, -0.707]
    """
    count = size_px * supersample
    x, y = pixel_centers((count, count), size_deg)
    rows = max(1, _STRIP // (count * supersample))
    plane = np.empty((size_px, size_px))
    for first in range(0, size_px, rows):
        last = min(first + rows, size_px)
        strip = y[first * supersample : last * supersample]
        values = np.broadcast_to(pattern.signal(x, strip), (len(strip), count))
        plane[first:last] = values.reshape(last - first, supersample, size_px, supersample).mean(axis=(1, 3))
    return pattern.contrast * plane
