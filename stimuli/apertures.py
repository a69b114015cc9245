"""Round windows with a raised-cosine edge, and where the pixels of an image lie in degrees."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stimuli._checks import check_size_deg
from stimuli._derived import derive
from stimuli.appearance import quantize
from stimuli.stimulus_set import StimulusSet


def pixel_centers(size_px: tuple[int, int], size_deg: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Give the place of every pixel in degrees, x to the right and y upwards from the middle of the image.

    ``x_i = ((i + 0.5) / w - 0.5) * size_deg`` and ``y_j = -((j + 0.5) / h - 0.5) * size_deg * h / w``.

    Parameters
    ----------
    size_px : tuple of int
        Height and width of the image in pixels.
    size_deg : float
        Width of the image in degrees of visual angle.

    Returns
    -------
    x : array, shape (1, w)
        Degrees to the right of the middle.
    y : array, shape (h, 1)
        Degrees above the middle.

    Raises
    ------
    ValueError
        If the size is not two positive whole numbers, or size_deg is not positive.

    Examples
    --------
    >>> x, y = pixel_centers((2, 4), 8.0)
    >>> x.tolist(), y.tolist()
    ([[-3.0, -1.0, 1.0, 3.0]], [[1.0], [-1.0]])
    """
    height, width = _size(size_px)
    degree = check_size_deg(size_deg)
    x = ((np.arange(width) + 0.5) / width - 0.5) * degree
    y = ((np.arange(height) + 0.5) / height - 0.5) * (-degree * height / width)
    return x[None, :], y[:, None]


def _size(size_px: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size_px, (tuple, list)) or len(size_px) != 2:
        raise ValueError(f"size_px is {size_px!r}: give (height, width) in pixels.")
    for value in size_px:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"size_px is {size_px!r}: give (height, width) as two positive whole numbers.")
    return int(size_px[0]), int(size_px[1])


@dataclass(frozen=True)
class Aperture:
    """
    A disk that is open inside, closed outside, with a raised-cosine edge between.

    ``m(r) = 1`` for ``r <= R - w``, ``0.5 (1 + cos(pi (r - (R - w)) / w))`` across the edge and 0 from R on, where r is
    the distance from the middle of the disk, R is radius_deg and w is edge_deg.

    Parameters
    ----------
    radius_deg : float
        Where the disk ends, in degrees.
    edge_deg : float
        Width of the edge inside the radius in degrees; 0 is a sharp edge.
    x_deg, y_deg : float
        Middle of the disk, to the right of and above the middle of the image, in degrees.

    Raises
    ------
    TypeError
        If a value is not a number.
    ValueError
        If a number is not finite, the radius is not positive, or the edge is wider than the radius.

    Examples
    --------
    >>> Aperture(radius_deg=4.0, edge_deg=2.0).mask((4, 4), 8.0)[0].round(3).tolist()
    [0.0, 0.374, 0.374, 0.0]
    """

    radius_deg: float
    edge_deg: float = 0.0
    x_deg: float = 0.0
    y_deg: float = 0.0

    def __post_init__(self) -> None:
        """Check every value and store plain floats."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise TypeError(f"{field.name} of the aperture is {value!r}: give a number of degrees.")
            if not math.isfinite(value):
                raise ValueError(f"{field.name} of the aperture is {value!r}: give a finite number of degrees.")
            object.__setattr__(self, field.name, float(value))
        if not self.radius_deg > 0 or not 0 <= self.edge_deg <= self.radius_deg:
            raise ValueError(
                f"The aperture has radius_deg {self.radius_deg:g} and edge_deg {self.edge_deg:g}: give a positive "
                "radius and an edge from 0 to the radius."
            )

    def mask(self, size_px: tuple[int, int], size_deg: float) -> NDArray[np.float64]:
        """
        Say how far the aperture is open at every pixel.

        Parameters
        ----------
        size_px : tuple of int
            Height and width of the image in pixels.
        size_deg : float
            Width of the image in degrees of visual angle.

        Returns
        -------
        array, shape (h, w)
            1 inside, 0 outside, the raised cosine in between.

        Raises
        ------
        ValueError
            If a size is not positive, or the aperture is closed at every pixel.

        Examples
        --------
        >>> Aperture(1.0).mask((2, 4), 4.0).tolist()
        [[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]]
        """
        x, y = pixel_centers(size_px, size_deg)
        distance = np.sqrt((x - self.x_deg) ** 2 + (y - self.y_deg) ** 2)
        if self.edge_deg:
            inward = np.clip(self.radius_deg - distance, 0.0, self.edge_deg) / self.edge_deg
            opened = (1.0 - np.cos(math.pi * inward)) / 2.0
        else:
            opened = (distance < self.radius_deg).astype(np.float64)
        if not opened.max() > 0.0:
            height, width = size_px
            raise ValueError(
                f"{self} is closed at every pixel of an image of {height} x {width} px and {size_deg:g} deg: move or "
                "enlarge it."
            )
        return opened

    def columns(self) -> dict[str, float]:
        """
        Give the parameters as columns for the table of a set.

        Returns
        -------
        dict
            aperture_radius_deg, aperture_edge_deg, aperture_x_deg and aperture_y_deg.

        Examples
        --------
        >>> Aperture(2.0, 0.5).columns()["aperture_radius_deg"]
        2.0
        """
        return {f"aperture_{name}": value for name, value in dataclasses.asdict(self).items()}


@overload
def apply_aperture(
    images: StimulusSet, aperture: Aperture, background: float = 0.5, *, size_deg: None = None
) -> StimulusSet: ...
@overload
def apply_aperture(
    images: ArrayLike, aperture: Aperture, background: float = 0.5, *, size_deg: float
) -> NDArray[np.float64]: ...
def apply_aperture(
    images: Any, aperture: Aperture, background: float = 0.5, *, size_deg: float | None = None
) -> StimulusSet | NDArray[np.float64]:
    """
    Blend images into the background outside an aperture, ``background + m * (image - background)``.

    Parameters
    ----------
    images : StimulusSet or array of float, shape (..., h, w)
        A set, or images in [0, 1].
    aperture : Aperture
        The window.
    background : float
        Value of the surround in [0, 1]; 0.5 is the code 128.
    size_deg : float, optional
        Width of the images in degrees; needed for an array and not taken for a set, which has its own.

    Returns
    -------
    StimulusSet or array of float
        The same kind. A set keeps its ids and file names, and gains the columns of `Aperture.columns`; where it has
        the columns rms_contrast and mean_luminance, these are measured again, of the whole image.

    Raises
    ------
    TypeError
        If size_deg is missing for an array or given for a set, or an array is not floating point.
    ValueError
        If the background is outside [0, 1] or the aperture is closed at every pixel.

    Examples
    --------
    >>> white = StimulusSet.from_arrays(np.ones((1, 1, 2, 4)), size_deg=4.0)
    >>> apply_aperture(white, Aperture(1.0)).codes()[0, 0, 0].tolist()
    [128, 255, 255, 128]
    """
    if not 0.0 <= background <= 1.0:
        raise ValueError(f"background is {background!r}: give a number from 0 (black) to 1 (white).")
    if not isinstance(images, StimulusSet):
        if size_deg is None:
            raise TypeError("apply_aperture got an array without size_deg: give the width of the images in degrees.")
        array = np.asarray(images)
        if not np.issubdtype(array.dtype, np.floating):
            raise TypeError(
                f"apply_aperture got images of type {array.dtype}: give floating point in [0, 1], such as codes / 255."
            )
        mask = aperture.mask((array.shape[-2], array.shape[-1]), size_deg)
        return np.asarray(background + mask * (array - background))
    if size_deg is not None:
        raise TypeError("apply_aperture got size_deg beside a StimulusSet, which has its own: leave size_deg out.")
    mask = aperture.mask(images.size_px, images.size_deg)

    def blended(position: int) -> NDArray[np.uint8]:
        image = images.codes([position]) / 255.0
        return quantize(background + mask * (image - background))[0][0]

    config = {"apply_aperture": dataclasses.asdict(aperture) | {"background": background}}
    return derive(images, blended, config, columns=aperture.columns)
