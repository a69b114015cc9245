"""What gratings do to units: responses by spatial frequency and orientation, beside `spectral_tuning` of images.

In: any function images -> (image, unit). Out: an array (frequency, orientation, unit), drawn by `spectral_pictures`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from stimuli.families import draw
from stimuli.gratings import Grating

_PHASES_DEG = (0.0, 90.0, 180.0, 270.0)
_BATCH = 64
# Bands that end on one cycle an image are whole, whatever the last digit of their number.
_EDGE = 1e-9


def band_edges(size_px: tuple[int, int], size_deg: float, octaves: float = 1.0) -> NDArray[np.float64]:
    """Return edges of bands of spatial frequency, from the Nyquist frequency down to one cycle an image.

    Parameters
    ----------
    size_px : tuple of int
        Height and width of the images.
    size_deg : float
        Their width in degrees of visual angle.
    octaves : float
        Width of the bands.

    Returns
    -------
    ndarray, (frequency + 1,)
        Rising edges in cycles per degree.

    Examples
    --------
    >>> band_edges((64, 64), 8.0).tolist()
    [0.125, 0.25, 0.5, 1.0, 2.0, 4.0]
    """
    height, width = size_px
    nyquist, lowest = width / size_deg / 2, 1 / (size_deg * max(1.0, height / width))
    count = max(1, math.floor(math.log2(nyquist / lowest) / octaves + _EDGE))
    return np.asarray(nyquist * 2.0 ** (-octaves * np.arange(count, -1, -1)), dtype=np.float64)


def grating_responses(
    respond: Callable[[Tensor], Tensor],
    edges_cpd: ArrayLike,
    *,
    size_px: int,
    size_deg: float,
    orientations: int = 8,
    contrast: float = 1.0,
    channels: int = 3,
) -> NDArray[np.float64]:
    """Return responses to gratings minus that to gray, mean over four phases.

    Parameters
    ----------
    respond : callable
        Takes images (image, channel, height, width) in [0, 1], gives responses (image, unit), such as a `SiteModel`.
    edges_cpd : array, (frequency + 1,)
        Edges of bands in cycles per degree; gratings stand at their geometric means.
    size_px : int
        Side of the images in pixels.
    size_deg : float
        Side in degrees of visual angle.
    orientations : int
        Directions of modulation, evenly spaced from 0 over 180 degrees.
    contrast : float
        Michelson contrast of the gratings.
    channels : int
        Channels of the images, 1 or 3.

    Returns
    -------
    ndarray, (frequency, orientation, unit)
        Differences in the unit of the responses.

    Examples
    --------
    >>> contrast = lambda images: images.std((1, 2, 3))[:, None]
    >>> grating_responses(contrast, [0.5, 2.0], size_px=32, size_deg=8.0).round(2)[0, 0].tolist()
    [0.35]
    """
    edges = np.asarray(edges_cpd, dtype=np.float64)
    frequencies, angles = np.sqrt(edges[1:] * edges[:-1]), np.arange(orientations) * 180.0 / orientations
    wanted = [
        Grating(frequency_cpd=float(frequency), orientation_deg=float(angle), phase_deg=phase, contrast=contrast)
        for frequency, angle, phase in itertools.product(frequencies, angles, _PHASES_DEG)
    ]
    drawn = torch.from_numpy(draw(wanted, size_deg=size_deg, size_px=size_px, channels=channels).images())
    with torch.no_grad():
        found = torch.cat([respond(part).double().cpu() for part in drawn.split(_BATCH)])
        gray = respond(torch.full_like(drawn[:1], 0.5)).double().cpu()
    shape = len(frequencies), len(angles), len(_PHASES_DEG), -1
    difference: NDArray[np.float64] = (found.view(shape).mean(2) - gray).numpy()
    return difference
